"""Gradient of the span scores (`span_scores.py`) with respect to what they are made of.

With d the gradient of the logits and r[i, k] = relu(u[i] + v[i + k]), which is computed anew instead of being kept:

    dg[t] = sum over i, k of d[i, k, t] r[i, k]        dc[t] = sum over i, k of d[i, k, t]
    du[i] = sum over k of m[i, k]                      dv[j] = sum over i + k = j of m[i, k]

    where m[i, k] = (sum over t of d[i, k, t] g[t]) where u[i] + v[i + k] > 0, else 0

So training keeps u, v and g, (words + types) x 4D values, and never spans x 4D of them. Every sum has one order: the
kernels use no atomics, and the same input gives the same bits. The specification is in `span_reference.py`.
"""

# The arguments of a kernel are told by their comments: pointers and numbers have no Python types.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import accumulate

import torch
from torch import Tensor

from gliner_fast.kernels._triton import COMPILED_AS, jit, jit_for_any, tl
from gliner_fast.kernels.span_tiling import ceil_div, to_device

# Not measured on a card yet: the largest blocks that spill no registers when compiled for sm_90 (Triton 3.6, ptxas).
_BLOCK_WORDS = 32
_BLOCK_BYTES = 128  # of the hidden units of a word: 64 of them in 16 bits, 32 in fp32
_FEWEST_TYPES, _MOST_TYPES = 16, 32  # powers of two; the matrix units take no fewer
_MOST_SPLITS = 8  # parts that the words of a long text are summed in for dg and dc


@jit
def _load_text(texts_ptr, text):
    """A text's first word and words, first type and types, and where its block of logits begins."""
    row = texts_ptr + 6 * text
    words, types = tl.load(row + 1).to(tl.int32), tl.load(row + 3).to(tl.int32)
    return tl.load(row), words, tl.load(row + 2), types, tl.load(row + 4)


@jit_for_any(addresses=("texts_ptr", "tiles_ptr"))
def _word_gradient_kernel(
    d_ptr,  # flat blocks (words, K, types)
    own_ptr,  # (N, H), contiguous: u for its own gradient, v for its own
    other_ptr,  # (N, H), contiguous: the other one
    g_ptr,  # (T, H), contiguous
    d_own_ptr,  # (N, H), contiguous
    texts_ptr,  # (B, 6), int64; see `_load_text`
    tiles_ptr,  # (programs, 2), int64: text and first word within it
    H,
    DIRECTION: tl.constexpr,  # where the other ends of the spans are: 1 for u, -1 for v
    K: tl.constexpr,
    TYPE_BLOCKS: tl.constexpr,  # enough for the text with most types
    BLOCK_W: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_T: tl.constexpr,
    SUM: tl.constexpr,
    PRECISION: tl.constexpr,
):
    # One program sums the gradient of one half of BLOCK_W words of a text over BLOCK_H hidden units, width by width.
    tile = tl.program_id(0)
    first_word, words, first_type, types, first_logit = _load_text(texts_ptr, tl.load(tiles_ptr + 2 * tile))
    first = tl.load(tiles_ptr + 2 * tile + 1)
    # Where the tile begins is int64, as the tables are: N * H passes 2**31 at 700,000 words of H = 3,072, and the
    # logits do at 7 million words of 25 types and 12 widths. Offsets within a tile are int32.
    own_ptr += (first_word + first) * H
    other_ptr += (first_word + first) * H
    d_own_ptr += (first_word + first) * H
    g_ptr += first_type * H
    d_ptr += first_logit + first * K * types
    before, left = -first.to(tl.int32), words - first.to(tl.int32)  # words of the text are before..left of the tile

    word = tl.arange(0, BLOCK_W)
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    in_hidden = (h < H)[None, :]
    offset = word[:, None] * H + h[None, :]  # (BLOCK_W, BLOCK_H)
    stored = (word < left)[:, None] & in_hidden
    own = tl.load(own_ptr + offset, mask=stored, other=0.0).to(SUM)
    d_own = tl.zeros((BLOCK_W, BLOCK_H), SUM)
    for block in range(TYPE_BLOCKS):
        t = block * BLOCK_T + tl.arange(0, BLOCK_T)
        is_type = t < types
        g_at = t[:, None] * H + h[None, :]  # (BLOCK_T, BLOCK_H)
        g = tl.load(g_ptr + g_at, mask=is_type[:, None] & in_hidden, other=0.0)
        for k in range(K):
            end = word + DIRECTION * k  # the other end
            inside = ((word < left) & (end < left) & (end >= before))[:, None]
            logit = (tl.minimum(word, end) * K + k) * types
            d = tl.load(d_ptr + logit[:, None] + t[None, :], mask=inside & is_type[None, :], other=0.0)
            other = tl.load(other_ptr + offset + DIRECTION * k * H, mask=inside & in_hidden, other=0.0).to(SUM)
            passed = tl.dot(d, g, input_precision=PRECISION, out_dtype=SUM)
            # Not `> 0`: a NaN passes the gradient on, as torch's ReLU does. Outside g may be infinite, times d = 0.
            d_own += tl.where((own + other <= 0) | (inside == 0), 0.0, passed)
    tl.store(d_own_ptr + offset, d_own, mask=stored)


