"""Disentangled attention on a CPU, by the Rust kernel: over packed texts, no score stored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gliner_fast import _rust
from gliner_fast.kernels.attention_reference import Positions
from gliner_fast.openmp import parallel_address


def native_attention(qkv: Tensor, positions: Positions, *, lengths: Sequence[int], scale: float) -> Tensor:
    """What `kernels.attention_reference.disentangled_attention_reference` gives, (N, 3, H, d) -> (N, H, d).

    Takes fp32 on the CPU, and as many threads as torch may use. What becomes of a text depends on that text alone, to
    the last bit. Autograd does not see through the kernel.

    Raises:
        TypeError: for another dtype or device.
        ValueError: if the shapes do not fit each other.
    """
    if qkv.dtype is not torch.float32 or qkv.device.type != "cpu":
        raise TypeError(f"qkv is {qkv.dtype} on {qkv.device}: expected float32 on the CPU; the reference takes any")
    out = qkv.new_empty(len(qkv), *qkv.shape[2:])
    _rust.attention(
        qkv.detach().contiguous().numpy(),
        None if positions.keys is None else positions.keys.detach().numpy(),
        None if positions.queries is None else positions.queries.detach().numpy(),
        positions.rows.numpy(),
        np.asarray(lengths, np.int64),
        scale,
        out.numpy(),
        torch.get_num_threads(),
        parallel_address(),
    )
    return out
