"""How the span kernels are cut into programs: block sizes by card and batch, and the tiles that cover a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gliner_fast.kernels._triton import card_of


@dataclass(frozen=True)
class Blocks:
    """Sizes of a tile.

    Attributes:
        rows: pairs of a start and an end word; a multiple of 64 keeps the matrix units of Hopper busy.
        types: entity types, at least 16.
        hidden: entries of H taken at once.
        warps: of one program.
        stages: loads in flight; 1 loads when there is need, without asynchronous copies.
        registers: most that a thread may have; None leaves it to the compiler.
        caches_v: asynchronous copies of v go through L1, in pieces of 8 bytes instead of 16.
    """

    rows: int
    types: int
    hidden: int
    warps: int
    stages: int
    registers: int | None = None
    caches_v: bool = True


class ShapeClass(NamedTuple):
    """Batches that share block sizes.

    Attributes:
        bits: of a number: 16 or 32.
        types: 16, 32, 64 or 128, the smallest that holds the text with most types; 128 for more, too.
        is_small: fewer than `SMALL_BATCH` words: large tiles would leave most of a card idle.
    """

    bits: int
    types: int
    is_small: bool


SMALL_BATCH = 2048
# Not measured on a card. Compiled for sm_90 by Triton 3.6 none of these reads a spilled register again in its loop, for
# logits or for hits (`python -m tests.kernels.compile_for_hopper --all`); tiles are so small that a few thousand words
# still give each of 130 multiprocessors some. v is cached because each of its rows is used by four groups: read from L2
# that often, it would be most of the traffic.
DEFAULT_BLOCKS = {
    ShapeClass(16, 16, is_small=False): Blocks(256, 16, 32, warps=4, stages=4, registers=128),
    ShapeClass(16, 32, is_small=False): Blocks(256, 32, 32, warps=4, stages=4, registers=128),
    ShapeClass(16, 64, is_small=False): Blocks(256, 64, 32, warps=8, stages=4, registers=128),
    ShapeClass(16, 128, is_small=False): Blocks(128, 128, 64, warps=8, stages=3),
    ShapeClass(16, 16, is_small=True): Blocks(128, 16, 64, warps=4, stages=3),
    ShapeClass(16, 32, is_small=True): Blocks(128, 32, 64, warps=4, stages=3),
    ShapeClass(16, 64, is_small=True): Blocks(128, 64, 64, warps=4, stages=3),
    ShapeClass(16, 128, is_small=True): Blocks(128, 128, 64, warps=4, stages=3),
    ShapeClass(32, 16, is_small=False): Blocks(256, 16, 32, warps=4, stages=3),
    ShapeClass(32, 32, is_small=False): Blocks(256, 32, 32, warps=8, stages=3),
    ShapeClass(32, 64, is_small=False): Blocks(128, 64, 32, warps=8, stages=3),
    ShapeClass(32, 128, is_small=False): Blocks(128, 64, 32, warps=8, stages=3),
    ShapeClass(32, 16, is_small=True): Blocks(128, 16, 32, warps=4, stages=3),
    ShapeClass(32, 32, is_small=True): Blocks(128, 32, 32, warps=4, stages=3),
    ShapeClass(32, 64, is_small=True): Blocks(64, 64, 32, warps=4, stages=3),
    ShapeClass(32, 128, is_small=True): Blocks(64, 64, 32, warps=4, stages=3),
}
# By the card's name, as `torch.cuda.get_device_name` gives it. Lines come from `python -m benches.tune_span_scores`,
# with the date that they were measured on. No card has been measured yet.
MEASURED_BLOCKS: dict[str, dict[ShapeClass, Blocks]] = {}

# What every card since Ampere gives a program of its 99 KiB and more, less what Triton adds.
SHARED_BYTES = 96 * 1024


def shared_bytes(u: Tensor, blocks: Blocks, word_rows: int, pairs: int) -> int:
    """Shared memory of a tile: of the rows in flight, or of the sums on their way to the threads that keep hits.

    The latter go through it whole on cards before Hopper.
    """
    in_flight = (word_rows + blocks.types) * blocks.hidden * u.element_size() * blocks.stages
    return max(in_flight, 4 * pairs * blocks.types)


def shape_class(u: Tensor, most_types: int) -> ShapeClass:
    """The class of a batch with u (N, H) whose text with most types has so many."""
    types = min(128, _power_of_2_from(max(16, most_types)))
    return ShapeClass(8 * u.element_size(), types, is_small=len(u) < SMALL_BATCH)


def choose_blocks(u: Tensor, most_types: int, card: str) -> Blocks:
    """What was measured on the card for the class, else the default."""
    own = shape_class(u, most_types)
    return MEASURED_BLOCKS.get(card, {}).get(own) or DEFAULT_BLOCKS[own]


@dataclass(frozen=True)
class Tiling:
    """Which program of a launch works on what.

    A tile holds `groups` groups of `starts` start words, each paired with `ends` end words: room for `widths` widths.

    Attributes:
        texts: (B, 6) int64: first tile, first word, words, first type, types, first logit of each text.
        texts_on_host: the same on the CPU.
        tile_texts: (tiles,) int64, the text that each tile is in.
        logits: how many the dense layout has.
    """

    blocks: Blocks
    starts: int
    ends: int
    widths: int
    groups: int
    texts: Tensor
    texts_on_host: Tensor
    tile_texts: Tensor
    logits: int

    @property
    def hit_warps(self) -> int:
        """Warps of a program that keeps hits: as many as leave a thread no more than 32 logits with their places.

        With more of them ptxas spills where it stores hits, and in the loop too. Four warps need 64 rows of their own.
        """
        rows, warps = self.starts * self.groups * self.ends, self.blocks.warps
        while rows * self.blocks.types > 32 * 32 * warps and 32 * warps <= rows:
            warps *= 2
        return warps

    @property
    def hit_registers(self) -> int | None:
        """As `Blocks.registers`, but no more than there are for so many threads: a multiprocessor has 65,536."""
        most = self.blocks.registers
        return most if most is None else min(most, 65_536 // (32 * self.hit_warps))

    def decode(self, keys: Tensor, max_width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Text, start, width and type of places in the dense layout, each (S,) int64; all on the host."""
        first_logits = self.texts_on_host[:, 5].contiguous()
        # Where several begin there, the one that is not empty. Torch would take all threads for it.
        texts = torch.from_numpy(np.searchsorted(first_logits.numpy(), keys.numpy(), side="right")) - 1
        own_types = self.texts_on_host[texts, 4]
        places = keys - first_logits[texts]
        spans = places // own_types
        return texts, spans // max_width, spans % max_width, places % own_types


