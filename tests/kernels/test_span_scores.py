"""The plain reference of the span scorer against a sum written out."""

from __future__ import annotations

import math

import pytest
import torch

from gliner_fast.kernels import span_reference
from gliner_fast.kernels.span_reference import span_scores_reference

SHAPES = [
    # word counts, class counts, widest span
    ([1], [1], 1),
    ([1], [3], 12),
    ([5], [2], 12),
    ([7, 1, 4], [2, 5, 1], 3),
    ([3, 0, 2], [2, 2, 2], 4),
    ([3, 2], [0, 3], 2),
    ([], [], 2),
]


@pytest.mark.parametrize(("word_counts", "class_counts", "max_width"), SHAPES)
@pytest.mark.parametrize("block", [1, 40, 2**21], ids=["row-by-row", "small-blocks", "one-block"])
def test_scores_are_the_sum_written_out(
    word_counts: list[int], class_counts: list[int], max_width: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(span_reference, "_BLOCK_ELEMENTS", block)
    torch.manual_seed(0)
    hidden = 6
    u, v = torch.randn(2, sum(word_counts), hidden, dtype=torch.float64)
    g, c = torch.randn(sum(class_counts), hidden, dtype=torch.float64), torch.randn(sum(class_counts)).double()
    ours = span_scores_reference(u, v, g, c, word_counts=word_counts, class_counts=class_counts, max_width=max_width)
    wanted = []
    word = type_ = 0
    for words, classes in zip(word_counts, class_counts, strict=True):
        for start in range(words):
            for width in range(max_width):
                for t in range(type_, type_ + classes):
                    if start + width >= words:
                        wanted.append(-math.inf)
                    else:
                        joined = (u[word + start] + v[word + start + width]).clamp(min=0)
                        wanted.append(float(joined @ g[t] + c[t]))
        word, type_ = word + words, type_ + classes
    torch.testing.assert_close(ours, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-12)


def test_every_logit_is_written_and_none_reads_a_neighbour() -> None:
    """Two texts side by side: each one's block equals the one it has alone, whatever its neighbour holds."""
    torch.manual_seed(0)
    u, v = torch.randn(2, 9, 8)
    g, c = torch.randn(5, 8), torch.randn(5)
    poisoned_u, poisoned_v = u.clone(), v.clone()
    poisoned_u[4:], poisoned_v[4:] = math.nan, math.nan
    both = span_scores_reference(poisoned_u, poisoned_v, g, c, word_counts=[4, 5], class_counts=[2, 3], max_width=6)
    alone = span_scores_reference(u[:4], v[:4], g[:2], c[:2], word_counts=[4], class_counts=[2], max_width=6)
    torch.testing.assert_close(both[: len(alone)], alone, rtol=0, atol=0)
    assert both.numel() == 4 * 6 * 2 + 5 * 6 * 3


def test_gradients_flow_to_every_input() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((5, 3), (5, 3), (3, 3), (3,))]

    def finite_scores(u: torch.Tensor, v: torch.Tensor, g: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        scores = span_scores_reference(u, v, g, c, word_counts=[3, 2], class_counts=[2, 1], max_width=2)
        return scores[torch.isfinite(scores)]

    assert torch.autograd.gradcheck(finite_scores, inputs)
