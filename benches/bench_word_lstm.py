"""The word LSTM beside torch's own: for inference the Rust kernel, in training `gliner_fast.cpu.lstm_training`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from benches.compare import Race, relative_error
from gliner_fast.cpu.native_lstm import native_lstm
from gliner_fast.scoring.word_vectors import WordLSTM, time_major

WIDTHS = {"minilm": 384, "base": 512}
# Words of the texts of one piece of a batch.
TEXTS = {"short": [12, 15, 18, 20, 22, 22, 25, 28, 31, 35, 38, 44, 60], "long": [150, 180]}
TOLERANCE = 1e-4  # of each gradient, relative to its largest value
BATCHES = {
    "sentence": [18],
    "paragraph": [110],
    "sentences": [60, 44, 38, 35, 31, 28, 25, 22, 22, 20, 18, 15, 12],
    "sentences-of-one-length": [20] * 24,
    "documents": [250, 220],
}


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
    error = max(relative_error(own, other) for own, other in zip(ours(), theirs(), strict=True))
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


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("size", WIDTHS)
def bench_word_lstm_inference(race: Race, size: str, name: str) -> None:
    torch.manual_seed(0)
    width, word_counts = WIDTHS[size], torch.tensor(BATCHES[name])
    lstm = WordLSTM(width, 1).eval().lstm
    vectors = torch.randn(int(word_counts.sum()), width)

    @torch.inference_mode()
    def ours() -> Tensor:
        return native_lstm(lstm, vectors, word_counts)

    @torch.inference_mode()
    def torchs() -> Tensor:
        order, sizes = time_major(word_counts)
        out = lstm(PackedSequence(vectors[order], sizes))[0].data
        return torch.empty_like(out).index_copy(0, order, out)

    error = float((ours() - torchs()).abs().max())
    assert error <= 1e-5
    race.run(
        ours,
        {"torch": torchs},
        agreement=f"difference {error:.1e}",
        amount=len(vectors),
        unit="words",
        width=width,
        texts=len(word_counts),
        dtype="float32",
    )
