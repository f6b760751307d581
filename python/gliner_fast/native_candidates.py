"""Span candidates on a CPU, by the Rust kernel: no score is stored but those of the candidates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gliner_fast import _rust
from gliner_fast.kernels.span_scores import SpanCandidates, logit_bounds
from gliner_fast.openmp import parallel_address
from gliner_fast.probabilities import probabilities


def native_candidates(
    u: Tensor,
    v: Tensor,
    g: Tensor,
    c: Tensor,
    *,
    word_counts: Sequence[int],
    class_counts: Sequence[int],
    max_width: int,
    thresholds: Tensor,
) -> SpanCandidates:
    """The candidates that `kernels.span_scores.span_candidates_reference` finds, in the same order.

    Takes fp32 on the CPU, and as many threads as torch may use. What is found in a text depends on that text alone, to
    the last bit. Autograd does not see through the kernel.

    Raises:
        TypeError: for another dtype or device.
        ValueError: if the shapes do not fit each other.
    """
    if u.dtype is not torch.float32 or u.device.type != "cpu":
        raise TypeError(f"u is {u.dtype} on {u.device}: expected float32 on the CPU; the reference takes any")
    classes = np.asarray(class_counts, np.int64)
    start_halves, end_halves, types, constants = (factor.detach().contiguous().numpy() for factor in (u, v, g, c))
    offsets, starts, ends, own_types, logits = _rust.find_spans(
        start_halves,
        end_halves,
        types,
        constants,
        np.asarray(word_counts, np.int64),
        classes,
        max_width,
        logit_bounds(thresholds).numpy(),
        torch.get_num_threads(),
        parallel_address(),
    )
    texts = np.repeat(np.arange(len(classes)), np.diff(offsets))
    scores = probabilities(torch.from_numpy(logits))
    # The bounds let a little too much through: this is the comparison that torch makes.
    first_types = np.cumsum(classes) - classes
    kept = scores > thresholds[torch.from_numpy(first_types[texts] + own_types)]
    text, start, width, type_ = (
        torch.from_numpy(column)[kept] for column in (texts, starts, ends - starts - 1, own_types)
    )
    return SpanCandidates(text, start, width, type_, scores[kept])
