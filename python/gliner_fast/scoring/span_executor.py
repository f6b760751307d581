"""Who computes the span scores: Triton on CUDA, Rust on a CPU, torch else. The one place that chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gliner_fast import _rust
from gliner_fast.cpu.native import (
    allows_tf32,
    asked_executor,
    expect_rust,
    expect_triton,
    rust_takes,
    triton_is_fastest,
)
from gliner_fast.cpu.native_candidates import native_candidates
from gliner_fast.kernels.pending_candidates import PendingCandidates, Room
from gliner_fast.kernels.span_reference import span_scores_gradient_reference, span_scores_reference
from gliner_fast.scoring.candidates import Candidates
from gliner_fast.scoring.probabilities import probabilities
from gliner_fast.upload import upload

# "rust" finds candidates; where all scores are asked for, or gradients, torch computes in its place.
Executor = Literal["torch", "rust", "triton"]

VARIABLE = "GLINER_FAST_SPAN_EXECUTOR"


@dataclass(frozen=True)
class SpanLayout:
    """How packed words and types belong to texts.

    Attributes:
        word_counts: words of each text.
        class_counts: entity types of each text.
        max_width: K, the widest span in words.
    """

    word_counts: Sequence[int]
    class_counts: Sequence[int]
    max_width: int


def choose_executor(device: torch.device, dtype: torch.dtype) -> Executor:
    """The executor for tensors of a device and dtype: what the environment variable says, else the fastest.

    Raises:
        ValueError: the variable names no executor, or one that cannot run there.
    """
    asked = asked_executor(VARIABLE, get_args(Executor))
    if not asked:
        if triton_is_fastest(device, dtype):
            return "triton"
        return "rust" if rust_takes(device, dtype) and _rust.has_vectors() else "torch"
    if asked == "triton":
        expect_triton(device, VARIABLE)
    if asked == "rust":
        expect_rust(device, dtype, VARIABLE)
    return cast(Executor, asked)


def score_spans(u: Tensor, v: Tensor, g: Tensor, c: Tensor, layout: SpanLayout, executor: Executor) -> Tensor:
    """Logits of all spans, differentiable; arguments and result as `kernels.span_reference` describes them."""
    logits: Tensor = _SpanScores.apply(u, v, g, c, layout, executor)  # type: ignore[no-untyped-call]
    return logits


def find_spans(
    u: Tensor,
    v: Tensor,
    g: Tensor,
    c: Tensor,
    layout: SpanLayout,
    thresholds: Tensor,
    allowed_spans: Tensor | None,
    executor: Literal["rust", "triton"],
    room: Room | None = None,
) -> PendingCandidates | Candidates:
    """The spans that score above their type's threshold, found where the scores are; no gradient.

    All as for `score_spans`; `thresholds`, (T,), is the probability that each type must pass, infinite where none does;
    `allowed_spans`, (N, K) bool, says which spans are asked for, where not all are. Rust finds the others too. `room`
    remembers how many the last batches found.
    """
    with torch.no_grad():
        if executor == "rust":
            return native_candidates(u, v, g, c, thresholds=thresholds, **vars(layout))
        from gliner_fast.kernels.span_candidates import span_candidates

        if allowed_spans is not None:
            (allowed_spans,) = upload([allowed_spans], u.device)
        return span_candidates(
            u, v, g, c,
            thresholds=thresholds, allowed_spans=allowed_spans, room=room, allow_tf32=allows_tf32(),
            sigmoid=probabilities, **vars(layout),
        )  # fmt: skip


class _SpanScores(torch.autograd.Function):
    """Span scores with their own gradient: of a span nothing is kept, its ReLU is computed anew in the way back."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, v: Tensor, g: Tensor, c: Tensor, layout: SpanLayout, executor: Executor) -> Tensor:
        ctx.save_for_backward(u, v, g)
        ctx.layout, ctx.executor = layout, executor
        if executor == "triton":
            from gliner_fast.kernels.span_scores import span_scores

            return span_scores(u, v, g, c, allow_tf32=allows_tf32(), **vars(layout))
        return span_scores_reference(u, v, g, c, **vars(layout))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_logits: Tensor) -> tuple[Tensor | None, ...]:
        u, v, g = ctx.saved_tensors
        if ctx.executor == "triton":
            from gliner_fast.kernels.span_scores_gradient import span_scores_gradient

            gradients = span_scores_gradient(u, v, g, d_logits, allow_tf32=allows_tf32(), **vars(ctx.layout))
        else:
            gradients = span_scores_gradient_reference(u, v, g, d_logits, **vars(ctx.layout))
        return *gradients, None, None