@jit_for_any(numbers=("T",), addresses=("texts_ptr", "tiles_ptr"))
def _type_gradient_kernel(
    d_ptr,  # flat blocks (words, K, types)
    u_ptr,  # (N, H), contiguous
    v_ptr,  # (N, H), contiguous
    dg_ptr,  # (SPLITS, T, H), contiguous
    dc_ptr,  # (SPLITS, T), contiguous
    texts_ptr,  # (B, 6), int64; see `_load_text`
    tiles_ptr,  # (programs, 2), int64: text and first type within it
    T,
    H,
    SPLITS,
    K: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_T: tl.constexpr,
    SUM: tl.constexpr,
    PRECISION: tl.constexpr,
):
    # One program sums dg of BLOCK_T types over BLOCK_H hidden units, and dc, over every SPLITS-th tile of words of
    # their text; the launch function adds the parts. Where something begins is int64, as above.
    tile, split = tl.program_id(0), tl.program_id(2)
    first_word, words, first_type, types, first_logit = _load_text(texts_ptr, tl.load(tiles_ptr + 2 * tile))
    t = tl.load(tiles_ptr + 2 * tile + 1).to(tl.int32) + tl.arange(0, BLOCK_T)
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    is_type, in_hidden = t < types, (h < H)[None, :]
    row = tl.arange(0, BLOCK_W)
    offset = row[:, None] * H + h[None, :]  # (BLOCK_W, BLOCK_H)
    dg = tl.zeros((BLOCK_T, BLOCK_H), SUM)
    dc = tl.zeros((BLOCK_T,), SUM)
    first = split * BLOCK_W
    while first < words:  # not `range`, whose bound the interpreter cannot take from memory with numpy 2.4
        at = (first_word + first) * H
        logits_at = first_logit + first.to(tl.int64) * K * types
        left = words - first
        u = tl.load(u_ptr + at + offset, mask=(row < left)[:, None] & in_hidden, other=0.0).to(SUM)
        for k in range(K):
            inside = row + k < left
            v = tl.load(v_ptr + at + offset + k * H, mask=inside[:, None] & in_hidden, other=0.0).to(SUM)
            inactive = (u + v <= 0) | (inside[:, None] == 0)
            spans = tl.where(inactive, 0.0, u + v).to(u_ptr.dtype.element_ty)  # (BLOCK_W, BLOCK_H)
            logit = (row * K + k) * types
            mask = is_type[:, None] & inside[None, :]
            d = tl.load(d_ptr + logits_at + logit[None, :] + t[:, None], mask=mask, other=0.0)  # (BLOCK_T, BLOCK_W)
            dg = tl.dot(d, spans, dg, input_precision=PRECISION, out_dtype=SUM)
            dc += tl.sum(d.to(SUM), axis=1)
        first += SPLITS * BLOCK_W
    row_of_type = split.to(tl.int64) * T + first_type + t  # (BLOCK_T,)
    tl.store(dg_ptr + row_of_type[:, None] * H + h[None, :], dg, mask=is_type[:, None] & in_hidden)
    if tl.program_id(1) == 0:  # not in the mask: what the interpreter makes of a boolean there Triton 3.9 does not take
        tl.store(dc_ptr + row_of_type, dc, mask=is_type)


