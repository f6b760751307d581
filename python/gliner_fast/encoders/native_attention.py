"""Attention on a CPU, by the Rust kernel: over packed texts, no score stored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gliner_fast import _rust
from gliner_fast.cpu.native import rust_takes
from gliner_fast.cpu.openmp import parallel_address
from gliner_fast.cpu.packed_weights import numbers_of
from gliner_fast.kernels.attention_reference import Positions, Rotations


def native_attention(
    qkv: Tensor,
    positions: Positions,
    *,
    lengths: Sequence[int],
    scale: float,
    rotations: Rotations | None = None,
    window: int | None = None,
) -> Tensor:
    """What `kernels.attention_reference.disentangled_attention_reference` gives, (N, 3, H, d) -> (N, H, d).

    With `rotations` queries and keys are rotated first.
    Takes fp32, bf16 and fp16 on the CPU, computes in fp32 with tables in fp32, and uses as many threads as torch may.
    What becomes of a text depends on that text alone, to the last bit. Autograd does not see through the kernel.

    Raises:
        TypeError: for another dtype or device.
        ValueError: if the shapes do not fit each other.
    """
    if not rust_takes(qkv.device, qkv.dtype):
        raise TypeError(
            f"qkv is {qkv.dtype} on {qkv.device}: expected fp32, bf16 or fp16 on the CPU; the reference takes any"
        )
    if qkv.dtype is torch.float16:
        wide = native_attention(
            qkv.float(), positions, lengths=lengths, scale=scale, rotations=rotations, window=window
        )
        return wide.half()
    out = qkv.new_empty(len(qkv), *qkv.shape[2:])
    _rust.attention(
        numbers_of(qkv),
        None if positions.keys is None else positions.keys.detach().numpy(),
        None if positions.queries is None else positions.queries.detach().numpy(),
        positions.rows.numpy(),
        None if positions.biases is None else positions.biases.detach().float().contiguous().numpy(),
        None if rotations is None else (rotations.cosines.detach().numpy(), rotations.sines.detach().numpy()),
        window,
        np.asarray(lengths, np.int64),
        scale,
        numbers_of(out),
        torch.get_num_threads(),
        parallel_address(),
    )
    return out
