"""Word and label vectors -> span scores: our factored head beside gliner's span layer, prompt layer and product."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from benches.compare import Race, relative_error
from benches.conftest import DEVICES, SIZES, Pair

TEXTS = 8
TOLERANCE = 2e-5  # largest difference over the largest value, fp32: the factors are multiplied in another order


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES[-1:])  # all but tiny and large have the same head
@pytest.mark.parametrize("classes", [5, 25, 100])
@pytest.mark.parametrize("words", [20, 80])
def bench_head(race: Race, pair: Callable[[str, str], Pair], words: int, classes: int, size: str, device: str) -> None:
    models = pair(size, device)
    ours, theirs = models.ours.model.scorer, models.reference.model
    width, max_width = models.reference.config.hidden_size, models.reference.config.max_width
    generator = torch.Generator().manual_seed(0)
    word_vectors = torch.randn(TEXTS, words, width, generator=generator).to(device)  # (B, W, D)
    prompts = torch.randn(TEXTS, classes, width, generator=generator).to(device)  # (B, C, D)
    start = torch.arange(words)[:, None].expand(words, max_width)
    end = start + torch.arange(max_width)  # (W, K)
    inside = (end < words).expand(TEXTS, -1, -1).to(device)  # (B, W, K)
    span_idx = torch.stack([start, end], dim=-1).reshape(1, -1, 2).expand(TEXTS, -1, -1).to(device)  # (B, W*K, 2)
    span_idx = span_idx * inside.reshape(TEXTS, -1, 1)
    word_counts, class_counts = [words] * TEXTS, [classes] * TEXTS

    def run_ours() -> torch.Tensor:
        with torch.inference_mode():
            types = ours.prompt(prompts.reshape(-1, width))
            logits: torch.Tensor = ours(word_vectors.reshape(-1, width), types, word_counts, class_counts)
        return logits

    def run_theirs() -> torch.Tensor:
        with torch.inference_mode():
            spans = theirs.span_rep_layer(word_vectors, span_idx)  # (B, W, K, D)
            return torch.einsum("BLKD,BCD->BLKC", spans, theirs.prompt_rep_layer(prompts))  # (B, W, K, C)

    expected = run_theirs()[inside]  # (spans, C)
    got = run_ours().view(TEXTS, words, max_width, classes)[inside]
    error = relative_error(got, expected)
    assert error <= TOLERANCE
    race.run(
        run_ours,
        {"gliner": run_theirs},
        agreement=f"relative error {error:.1e}",
        amount=TEXTS * words,
        unit="words",
        texts=TEXTS,
        words=words,
        classes=classes,
        hidden_size=width,
        max_width=max_width,
        span_mode=models.reference.config.span_mode,
        dtype="float32",
    )