def cut_tiles(u: Tensor, word_counts: Sequence[int], class_counts: Sequence[int], max_width: int) -> Tiling:
    """Cuts a batch into tiles: host arithmetic and one copy to the device, whatever the number of texts."""
    words, types = np.array(word_counts, np.int64), np.array(class_counts, np.int64)  # each (B,)
    blocks = choose_blocks(u, int(types.max(initial=0)), card_of(u.device).name)
    # A start in an `ends`-wide group leaves room for fewer widths the further in it is: the widths are cut into as few
    # and as equal parts as can be, and what is left of `ends` goes to more starts.
    ends = min(16, _power_of_2_from(max_width))
    widths = ceil_div(max_width, ceil_div(max_width, ends))
    starts = _power_of_2_to(ends + 1 - widths)
    groups = max(1, blocks.rows // (starts * ends))
    while groups > 1 and shared_bytes(u, blocks, (starts + ends) * groups, starts * ends * groups) > SHARED_BYTES:
        groups //= 2
    logits = words * types * max_width
    tiles = ceil_div(words, groups * starts) * ceil_div(types, blocks.types) * ceil_div(max_width, widths)  # (B,)
    columns = (tiles.cumsum() - tiles, words.cumsum() - words, words, types.cumsum() - types, types)
    own = np.stack([*columns, logits.cumsum() - logits], axis=1)  # (B, 6)
    on_host = torch.from_numpy(np.concatenate([own.reshape(-1), np.arange(len(words)).repeat(tiles)]))
    packed = to_device(on_host, u.device)
    texts, texts_on_host = (numbers[: own.size].view(-1, 6) for numbers in (packed, on_host))
    tile_texts = packed[own.size :]
    return Tiling(blocks, starts, ends, widths, groups, texts, texts_on_host, tile_texts, int(logits.sum()))


def to_device(numbers: Tensor, device: torch.device) -> Tensor:
    """Numbers of the host on a device; to CUDA out of pinned memory, so that the host need not wait."""
    return numbers.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else numbers


def ceil_div(amount: Any, part: int) -> Any:
    """How many parts an amount fills, rounded up: of an int or of an array."""
    return -(-amount // part)


def _power_of_2_from(least: int) -> int:
    """The smallest power of two that is not below `least`, which is at least 1."""
    return 1 << (least - 1).bit_length()


def _power_of_2_to(most: int) -> int:
    """The greatest power of two that is not above `most`, which is at least 1."""
    return 1 << (most.bit_length() - 1)
