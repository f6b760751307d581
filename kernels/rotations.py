"""Queries and keys rotated by their places (RoPE, Su et al. 2021), in place and in one pass, for inference.

The specification is `Rotations.rotate` of `attention_reference.py`, which also computes what the kernel does not take.
In torch it is about ten passes in float32. Here are the kernel and its launch function.
"""

# The arguments of a kernel are told by their comments: pointers and numbers have no Python types.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import torch
from torch import Tensor

from gliner_fast.kernels._triton import INTERPRETED, expect_taken, jit_for_any, tl
from gliner_fast.kernels.attention_reference import Rotations
from gliner_fast.kernels.starting import start

_PLANES_PER_WARP = 256


@jit_for_any(addresses=("places_ptr",))
def _rotation_kernel(
    qkv_ptr,  # (N, 3, H, D), whose queries and keys are overwritten
    places_ptr,  # (N,) int64
    cosines_ptr,  # (M, D / 2) float32
    sines_ptr,  # (M, D / 2) float32
    H: tl.constexpr,
    D: tl.constexpr,  # a power of two
    HEADS: tl.constexpr,  # a power of two, at least 2 * H
):
    # One program rotates all heads of a subword. N * 3 * H * D passes 2**31 from 932,000 subwords of width 768, so
    # offsets of subwords are int64.
    subword = tl.program_id(0).to(tl.int64)
    place = tl.load(places_ptr + subword)
    head = tl.arange(0, HEADS)[:, None]  # keys' follow queries'
    plane = tl.arange(0, D // 2)[None, :]
    inside = head < 2 * H
    at = qkv_ptr + subword * (3 * H * D) + head * D + plane
    first = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(at + D // 2, mask=inside, other=0.0).to(tl.float32)
    cosine = tl.load(cosines_ptr + place * (D // 2) + plane)
    sine = tl.load(sines_ptr + place * (D // 2) + plane)
    tl.store(at, (first * cosine - second * sine).to(qkv_ptr.dtype.element_ty), mask=inside)
    tl.store(at + D // 2, (second * cosine + first * sine).to(qkv_ptr.dtype.element_ty), mask=inside)


def rotate_in_place(qkv: Tensor, rotations: Rotations, places: Tensor) -> None:
    """Has qkv be what `Rotations.rotate` gives, by the kernel: computed in fp32, and rounded once.

    Takes fp32, fp16 and bf16 on a CUDA device, or on any under the interpreter. The host waits for nothing. Autograd
    does not see through the kernel.

    Args:
        qkv: (N, 3, H, d), one number after another. Who else holds it sees it change.
        rotations: on the same device, contiguous.
        places: (N,) int64, each subword's place in its text, on the same device.

    Raises:
        TypeError: for another dtype.
        ValueError: for another device, numbers that do not lie one after another, or heads of another width than a
            power of two.
    """
    expect_taken(qkv, "qkv is")
    subwords, _, heads, head_dim = qkv.shape
    if head_dim < 2 or head_dim & (head_dim - 1):
        raise ValueError(f"heads are {head_dim} wide: the kernel takes powers of two; Rotations.rotate takes any")
    if not qkv.is_contiguous():
        raise ValueError(f"the strides of qkv are {qkv.stride()}: expected numbers that lie one after another")
    assert places.dtype is torch.int64
    assert all(part.is_contiguous() for part in (places, rotations.cosines, rotations.sines))
    if not subwords:
        return
    given = qkv
    if INTERPRETED and qkv.dtype is torch.bfloat16:  # the interpreter cuts off what bf16 does not hold
        given = qkv.float()
    rows = 1 << (2 * heads - 1).bit_length()
    start(
        _rotation_kernel,
        (subwords,),
        given,
        places,
        rotations.cosines,
        rotations.sines,
        H=heads,
        D=head_dim,
        HEADS=rows,
        num_warps=warps_of(rows * head_dim // 2),
    )
    if given is not qkv:
        qkv.copy_(given)


def warps_of(planes: int) -> int:
    """Warps of a program that rotates in so many planes: not measured on a card."""
    return min(8, max(1, planes // _PLANES_PER_WARP))
