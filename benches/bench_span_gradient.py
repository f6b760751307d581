"""A training step of the span head: ours beside autograd through the factored and through the unfactored head.

The step is word and prompt vectors -> logits -> gradients of all weights of the head. On CUDA the peak of its memory,
above what was there before, stands in the conditions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benches.compare import Race, relative_error
from benches.conftest import SIZES
from benches.floor import SpanCounts
from benches.on_card import peak_bytes
from gliner_fast.kernels.span_reference import span_scores_reference
from gliner_fast.scorer import SpanScorer
from tests import checkpoint_recipes

MAX_WIDTH = 12
TEXTS = {"cpu": 8, "cuda": 32}
# Largest difference of a weight's gradient over its largest value. Factored and unfactored sums round differently, and
# where one is on the other side of zero the ReLU lets another gradient through: on a CPU, of as many words, they differ
# by 0.006 in float32, and by 0.07 in bf16, which keeps 8 bits.
TOLERANCE = {torch.float32: 2e-2, torch.bfloat16: 0.1}

Step = Callable[[], dict[str, Tensor | None]]


# Training belongs on a GPU; on a CPU one small shape shows that the three agree.
CASES = [
    ("cpu", torch.float32, 20),
    *(
        pytest.param("cuda", dtype, words, marks=pytest.mark.gpu)
        for dtype in TOLERANCE
        for words in (20, 128)
        if torch.cuda.is_available()
    ),
]


@pytest.mark.parametrize(("device", "dtype", "words"), CASES)
@pytest.mark.parametrize("size", SIZES[-1:])  # all but tiny and large have the same head
@pytest.mark.parametrize("classes", [5, 25])
def bench_span_gradient(race: Race, classes: int, size: str, device: str, dtype: torch.dtype, words: int) -> None:
    torch.manual_seed(0)
    texts, width = TEXTS[device], checkpoint_recipes.SIZES[size][4]
    scorer = SpanScorer(width, MAX_WIDTH, "markerV0", dropout=0.0).to(device, dtype)
    joint = scorer.joint
    assert joint is not None
    vectors = torch.randn(texts * words, width, device=device, dtype=dtype)  # (N, D)
    labels = torch.randn(texts * classes, width, device=device, dtype=dtype)  # (T, D)
    word_counts, class_counts = [words] * texts, [classes] * texts
    past = torch.arange(words)[:, None] + torch.arange(MAX_WIDTH) >= words  # (W, K)
    past = past.to(device)[:, :, None].expand(texts, -1, -1, classes).flatten()
    d_logits = torch.randn(len(past), device=device, dtype=dtype).masked_fill(past, 0.0)

    def ours(prompts: Tensor) -> Tensor:
        logits: Tensor = scorer(vectors, prompts, word_counts, class_counts)
        return logits

    def factored(prompts: Tensor) -> Tensor:
        counts: SpanCounts = {"word_counts": word_counts, "class_counts": class_counts, "max_width": MAX_WIDTH}
        types, constants = prompts @ scorer.out.weight, prompts @ scorer.out.bias
        return span_scores_reference(*scorer.halves(vectors), types, constants, **counts)

    def unfactored(prompts: Tensor) -> Tensor:
        end = (torch.arange(words)[:, None] + torch.arange(MAX_WIDTH)).clamp(max=words - 1).to(device)  # (W, K)
        starts, ends = (F.relu(part(vectors)).view(texts, words, width) for part in (scorer.start, scorer.end))
        pairs = torch.cat([starts[:, :, None].expand(-1, -1, MAX_WIDTH, -1), ends[:, end]], -1)  # (B, W, K, 2D)
        spans = scorer.out(F.relu(joint(pairs)))  # (B, W, K, D)
        return torch.einsum("BWKD,BCD->BWKC", spans, prompts.view(texts, classes, width)).flatten()

    def as_step(logits: Callable[[Tensor], Tensor]) -> Step:
        def step() -> dict[str, Tensor | None]:
            scorer.zero_grad(set_to_none=True)
            logits(scorer.prompt(labels)).backward(d_logits)
            return {name: weight.grad for name, weight in scorer.named_parameters()}

        return step

    our_step = as_step(ours)
    rivals = {"autograd, unfactored": as_step(unfactored), "autograd, factored": as_step(factored)}
    wanted, got = rivals["autograd, unfactored"](), our_step()
    error = max(gradient_error(got[name], wanted[name]) for name in wanted)
    assert error <= TOLERANCE[dtype]
    conditions: dict[str, Any] = {}
    if device == "cuda":
        conditions["peak_bytes"] = {name: peak_bytes(step) for name, step in [("ours", our_step), *rivals.items()]}
    race.run(
        our_step,
        rivals,
        agreement=f"relative error of gradients {error:.1e}",
        amount=texts * words,
        unit="words",
        executor=scorer.executor,
        texts=texts,
        words=words,
        classes=classes,
        hidden_size=width,
        max_width=MAX_WIDTH,
        dtype=str(dtype).removeprefix("torch."),
        **conditions,
    )


def gradient_error(got: Tensor | None, wanted: Tensor | None) -> float:
    """The relative error of a weight's gradient; every weight has one."""
    assert got is not None
    assert wanted is not None
    return relative_error(got, wanted)
