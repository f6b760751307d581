"""Span candidates on a CPU, by the Rust kernel: no score is stored but those of the candidates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gliner_fast import _rust
from gliner_fast.cpu.native import rust_takes
from gliner_fast.cpu.openmp import parallel_address
from gliner_fast.scoring.candidates import Candidates, pass_thresholds


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
) -> Candidates:
    """The candidates that `kernels.span_reference.span_candidates_reference` finds, in the same order.

    Takes fp32, bf16 and fp16 on the CPU, scores in fp32, and uses as many threads as torch may. What is found in a text
    depends on that text alone, to the last bit. Autograd does not see through the kernel.

    Raises:
        TypeError: for another dtype or device.
        ValueError: if the shapes do not fit each other.
    """
    if not rust_takes(u.device, u.dtype):
        raise TypeError(
            f"u is {u.dtype} on {u.device}: expected fp32, bf16 or fp16 on the CPU; the reference takes any"
        )
    classes = np.asarray(class_counts, np.int64)
    start_halves, end_halves, types, constants = (
        factor.detach().float().contiguous().numpy() for factor in (u, v, g, c)
    )
    limits = thresholds.numpy()
    likely = _rust.find_spans(
        start_halves,
        end_halves,
        types,
        constants,
        np.asarray(word_counts, np.int64),
        classes,
        max_width,
        limits,
        torch.get_num_threads(),
        parallel_address(),
    )
    return pass_thresholds(likely, classes, limits)
