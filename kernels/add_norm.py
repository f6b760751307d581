"""Residual and layer norm in one pass: layer_norm(vectors + residual) of each row, for inference.

In torch the sum is written and read again between the two. In this order: the specification in plain torch, which also
computes what the kernel does not take; the kernel; its launch function.
"""

# The arguments of a kernel are told by their comments: pointers and numbers have no Python types.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gliner_fast.kernels._triton import DTYPES, INTERPRETED, expect_taken, jit, tl
from gliner_fast.kernels.starting import start

MOST_COLUMNS = 8192  # a row is held in the registers of one program
_COLUMNS_PER_WARP = 256


def add_norm_reference(vectors: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, *, eps: float) -> Tensor:
    """The norm of the sums, by rows.

    Args:
        vectors: (N, D).
        residual: (N, D), added to them.
        weight: (D,).
        bias: (D,).
        eps: added to a row's variance.

    Returns:
        (N, D).
    """
    return F.layer_norm(vectors + residual, weight.shape, weight, bias, eps)


@jit
def _add_norm_kernel(
    vectors_ptr,  # (N, D)
    residual_ptr,  # (N, D)
    weight_ptr,  # (D,)
    bias_ptr,  # (D,)
    out_ptr,  # (N, D)
    eps,
    D: tl.constexpr,
    BLOCK: tl.constexpr,  # a power of two, at least D
):
    # One program makes one row. N * D passes 2**31 from 2.8 million rows of width 768, so offsets of rows are int64.
    row = tl.program_id(0).to(tl.int64) * D
    d = tl.arange(0, BLOCK)
    inside = d < D
    total = tl.load(vectors_ptr + row + d, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(residual_ptr + row + d, mask=inside, other=0.0).to(tl.float32)
    centred = tl.where(inside, total - tl.sum(total, axis=0) / D, 0.0)
    variance = tl.sum(centred * centred, axis=0) / D
    normed = centred * (1.0 / tl.sqrt_rn(variance + eps))
    weight = tl.load(weight_ptr + d, mask=inside, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + d, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + row + d, (normed * weight + bias).to(out_ptr.dtype.element_ty), mask=inside)


def add_norm(vectors: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, *, eps: float) -> Tensor:
    """What `add_norm_reference` gives, by the kernel: sums and norm run in fp32, and are rounded once.

    Takes fp32, fp16 and bf16 on a CUDA device, or on any under the interpreter. The host waits for nothing. Autograd
    does not see through the kernel.

    Args:
        vectors: (N, D).
        residual: (N, D).
        weight: (D,).
        bias: (D,).
        eps: added to a row's variance.

    Returns:
        (N, D), in the dtype of `vectors`.

    Raises:
        TypeError: for another dtype, or dtypes that differ.
        ValueError: for another device, shapes that do not fit, or rows longer than 8,192.
    """
    _check(vectors, residual, weight, bias)
    out = torch.empty_like(vectors, memory_format=torch.contiguous_format)
    rows, columns = vectors.shape
    if not rows:
        return out
    given = [part.contiguous() for part in (vectors, residual, weight, bias)]
    if INTERPRETED and vectors.dtype is torch.bfloat16:  # the interpreter adds bf16 as if they were integers
        given = [part.float() for part in given]
        out = out.float()
    block = 1 << (columns - 1).bit_length()
    start(_add_norm_kernel, (rows,), *given, out, eps, D=columns, BLOCK=block, num_warps=warps_of(block))
    return out if out.dtype is vectors.dtype else out.to(vectors.dtype)


def warps_of(block: int) -> int:
    """Warps of a program that makes a row of so many columns: not measured on a card."""
    return min(16, max(1, block // _COLUMNS_PER_WARP))


def _check(vectors: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> None:
    shape, dtype = vectors.shape, vectors.dtype
    if (
        vectors.is_cuda
        and dtype in DTYPES
        and dtype is residual.dtype is weight.dtype is bias.dtype
        and len(shape) == 2
        and shape == residual.shape
        and weight.shape == bias.shape == shape[1:]
        and shape[1] <= MOST_COLUMNS
    ):
        return  # there are two dozen starts a batch, and what is told below takes time to ask for
    expect_taken(vectors, "vectors are")
    others = {"residual": residual, "weight": weight, "bias": bias}
    for name, part in others.items():
        if part.dtype is not vectors.dtype:
            raise TypeError(f"{name} is {part.dtype}, but vectors are {vectors.dtype}: they must be of one dtype")
    columns = vectors.shape[-1]
    wanted = {"residual": vectors.shape, "weight": (columns,), "bias": (columns,)}
    for name, part in others.items():
        if vectors.dim() != 2 or part.shape != wanted[name]:
            raise ValueError(
                f"{name} is {tuple(part.shape)} and vectors are {tuple(vectors.shape)}: expected (N, D) for vectors "
                "and residual, (D,) for weight and bias"
            )
    if columns > MOST_COLUMNS:
        raise ValueError(f"rows are {columns:,} wide: the kernel takes {MOST_COLUMNS:,}; the reference takes any")
