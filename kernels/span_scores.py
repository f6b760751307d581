"""Span scores: how well each span of up to K words fits each entity type (GLiNER, Zaratiana et al. 2024, equation 1).

With the head factored (DESIGN 3.1) a score needs 4D multiply-adds for a span and a type:

    logit[i, k, t] = relu(u[i] + v[i + k]) . g[t] + c[t]

In this order: the specification in plain torch, which is also how a CPU gets all logits; the kernel; its two launch
functions, `span_scores` for all logits and `span_candidates` for the few spans above their threshold. How a batch is
cut into programs is told in `span_tiling.py`; a CPU finds candidates in Rust (`native_candidates.py`).
"""

# The arguments of a kernel are told by their comments: pointers and numbers have no Python types.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from gliner_fast.kernels._triton import INTERPRETED, jit, tl
from gliner_fast.kernels.span_tiling import Tiling, cut_tiles

# Rows of relu(u_i + v_j) formed at once, in elements: 2**20 float32 are 4 MiB. Medians of this function on 2 cores of
# an EPYC 7003 (2026-11-23, H 2048, K 12, 5 and 25 types): for texts of 380 words 2**21 was 8 to 15 % slower and 2**18
# up to twice as slow; for texts of 20 words 2**19 to 2**25 came in no clear order.
_BLOCK_ELEMENTS = 2**20


def span_scores_reference(
    u: Tensor,
    v: Tensor,
    g: Tensor,
    c: Tensor,
    *,
    word_counts: Sequence[int],
    class_counts: Sequence[int],
    max_width: int,
) -> Tensor:
    """Logits of every span of every text against the text's own entity types.

    Args:
        u: (N, H), start halves of the packed words, bias included.
        v: (N, H), end halves of the packed words.
        g: (T, H), the texts' entity types after the second layer, packed.
        c: (T,), their constants.
        word_counts: words of each text; N in all.
        class_counts: entity types of each text; T in all.
        max_width: K, the widest span in words.

    Returns:
        (sum of words x K x types,): text b is a (W_b, K, C_b) block, blocks one after another; [i, k, t] rates words
        i..i+k+1. A span past the end of its text is -inf.
    """
    sizes = [words * max_width * classes for words, classes in zip(word_counts, class_counts, strict=True)]
    logits = u.new_empty(sum(sizes))
    word = type_ = at = 0
    for words, classes, size in zip(word_counts, class_counts, sizes, strict=True):
        block = logits[at : at + size].view(words, max_width, classes)  # (W, K, C)
        own_types = slice(type_, type_ + classes)
        _score_text(u[word : word + words], v[word : word + words], g[own_types], c[own_types], block)
        word, type_, at = word + words, type_ + classes, at + size
    return logits


