"""Span scores: how well each span of up to K words fits each entity type (GLiNER, Zaratiana et al. 2024, equation 1).

With the head factored (DESIGN 3.1) a score needs 4D multiply-adds for a span and a type:

    logit[i, k, t] = relu(u[i] + v[i + k]) . g[t] + c[t]

The specification is in `span_reference.py`. Here are the kernel, then its launch functions. It writes all logits, or
only the hits that `span_candidates.py` asks for, the few spans above their threshold. How a batch is cut into programs
is told in `span_tiling.py`.
"""

# The arguments of a kernel are told by their comments: pointers and numbers have no Python types.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gliner_fast.kernels._triton import INTERPRETED, expect_taken, jit, jit_for_any, tl
from gliner_fast.kernels.span_tiling import Tiling, cut_tiles
from gliner_fast.kernels.starting import start


@jit_for_any(numbers=("capacity",), addresses=("texts_ptr", "tile_texts_ptr"))
def _span_scores_kernel(  # noqa: PLR0915
    u_ptr,  # (N, H), rows u_stride apart
    v_ptr,  # (N, H), rows v_stride apart
    g_ptr,  # (T, H), rows g_stride apart
    c_ptr,  # (T,)
    texts_ptr,  # (B, 6) int64, rows as in Tiling
    tile_texts_ptr,  # (tiles,) int64
    out_ptr,  # logits, laid out as span_scores says; in COMPACT (capacity,) fp32 logits of the hits
    keys_ptr,  # (capacity,) int64, where each hit's logit would stand in the dense layout; COMPACT only, as all below
    count_ptr,  # (1,) int32 or int64, all hits, those without room too
    bounds_ptr,  # (T,) fp32, a hit's logit is not below
    allowed_ptr,  # (N, K) uint8
    capacity,  # places for hits
    u_stride,
    v_stride,
    g_stride,
    H: tl.constexpr,
    K: tl.constexpr,
    STARTS: tl.constexpr,
    ENDS: tl.constexpr,
    WIDTHS: tl.constexpr,
    GROUPS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_H: tl.constexpr,
    PRECISION: tl.constexpr,
    FUSED: tl.constexpr,
    CACHED: tl.constexpr,
    COMPACT: tl.constexpr,
    HAS_ALLOWED: tl.constexpr,
):
    # One program rates GROUPS * STARTS neighbouring start words of one text in WIDTHS widths against BLOCK_C types.
    # A group pairs STARTS starts with the ENDS words from the first of them on, every one with every one: a row of u
    # or v is then loaded once for many spans, where loading both rows of each span would be bound by that. The price
    # is the pairs that are no span of these widths (a quarter at K = 12 with 4 x 16).
    tile = tl.program_id(0)
    text_ptr = texts_ptr + tl.load(tile_texts_ptr + tile) * 6
    tile_in_text = (tile - tl.load(text_ptr)).to(tl.int32)
    first_word = tl.load(text_ptr + 1)
    words = tl.load(text_ptr + 2).to(tl.int32)
    first_type = tl.load(text_ptr + 3)
    types = tl.load(text_ptr + 4).to(tl.int32)
    first_logit = tl.load(text_ptr + 5)
    # Tiles of the same words stand beside each other, so that L2 serves their rows.
    width_blocks = tl.cdiv(K, WIDTHS)
    type_blocks = tl.cdiv(types, BLOCK_C)
    first_width = tile_in_text % width_blocks * WIDTHS
    type_ = tile_in_text // width_blocks % type_blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    first_start = tile_in_text // (width_blocks * type_blocks) * (GROUPS * STARTS)
    # first_word is int64, and so are all offsets made of it: N * H passes 2**31 from 700,000 words of H = 3,072.
    # Offsets within the tile are int32.
    first_word += first_start
    words_left = words - first_start
    is_type = type_ < types

    # The product's row (start in its group, group, end in its group): with that order the warps of a tile take
    # groups, so each reads its rows of v once for all starts (seen in the SASS for sm_90).
    u_row = tl.arange(0, STARTS * GROUPS)
    u_word = u_row % GROUPS * STARTS + u_row // GROUPS
    v_row = tl.arange(0, GROUPS * ENDS)
    v_word = v_row // ENDS * STARTS + v_row % ENDS  # counted from first_width words after the tile's first
    h = tl.arange(0, BLOCK_H)
    u_at = u_ptr + first_word * u_stride + u_word[:, None] * u_stride + h[None, :]
    v_at = v_ptr + (first_word + first_width) * v_stride + v_word[:, None] * v_stride + h[None, :]
    g_at = g_ptr + first_type * g_stride + type_[None, :] * g_stride + h[:, None]
    if CACHED:
        # Groups share rows of v. An asynchronous copy of 16 bytes bypasses L1, one of 8 does not: with an offset that
        # the compiler cannot know to be 0, it takes v to be aligned to 8 bytes.
        v_at += tl.where(words < 0, 64 // v_ptr.dtype.element_ty.primitive_bitwidth, 0)
    sums = tl.zeros((STARTS * GROUPS * ENDS, BLOCK_C), tl.float32)
    if first_width < words_left:  # else even the tile's first span ends past the text
        for first in range(0, H, BLOCK_H):
            inside = first + h < H
            u = tl.load(u_at + first, mask=(u_word < words_left)[:, None] & inside[None, :], other=0.0)
            v = tl.load(v_at + first, mask=(v_word < words_left - first_width)[:, None] & inside[None, :], other=0.0)
            g = tl.load(g_at + first, mask=is_type[None, :] & inside[:, None], other=0.0)
            u = tl.reshape(u, (STARTS, GROUPS, 1, BLOCK_H))
            v = tl.reshape(v, (1, GROUPS, ENDS, BLOCK_H))
            pairs = tl.reshape(_add_relu(u, v, FUSED), (STARTS * GROUPS * ENDS, BLOCK_H))
            sums = tl.dot(pairs, g, sums, input_precision=PRECISION)
    logits = sums + tl.load(c_ptr + first_type + type_, mask=is_type, other=0.0).to(tl.float32)[None, :]

    row = tl.arange(0, STARTS * GROUPS * ENDS)
    start = row // ENDS % GROUPS * STARTS + row // (ENDS * GROUPS)
    width = row % ENDS - row // (ENDS * GROUPS)  # counted from first_width
    is_own = (width >= 0) & (width < WIDTHS) & (start < words_left)
    width += first_width
    is_own &= width < K
    is_span = is_own & (start + width < words_left)
    out_at = first_logit + first_start.to(tl.int64) * K * types
    cell = (start * K + width)[:, None] * types + type_[None, :]
    if COMPACT:
        if HAS_ALLOWED:
            allowed_at = allowed_ptr + (first_word + start) * K + width
            is_span &= tl.load(allowed_at, mask=is_span, other=0) != 0
        bounds = tl.load(bounds_ptr + first_type + type_, mask=is_type, other=float("inf"))
        is_hit = is_span[:, None] & is_type[None, :] & (logits >= bounds[None, :])  # a NaN is never one
        _store_hits(is_hit, logits, out_at, cell, out_ptr, keys_ptr, count_ptr, capacity)
    else:
        logits = tl.where(is_span[:, None], logits, float("-inf"))
        tl.store(out_ptr + out_at + cell, logits.to(out_ptr.dtype.element_ty), mask=is_own[:, None] & is_type[None, :])


@jit
def _add_relu(u, v, FUSED: tl.constexpr):
    """relu(u + v), broadcast, in their dtype; a NaN stays one."""
    u, v = tl.broadcast(u, v)
    if FUSED != "":
        one = tl.full(u.shape, 1.0, u.dtype)
        sums = tl.inline_asm_elementwise(FUSED, "=r,r,r,r", [u, one, v], u.dtype, is_pure=True, pack=2)
    else:
        sums = tl.maximum(u + v, 0.0, propagate_nan=tl.PropagateNan.ALL)  # fp32 where they are bf16
    return sums.to(u.dtype)


@jit
def _store_hits(is_hit, logits, first_key, cell, out_ptr, keys_ptr, count_ptr, capacity):
    """Puts the hits of a tile, (ROWS, BLOCK_C), into places of their own, as far as there is room."""
    # In one reduction: with one for each axis Triton 3.6 does not compile this for sm_100 (B200).
    if tl.max(tl.ravel(is_hit.to(tl.int32)), axis=0) > 0:
        # ptxas makes one addition a warp of this; a scan over the tile took more registers. All places of a thread are
        # alive at once: of int64 they took so many that even the loop before them spilled (sm_90).
        one = tl.full(cell.shape, 1, count_ptr.dtype.element_ty)
        place = tl.atomic_add(count_ptr + tl.zeros_like(cell), one, mask=is_hit, sem="relaxed")
        has_room = is_hit & (place < capacity)
        tl.store(keys_ptr + place, first_key + cell, mask=has_room)
        tl.store(out_ptr + place, logits, mask=has_room)


def span_scores(
    u: Tensor,
    v: Tensor,
    g: Tensor,
    c: Tensor,
    *,
    word_counts: Sequence[int],
    class_counts: Sequence[int],
    max_width: int,
    allow_tf32: bool = False,
) -> Tensor:
    """Logits of every span of every text, as `span_scores_reference` gives them, by the kernel.

    Takes fp32, fp16 and bf16 on a CUDA device, or on any under the interpreter. Sums run in fp32; `allow_tf32` lets the
    products of fp32 run on the matrix units, which round their factors to 10 bits. The host waits for nothing. Autograd
    does not see through the kernel.

    Raises:
        TypeError: for another dtype.
        ValueError: for another device.
    """
    inputs = as_kernel_inputs(u, v, g, c)
    tiling = cut_tiles(inputs[0], word_counts, class_counts, max_width)
    logits = inputs[0].new_empty(tiling.logits)
    launch(*inputs, tiling, max_width, logits, allow_tf32=allow_tf32)
    return logits.to(u.dtype)


def as_kernel_inputs(u: Tensor, v: Tensor, g: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The inputs in a layout and dtype that the kernel reads."""
    expect_taken(u, "u is")
    if INTERPRETED and u.dtype is torch.bfloat16:
        u, v, g, c = u.float(), v.float(), g.float(), c.float()  # the interpreter adds bf16 as if they were integers
    # Rows may stand apart, as the halves of one wide product do: to copy them would cost more traffic than the kernel.
    u, v, g = (rows if rows.stride(1) == 1 else rows.contiguous() for rows in (u, v, g))
    return u, v, g, c.contiguous()


@dataclass(frozen=True)
class Hits:
    """Where the kernel puts what it finds, and what it looks for.

    Attributes:
        keys: (capacity,) int64, places in the dense layout.
        count: (1,), 0 before the launch; after it, of all hits, those without room too. Of `count_dtype`.
        bounds: (T,) fp32.
        allowed_spans: (N, K) bool or None.
    """

    keys: Tensor
    count: Tensor
    bounds: Tensor
    allowed_spans: Tensor | None


def count_dtype(most: int) -> torch.dtype:
    """The smallest that counts so many hits."""
    return torch.int32 if most <= torch.iinfo(torch.int32).max else torch.int64


def launch(
    u: Tensor,
    v: Tensor,
    g: Tensor,
    c: Tensor,
    tiling: Tiling,
    max_width: int,
    logits: Tensor,
    *,
    allow_tf32: bool,
    hits: Hits | None = None,
) -> None:
    """Starts the kernel once for the whole batch, to fill `logits` or, where `hits` is given, that."""
    if not len(tiling.tile_texts):
        return
    blocks = tiling.blocks
    allowed = None if hits is None or hits.allowed_spans is None else hits.allowed_spans.contiguous().view(torch.uint8)
    start(
        _span_scores_kernel,
        (len(tiling.tile_texts),),
        u,
        v,
        g,
        c,
        tiling.texts,
        tiling.tile_texts,
        logits,
        hits and hits.keys,
        hits and hits.count,
        hits and hits.bounds,
        allowed,
        len(hits.keys) if hits else 0,
        u.stride(0),
        v.stride(0),
        g.stride(0),
        H=u.shape[1],
        K=max_width,
        STARTS=tiling.starts,
        ENDS=tiling.ends,
        WIDTHS=tiling.widths,
        GROUPS=tiling.groups,
        BLOCK_C=blocks.types,
        BLOCK_H=blocks.hidden,
        PRECISION="tf32" if allow_tf32 else "ieee",
        FUSED=_fused_add_relu(u),
        CACHED=blocks.caches_v,
        COMPACT=hits is not None,
        HAS_ALLOWED=allowed is not None,
        num_warps=tiling.hit_warps if hits else blocks.warps,
        num_stages=blocks.stages,
        maxnreg=tiling.hit_registers if hits else blocks.registers,
    )


def _fused_add_relu(u: Tensor) -> str:
    """PTX for relu(u * 1 + v) of two 16-bit numbers at once; empty where it cannot be used.

    One instruction for two numbers; what Triton makes of the same in bf16 takes several, and bounds the kernel where
    types are few.
    """
    name = {torch.float16: "f16x2", torch.bfloat16: "bf16x2"}.get(u.dtype)
    if name is None or INTERPRETED or torch.version.hip or torch.cuda.get_device_capability(u.device) < (8, 0):
        return ""
    return f"fma.rn.relu.{name} $0, $1, $2, $3;"