def span_scores_gradient(
    u: Tensor,
    v: Tensor,
    g: Tensor,
    d_logits: Tensor,
    *,
    word_counts: Sequence[int],
    class_counts: Sequence[int],
    max_width: int,
    allow_tf32: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `span_scores_gradient_reference`, by the Triton kernels; on CPU tensors only under TRITON_INTERPRET=1.

    Args:
        u: (N, H).
        v: (N, H).
        g: (T, H).
        d_logits: flat.
        word_counts: words of each text.
        class_counts: entity types of each text.
        max_width: K.
        allow_tf32: let products of float32 run in TF32, which keeps 10 bits of each factor.
    """
    dtype = u.dtype
    u, v, g, d_logits = (tensor.contiguous() for tensor in (u, v, g, d_logits))
    if dtype == torch.bfloat16 and u.device.type == "cpu":
        # The interpreter computes with numpy, which has no bfloat16, and cuts what it should round.
        u, v, g, d_logits = u.float(), v.float(), g.float(), d_logits.float()
    types, hidden = g.shape
    sums = torch.promote_types(u.dtype, torch.float32)
    splits = max(1, min(_MOST_SPLITS, max(word_counts, default=0) // (4 * _BLOCK_WORDS)))
    du, dv = torch.empty_like(u), torch.empty_like(v)
    dg = torch.empty(splits, types, hidden, dtype=sums, device=u.device)
    dc = torch.empty(splits, types, dtype=sums, device=u.device)
    block_types = _FEWEST_TYPES if max(class_counts, default=0) <= _FEWEST_TYPES else _MOST_TYPES
    block_hidden = _BLOCK_BYTES // u.element_size()
    texts, word_tiles, type_tiles = _tables(word_counts, class_counts, max_width, block_types, u.device)
    options = {
        "K": max_width,
        "BLOCK_W": _BLOCK_WORDS,
        "BLOCK_H": block_hidden,
        "BLOCK_T": block_types,
        "SUM": _triton_dtype(sums),
        "PRECISION": "tf32" if allow_tf32 else "ieee",
        **COMPILED_AS,
    }
    hidden_tiles = ceil_div(hidden, block_hidden)
    with torch.cuda.device(u.device) if u.is_cuda else nullcontext():
        if len(word_tiles):
            blocks = ceil_div(max(class_counts), block_types)
            for direction, own, other, d_own in ((1, u, v, du), (-1, v, u, dv)):
                _word_gradient_kernel[len(word_tiles), hidden_tiles](
                    d_logits, own, other, g, d_own, texts, word_tiles, hidden, direction, TYPE_BLOCKS=blocks, **options
                )
        if len(type_tiles):
            _type_gradient_kernel[len(type_tiles), hidden_tiles, splits](
                d_logits, u, v, dg, dc, texts, type_tiles, types, hidden, splits, **options
            )
    return du.to(dtype), dv.to(dtype), dg.sum(0).to(dtype), dc.sum(0).to(dtype)


def _tables(
    word_counts: Sequence[int], class_counts: Sequence[int], max_width: int, block_types: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """What the programs read: texts (B, 6), see `_load_text`; tiles of words and of types (programs, 2)."""
    first_words = [0, *accumulate(word_counts)]
    first_types = [0, *accumulate(class_counts)]
    sizes = [words * max_width * classes for words, classes in zip(word_counts, class_counts, strict=True)]
    first_logits = [0, *accumulate(sizes)]
    # The sixth column is room: rows of 16 bytes or a multiple keep each table where Triton's kernels want it to begin.
    room = [0] * len(sizes)
    texts = list(zip(first_words, word_counts, first_types, class_counts, first_logits, room, strict=False))
    word_tiles = [(text, at) for text, words in enumerate(word_counts) for at in range(0, words, _BLOCK_WORDS)]
    type_tiles = [(text, at) for text, count in enumerate(class_counts) for at in range(0, count, block_types)]
    rows = [*texts, *word_tiles, *type_tiles]
    flat = torch.tensor([value for row in rows for value in row], dtype=torch.int64, device="cpu")
    flat = to_device(flat, device)  # one copy for all three
    tables = flat.split([6 * len(texts), 2 * len(word_tiles), 2 * len(type_tiles)])
    return tables[0].view(-1, 6), tables[1].view(-1, 2), tables[2].view(-1, 2)


def _triton_dtype(dtype: torch.dtype) -> tl.dtype:
    return getattr(tl, str(dtype).removeprefix("torch."))
