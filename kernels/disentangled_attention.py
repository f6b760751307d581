"""Disentangled attention over packed texts (DeBERTa, He et al. 2021, equations 2 to 4), for inference.

A score is content against content, plus content against the distance i - j in both directions:

    score[i, j] = scale * q[i] . k[j] + q[i] . position_keys[r] + k[j] . position_queries[r],   r = rows[i - j]

T5's distances have a number each that is added, ModernBERT's none. The specification is in `attention_reference.py`,
which also computes what the kernel does not take. Here are the kernel, its launch function and the block sizes.
"""

# The arguments of a kernel are told by their comments: pointers and numbers have no Python types.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from gliner_fast.kernels._triton import INTERPRETED, Card, card_of, expect_taken, jit, jit_for_any, loop_bound, tl
from gliner_fast.kernels.attention_reference import Positions
from gliner_fast.kernels.starting import start

# The matrix units take no shorter products, and with heads of 128 float32 no tile fits the registers (on sm_90).
HEAD_DIMS = (16, 32, 64)

LOG2_E = tl.constexpr(1.4426950408889634) if tl is not None else None


@jit
def _from_distances(
    by_distance,  # (BLOCK, BLOCK): of row a, the score at one of the distances that leave the remainder c in column c
    SIGN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Column b of row a becomes column (SIGN * (a - b) - 1) mod BLOCK: from distances to the other rows."""
    a = tl.arange(0, BLOCK)[:, None]
    if BLOCK <= 32:
        return tl.gather(by_distance, (SIGN * (a - tl.arange(0, BLOCK)[None, :]) - 1) & (BLOCK - 1), 1)
    else:  # noqa: RET505 (Triton compiles what follows a return)
        # A warp exchanges 32 numbers by one instruction, but 64 by two and a choice. Hence both halves of 32 columns
        # are turned by what is left of the distance, and then trade places or not.
        tl.static_assert(BLOCK == 64)
        shift = SIGN * (a - tl.arange(0, 32)[None, :]) - 1
        halves = tl.reshape(by_distance, (BLOCK, 2, 32))
        within = tl.broadcast_to((shift & 31)[:, None, :], (BLOCK, 2, 32))
        left, right = tl.split(tl.permute(tl.gather(halves, within, 2), (0, 2, 1)))
        trade = (shift & 32) != 0
        halves = tl.join(tl.where(trade, right, left), tl.where(trade, left, right))
        return tl.reshape(tl.permute(halves, (0, 2, 1)), (BLOCK, BLOCK))


@jit_for_any(numbers=("tiles", "farthest", "window"), addresses=("rows_ptr", "offsets_ptr"))
def _disentangled_attention_kernel(  # noqa: C901, PLR0912, PLR0915
    qkv_ptr,  # (N, 3, H, D)
    keys_ptr,  # (H, R, D); read if C2P
    queries_ptr,  # (H, R, D); read if P2C
    rows_ptr,  # (2 * FARTHEST + 1,) int32, for the distances -FARTHEST..FARTHEST
    biases_ptr,  # (H, 2 * FARTHEST + 1), what is added at these distances; read if BIASED
    offsets_ptr,  # (B + 1,) int64, text b has rows offsets[b]..offsets[b + 1]
    out_ptr,  # (N, H, D)
    tiles,  # of the longest text
    farthest,
    R,
    scale,
    window,  # of subwords on either side that are seen; read if WINDOWED
    H: tl.constexpr,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    C2P: tl.constexpr,
    P2C: tl.constexpr,
    CARRIED: tl.constexpr,  # whether a tile's distances are looked up in the tile before
    WINDOWED: tl.constexpr,  # never with C2P or P2C, whose distances begin with the first key
    BIASED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    # One program attends with BLOCK queries of one text and head to all its keys, BLOCK at a time. No score leaves it.
    # Programs of one head stand beside each other, so that its position vectors stay in L2.
    text = tl.program_id(0) // tiles
    first = tl.program_id(0) % tiles * BLOCK
    head = tl.program_id(1)
    text_start = tl.load(offsets_ptr + text)
    length = (tl.load(offsets_ptr + text + 1) - text_start).to(tl.int32)
    if first >= length:
        return  # the text is shorter than the longest one

    # text_start is int64, and so are all offsets made of it: N * 3 * H * D passes 2**31 from 699,000 subwords of width
    # 1,024. Offsets within a text are int32, which serves one of 699,000 subwords.
    qkv_ptr += text_start * (3 * H * D) + head * D
    h = tl.arange(0, D)
    n = tl.arange(0, BLOCK)
    c = n[None, :]
    i = first + n
    query = tl.load(qkv_ptr + i[:, None] * (3 * H * D) + h[None, :], mask=(i < length)[:, None], other=0.0)
    table = head * R * D + h[None, :]

    # The distances of a tile are the 2 * BLOCK - 1 consecutive ones around first - first_key: BLOCK below, up to and
    # with it, the others above. Those above are those below of the tile before. A row meets BLOCK distances, no two of
    # which leave the same remainder, so that scores by distance fit into BLOCK columns.
    if C2P or P2C:
        above = tl.load(rows_ptr + tl.minimum(i + 1 + farthest, 2 * farthest))
        if CARRIED:
            below = tl.load(rows_ptr + tl.maximum(i - (BLOCK - 1) + farthest, 0))

    highest = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    context = tl.zeros((BLOCK, D), tl.float32)
    begin = 0
    end = length
    if WINDOWED:
        begin = tl.maximum(first - window, 0) // BLOCK * BLOCK
        end = tl.minimum(first + BLOCK + window, length)
    for first_key in range(loop_bound(begin), loop_bound(end), BLOCK):
        j = first_key + n
        inside = j < length
        key_at = qkv_ptr + H * D + j[:, None] * (3 * H * D) + h[None, :]
        key = tl.load(key_at, mask=inside[:, None], other=0.0)
        # Where a tile reaches over the text's end, distances may pass the table's: nobody reads their scores.
        if (C2P or P2C) and not CARRIED:
            below = tl.load(rows_ptr + tl.maximum(i - first_key - (BLOCK - 1) + farthest, 0))
        # All loads of a tile before the first product, or each would be waited for in its turn.
        if P2C:
            query_above = tl.load(queries_ptr + table + above[:, None] * D)
            query_below = tl.load(queries_ptr + table + below[:, None] * D)
        if C2P:
            key_above = tl.load(keys_ptr + table + above[:, None] * D)
            key_below = tl.load(keys_ptr + table + below[:, None] * D)
        value = tl.load(key_at + H * D, mask=inside[:, None], other=0.0)
        if C2P or P2C:
            above = below
            if CARRIED:  # the next tile's
                below = tl.load(rows_ptr + tl.maximum(i - first_key - (2 * BLOCK - 1) + farthest, 0))
        # Positions first, and what needs fewest registers last: more than 255 a thread would lie in memory.
        if P2C:
            to_above = tl.dot(key, tl.trans(query_above), input_precision=PRECISION)
            to_below = tl.dot(key, tl.trans(query_below), input_precision=PRECISION)
            by_distance = tl.where(c < BLOCK - 1 - n[:, None], to_above, to_below)
            position = tl.trans(_from_distances(by_distance, -1, BLOCK))
        if C2P:
            to_above = tl.dot(query, tl.trans(key_above), input_precision=PRECISION)
            to_below = tl.dot(query, tl.trans(key_below), input_precision=PRECISION)
            by_distance = tl.where(c < n[:, None], to_above, to_below)
            if P2C:
                position += _from_distances(by_distance, 1, BLOCK)
            else:
                position = _from_distances(by_distance, 1, BLOCK)
        scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
        if C2P or P2C:
            scores += position
        if BIASED:
            # To load a tile of them would lay the softmax out by columns: in 16 bits, heads 64 wide, the loop had 735
            # instructions (sm_90), has 437 with its 2 * BLOCK - 1 distances loaded once, and 402 without any. What
            # passes the table's ends is of rows or keys beyond the text's, which nobody reads.
            near = first - first_key - BLOCK + tl.arange(0, 2 * BLOCK)
            near = tl.minimum(tl.maximum(near + farthest, 0), 2 * farthest)
            biases = tl.load(biases_ptr + head * (2 * farthest + 1) + near)
            own = tl.reshape(n[:, None] - c + BLOCK, (BLOCK * BLOCK,))  # the place of i - j in it
            scores += tl.reshape(tl.gather(biases, own, 0), (BLOCK, BLOCK))
        scores = tl.where(inside[None, :], scores, float("-inf"))
        if WINDOWED:
            scores = tl.where(tl.abs(i[:, None] - j[None, :]) <= window, scores, float("-inf"))
        new_highest = tl.maximum(highest, tl.max(scores, axis=1))
        if WINDOWED:  # a row may see nothing of its first tiles: their weights are to be 0
            new_highest = tl.maximum(new_highest, -1e30)
        # exp2 is what the card has; its factor is part of a multiplication and addition.
        weights = tl.exp2(scores * LOG2_E - (new_highest * LOG2_E)[:, None])
        shrink = tl.exp2((highest - new_highest) * LOG2_E)
        total = total * shrink + tl.sum(weights, axis=1)
        context = context * shrink[:, None]
        context = tl.dot(weights.to(value.dtype), value, context, input_precision=PRECISION)
        highest = new_highest
    if WINDOWED:  # rows beyond the text's end may have seen nothing at all
        total = tl.maximum(total, 1e-30)
    out = out_ptr + (text_start * H + head) * D + i[:, None] * (H * D) + h[None, :]
    tl.store(out, (context / total[:, None]).to(out_ptr.dtype.element_ty), mask=(i < length)[:, None])


def disentangled_attention(
    qkv: Tensor,
    positions: Positions,
    *,
    longest: int,
    offsets: Tensor,
    scale: float,
    window: int | None = None,
    allow_tf32: bool = False,
) -> Tensor:
    """What `disentangled_attention_reference` gives, by the kernel: no score is ever written to memory.

    Takes fp32, fp16 and bf16 on a CUDA device, or on any under the interpreter. Sums and softmax run in fp32;
    `allow_tf32` lets the products of fp32 run on the matrix units, which round their factors to 10 bits. The host waits
    for nothing. Autograd does not see through the kernel.

    Args:
        qkv: (N, 3, H, d) of the packed subwords.
        positions: of this layer, on the same device and in the same dtype.
        longest: subwords of the longest text; of the others the host need not know.
        offsets: (B+1,) int64 on the device, 0 and the sums of the texts' lengths, N in all.
        scale: factor of query . key.
        window: subwords on either side that a query sees at most; None: it sees all.
        allow_tf32: see above.

    Returns:
        (N, H, d).

    Raises:
        TypeError: for another dtype.
        ValueError: for another device or head_dim, positions that do not reach the longest text's ends, biases of
            other distances, or a window where distances have scores.
    """
    # Each layer comes here, and a text alone waits for it: hence no loops, and no lengths by `len`, which in torch is
    # Python.
    _check(qkv, positions, longest)
    keys, queries, biases = positions.keys, positions.queries, positions.biases
    table = queries if keys is None else keys
    if window is not None and table is not None:
        raise ValueError("distances have scores: the kernel then sees all of a text, and takes no window")
    subwords, _, heads, head_dim = qkv.shape
    out = qkv.new_empty(subwords, heads, head_dim)
    if not subwords:
        return out
    dtype = qkv.dtype
    if INTERPRETED and dtype is torch.bfloat16:  # the interpreter adds bf16 as if they were integers
        qkv, out = qkv.float(), out.float()
        keys = None if keys is None else keys.float()
        queries = None if queries is None else queries.float()
    qkv = qkv.contiguous()
    if keys is not None:
        keys = keys.contiguous()
    if queries is not None:
        queries = queries.contiguous()
    if biases is not None:
        biases = biases.float().contiguous()
    blocks = _choose_blocks(qkv, longest, card_of(qkv.device), has_positions=table is not None)
    tiles = -(-longest // blocks.rows)
    start(
        _disentangled_attention_kernel,
        (tiles * (offsets.shape[0] - 1), heads),
        qkv,
        keys,
        queries,
        positions.rows,
        biases,
        offsets,
        out,
        tiles,
        positions.rows.shape[0] // 2,
        0 if table is None else table.shape[1],
        scale,
        0 if window is None else min(window, longest),  # no sum passes an int32
        H=heads,
        D=head_dim,
        BLOCK=blocks.rows,
        C2P=keys is not None,
        P2C=queries is not None,
        # Where the compiler itself loads ahead, it does so only with what a tile looks up for itself.
        CARRIED=blocks.stages == 1,
        WINDOWED=window is not None,
        BIASED=biases is not None,
        PRECISION="tf32" if allow_tf32 else "ieee",
        num_warps=blocks.warps,
        num_stages=blocks.stages,
    )
    return out if out.dtype is dtype else out.to(dtype)


def _check(qkv: Tensor, positions: Positions, longest: int) -> None:
    expect_taken(qkv, "qkv is")
    _, _, heads, head_dim = qkv.shape
    if head_dim not in HEAD_DIMS:
        raise ValueError(f"heads are {head_dim} wide: the kernel takes {HEAD_DIMS}; the reference takes any")
    distances = positions.rows.shape[0]
    reach = distances // 2 + 1
    if longest > reach:
        raise ValueError(f"a text has {longest} subwords, and positions.rows reaches {reach}: make it longer")
    biases = positions.biases
    if biases is not None and biases.shape != (heads, distances):
        expected = heads, distances
        raise ValueError(f"positions.biases is {tuple(biases.shape)}: expected {expected}, heads, distances")


@dataclass(frozen=True)
class Blocks:
    """Sizes of a tile.

    Attributes:
        rows: queries, and keys taken at once: 16, 32 or 64.
        warps: of one program.
        stages: loads in flight.
    """

    rows: int
    warps: int
    stages: int


class ShapeClass(NamedTuple):
    """Layers and batches that share block sizes.

    Attributes:
        bits: of a number, 16 or 32.
        head_dim: width of a head.
        has_positions: whether distances have scores; BERT's have none.
        is_short: whether no text is longer than 32 subwords.
    """

    bits: int
    head_dim: int
    has_positions: bool
    is_short: bool


@cache
def default_blocks(own: ShapeClass, major: int) -> Blocks:
    """Read off what Triton 3.6 compiles, for a card's `major`.

    In 16 bits, with heads 64 wide and positions, they were the fastest of seventeen on an H200 (2026-11-28, before a
    tile's loads stood together; a throw-away script) for texts of up to 32, 64, 128 and 400 subwords; up to 48, sixteen
    rows in one warp were 1.3 times as fast. The others have not been measured.

    In 16 bits, 64 x 64 pairs take 950 instructions of a warp for 1,024 pairs and 32 x 32 pairs 1,400
    (`PYTHONPATH=python python -m tests.kernels.compile_attention_for_hopper`), and read half as much, but for short
    texts most of them would be for nothing. Everything fits into 255 registers, but for four numbers of the class that
    matters most. Loads run ahead where two programs then still share a multiprocessor.

    All of that is for sm_90. On other cards than Hopper and its like of Blackwell (sm_100) that class has too few
    registers for 64 x 64 pairs: 500 to 900 bytes are spilled, and read again in the loop, which then takes as many
    instructions as smaller tiles, of which none spills.
    """
    if own.bits == 32:
        return Blocks(32, warps=8 if own.head_dim == 64 else 4, stages=1)
    is_largest = own.has_positions and own.head_dim == 64
    if own.is_short or (is_largest and major not in (9, 10)):
        return Blocks(32, warps=2, stages=2)
    return Blocks(64, warps=4, stages=1 if is_largest else 2)


# By the card's name, as `torch.cuda.get_device_name` gives it. Lines come from `python -m benches.tune_attention`, with
# the date that they were measured on.
MEASURED_BLOCKS: dict[str, dict[ShapeClass, Blocks]] = {}


def _choose_blocks(qkv: Tensor, longest: int, card: Card, *, has_positions: bool) -> Blocks:
    """What was measured on the card for the class, else the default."""
    own = ShapeClass(8 * qkv.element_size(), qkv.shape[-1], has_positions, longest <= 32)
    return MEASURED_BLOCKS.get(card.name, {}).get(own) or default_blocks(own, card.major)
