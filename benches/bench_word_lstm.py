"""The word LSTM in training, forth and back: `gliner_fast.lstm_training` beside torch's own LSTM and its autograd."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from benches.compare import Race
from gliner_fast.word_vectors import WordLSTM, time_major

WIDTHS = {"minilm": 384, "base": 512}
# Words of the texts of one piece of a batch.
TEXTS = {"short": [12, 15, 18, 20, 22, 22, 25, 28, 31, 35, 38, 44, 60], "long": [150, 180]}
TOLERANCE = 1e-4  # of each gradient, relative to its largest value


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("size", WIDTHS)
def bench_word_lstm(race: Race, size: str, texts: str) -> None:
    torch.manual_seed(0)
    width, word_counts = WIDTHS[size], torch.tensor(TEXTS[texts])
    module = WordLSTM(width, 1)
    vectors = torch.randn(int(word_counts.sum()), width, requires_grad=True)
    weights = torch.randn(len(vectors), width)

    def torchs() -> Tensor:
        order, sizes = time_major(word_counts)
        out = module.lstm(PackedSequence(vectors[order], sizes))[0].data
        return torch.empty_like(out).index_copy(0, order, out)

    def gradients(forward: Callable[[], Tensor]) -> Callable[[], tuple[Tensor, ...]]:
        return lambda: torch.autograd.grad((forward() * weights).sum(), [vectors, *module.parameters()])

    ours = gradients(lambda: module(vectors, word_counts))
    theirs = gradients(torchs)
    error = max(
        float((own - other).abs().max() / other.abs().max()) for own, other in zip(ours(), theirs(), strict=True)
    )
    assert error <= TOLERANCE
    race.run(
        ours,
        {"torch": theirs},
        agreement=f"relative error of gradients {error:.1e}",
        amount=len(vectors),
        unit="words",
        width=width,
        texts=len(word_counts),
        dtype="float32",
    )