def _score_text(u: Tensor, v: Tensor, g: Tensor, c: Tensor, out: Tensor) -> None:
    """Fills `out`, (W, K, C), for one text: u, v (W, H), g (C, H), c (C,)."""
    words, max_width, classes = out.shape
    if not words or not classes:
        return
    width = min(max_width, words)  # no span is wider than its text
    hidden = u.shape[1]
    padded = torch.cat([v, v.new_zeros(width - 1, hidden)])  # (W+K-1, H): widths past the end read zeros
    ends = padded.as_strided((words, width, hidden), (hidden, hidden, 1), padded.storage_offset())  # [i, k] = v[i+k]
    step = max(1, _BLOCK_ELEMENTS // (width * hidden))
    for first in range(0, words, step):
        rows = slice(first, min(first + step, words))
        spans = (u[rows, None, :] + ends[rows]).relu_()  # (w, K, H)
        out[rows, :width] = torch.addmm(c, spans.reshape(-1, hidden), g.mT).view(-1, width, classes)  # (w, K, C)
    start = torch.arange(words, device=u.device)[:, None]
    past_the_end = start + torch.arange(max_width, device=u.device) >= words  # (W, K)
    out.masked_fill_(past_the_end[:, :, None], float("-inf"))


@dataclass(frozen=True)
class SpanCandidates:
    """Spans that score above their type's threshold, in the order of the dense layout: text, start, width, type.

    Attributes:
        texts: (S,) int64, the text of each.
        starts: (S,) int64, its first word, counted in its text.
        widths: (S,) int64, its width index: k stands for k + 1 words.
        types: (S,) int64, its entity type, counted in its text.
        scores: (S,) sigmoids, in the dtype of the logits.
    """

    texts: Tensor
    starts: Tensor
    widths: Tensor
    types: Tensor
    scores: Tensor


def span_candidates_reference(
    u: Tensor,
    v: Tensor,
    g: Tensor,
    c: Tensor,
    *,
    word_counts: Sequence[int],
    class_counts: Sequence[int],
    max_width: int,
    thresholds: Tensor,
    allowed_spans: Tensor | None = None,
) -> SpanCandidates:
    """Spans within their text whose sigmoid, in the logits' dtype, is greater than the threshold rounded to that dtype.

    Beside what `span_scores_reference` takes: `thresholds` (T,), one for each packed type, infinite for a type that
    admits none; `allowed_spans` (N, K) bool, where given, False for the spans that are not asked for, each by its first
    word and its width. A NaN is no candidate.
    """
    logits = span_scores_reference(u, v, g, c, word_counts=word_counts, class_counts=class_counts, max_width=max_width)
    scores, thresholds = logits.sigmoid(), thresholds.to(logits)
    found = []
    word = type_ = at = 0
    for text, (words, classes) in enumerate(zip(word_counts, class_counts, strict=True)):
        size = words * max_width * classes
        block = scores[at : at + size].view(words, max_width, classes)  # (W, K, C)
        wanted = block > thresholds[type_ : type_ + classes]
        if allowed_spans is not None:
            wanted &= allowed_spans[word : word + words, :, None]
        start, width, own_type = torch.where(wanted)  # each (S_b,)
        inside = start + width < words  # a score past the end is 0, which a threshold below 0 would let in
        start, width, own_type = start[inside], width[inside], own_type[inside]
        found.append((torch.full_like(start, text), start, width, own_type, block[start, width, own_type]))
        word, type_, at = word + words, type_ + classes, at + size
    if not found:
        none = scores.new_empty(0, dtype=torch.int64)
        return SpanCandidates(none, none, none, none, scores)
    return SpanCandidates(*(torch.cat(parts) for parts in zip(*found, strict=True)))


@jit
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
    if tl.max(tl.max(is_hit.to(tl.int32), axis=1), axis=0) > 0:
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
    inputs = _as_kernel_inputs(u, v, g, c)
    tiling = cut_tiles(inputs[0], word_counts, class_counts, max_width)
    logits = inputs[0].new_empty(tiling.logits)
    _launch(*inputs, tiling, max_width, logits, allow_tf32=allow_tf32)
    return logits.to(u.dtype)


def span_candidates(
    u: Tensor,
    v: Tensor,
    g: Tensor,
    c: Tensor,
    *,
    word_counts: Sequence[int],
    class_counts: Sequence[int],
    max_width: int,
    thresholds: Tensor,
    allowed_spans: Tensor | None = None,
    allow_tf32: bool = False,
) -> PendingCandidates:
    """The candidates that `span_candidates_reference` finds, by the kernel: the dense logits are never written.

    The host waits for nothing: `PendingCandidates.wait` does, once, and a second time in the rare batch that has more
    than were given room, which runs again.

    Raises:
        TypeError: for another dtype.
        ValueError: for another device.
    """
    inputs = _as_kernel_inputs(u, v, g, c)
    tiling = cut_tiles(inputs[0], word_counts, class_counts, max_width)
    thresholds = thresholds.to(u)

    def search(room: int) -> tuple[Tensor, torch.cuda.Event | None]:
        return _search(inputs, tiling, max_width, thresholds, allowed_spans, u.dtype, room, allow_tf32=allow_tf32)

    return PendingCandidates(u.dtype, search, *search(_first_room(len(u)) if tiling.logits else 0))


@dataclass(frozen=True)
class PendingCandidates:
    """Candidates that the device is looking for; where it is the CPU, they are found already.

    Attributes:
        dtype: of the logits, and so of the scores.
        search: looks for as many as there is room for, again.
        table: (2 + 5 * room,) int32 on the host, as `_search` lays it out; not to be read before `wait`.
        is_there: happens once the table has come; None where it has.
    """

    dtype: torch.dtype
    search: Callable[[int], tuple[Tensor, torch.cuda.Event | None]]
    table: Tensor
    is_there: torch.cuda.Event | None

    def wait(self) -> SpanCandidates:
        """The candidates, on the host."""
        table, is_there = self.table, self.is_there
        while True:
            if is_there is not None:
                is_there.synchronize()
            hits, found = table[:2].tolist()
            columns = table[2:].view(5, -1)
            if hits <= columns.shape[1]:
                texts, starts, widths, types, bits = columns[:, :found]
                scores = bits.contiguous().view(torch.float32).to(self.dtype)
                return SpanCandidates(texts.long(), starts.long(), widths.long(), types.long(), scores)
            table, is_there = self.search(hits)


def _search(
    inputs: tuple[Tensor, Tensor, Tensor, Tensor],
    tiling: Tiling,
    max_width: int,
    thresholds: Tensor,
    allowed_spans: Tensor | None,
    dtype: torch.dtype,
    room: int,
    *,
    allow_tf32: bool,
) -> tuple[Tensor, torch.cuda.Event | None]:
    """Starts the search for up to `room` candidates and their way to the host.

    Returns:
        (2 + 5 * room,) int32 on the host: hits, candidates, and in a row each texts, starts, widths, types and the bits
        of the scores as float32, candidates first and in order. And what happens when it has come, as
        `PendingCandidates` says.
    """
    device = inputs[0].device
    # A multiple of 16, or Triton would compile once more for those that are none.
    keys = torch.full((-(-room // 16) * 16,), _NO_KEY, device=device)
    logits = keys.new_empty(len(keys), dtype=torch.float32)
    count = keys.new_zeros(1, dtype=_count_dtype(tiling.logits))
    hits = _Hits(keys, count, logit_bounds(thresholds), allowed_spans)
    _launch(*inputs, tiling, max_width, logits, allow_tf32=allow_tf32, hits=hits)
    texts, starts, widths, types = tiling.decode(keys.clamp(max=max(0, tiling.logits - 1)), max_width)
    scores = logits.to(dtype).sigmoid()
    # The bounds let a little too much through: this is the comparison that torch makes.
    is_candidate = (keys != _NO_KEY) & (scores > thresholds[tiling.texts[texts, 3] + types])
    order = keys.where(is_candidate, _NO_KEY).argsort()
    indices = torch.stack([texts, starts, widths, types])[:, order].int()  # (4, room)
    bits = scores[order].float().view(torch.int32)
    counts = torch.cat([count, is_candidate.sum()[None]]).clamp(max=2**31 - 1).int()
    table = torch.cat([counts, indices.view(-1), bits])
    if not table.is_cuda:
        return table, None
    on_host = torch.empty(table.shape, dtype=table.dtype, pin_memory=True)
    on_host.copy_(table, non_blocking=True)
    is_there = torch.cuda.Event()
    is_there.record(torch.cuda.current_stream(device))
    return on_host, is_there


def _count_dtype(most: int) -> torch.dtype:
    """The smallest that counts so many hits."""
    return torch.int32 if most <= torch.iinfo(torch.int32).max else torch.int64


# Stands in a place that no hit has taken: greater than every key.
_NO_KEY = torch.iinfo(torch.int64).max


def _first_room(words: int) -> int:
    """Candidates that get room before their number is known: several times what a trained model finds."""
    return 1024 + 4 * words


def logit_bounds(thresholds: Tensor) -> Tensor:
    """Logits that no candidate is below, (T,) fp32; NaN, which nothing reaches, for thresholds above 1.

    Sure, not sharp: sigmoids err by some units in the last place (so the threshold gives way by 2**-20), the logit of
    the threshold by less than 1e-3, and the kernel compares its sums before they are rounded to the logits' dtype.
    """
    bounds = torch.logit(thresholds.float().clamp(min=0) * (1 - 2**-20))
    return bounds - torch.finfo(thresholds.dtype).eps * bounds.abs() - 1e-3


def _as_kernel_inputs(u: Tensor, v: Tensor, g: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The inputs in a layout and dtype that the kernel reads."""
    if u.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise TypeError(f"u is {u.dtype}: expected float32, float16 or bfloat16; the reference takes any")
    if not (u.is_cuda or INTERPRETED):
        raise ValueError(
            f"u is on {u.device}: the kernel needs Triton and a CUDA device, or TRITON_INTERPRET=1 set before "
            "gliner_fast is imported; the reference runs anywhere"
        )
    if INTERPRETED and u.dtype is torch.bfloat16:
        u, v, g, c = u.float(), v.float(), g.float(), c.float()  # the interpreter adds bf16 as if they were integers
    # Rows may stand apart, as the halves of one wide product do: to copy them would cost more traffic than the kernel.
    u, v, g = (rows if rows.stride(1) == 1 else rows.contiguous() for rows in (u, v, g))
    return u, v, g, c.contiguous()


@dataclass(frozen=True)
class _Hits:
    """Where the kernel puts what it finds, and what it looks for.

    Attributes:
        keys: (capacity,) int64, places in the dense layout.
        count: (1,), 0 before the launch; after it, of all hits, those without room too. Of `_count_dtype`.
        bounds: (T,) fp32.
        allowed_spans: (N, K) bool or None.
    """

    keys: Tensor
    count: Tensor
    bounds: Tensor
    allowed_spans: Tensor | None


def _launch(
    u: Tensor,
    v: Tensor,
    g: Tensor,
    c: Tensor,
    tiling: Tiling,
    max_width: int,
    logits: Tensor,
    *,
    allow_tf32: bool,
    hits: _Hits | None = None,
) -> None:
    """Starts the kernel once for the whole batch, to fill `logits` or, where `hits` is given, that."""
    if not len(tiling.tile_texts):
        return
    blocks = tiling.blocks
    allowed = None if hits is None or hits.allowed_spans is None else hits.allowed_spans.contiguous().view(torch.uint8)
    with torch.cuda.device(u.device) if u.is_cuda else nullcontext():
        _span_scores_kernel[(len(tiling.tile_texts),)](
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
