"""Finds block sizes of the span scorer for the CUDA device at hand: `python -m benches.tune_span_scores`.

Prints the lines to put into `MEASURED_BLOCKS` of kernels/span_tiling.py. For each shape class it starts with the sizes
in use and changes one at a time as long as that helps; the time is that of dense logits on the card (`benches.floor`).
Every size tried is compiled, seconds each: name the classes that matter.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import torch

from benches.bench_span_scores import MAX_WIDTH, mixed_lengths
from benches.floor import device_seconds
from gliner_fast.kernels import span_scores as kernel
from gliner_fast.kernels import span_tiling
from gliner_fast.kernels.span_tiling import Blocks, ShapeClass

HIDDEN = 4 * 768
WORDS = {True: 512, False: 4096}
CHOICES: dict[str, tuple[Any, ...]] = {
    "rows": (64, 128, 256, 512, 1024),
    "types": (16, 32, 64, 128),
    "hidden": (32, 64, 128),
    "warps": (4, 8),
    "stages": (1, 2, 3, 4, 5),
    "registers": (None, 96, 128, 168),
    "caches_v": (False, True),
}


def neighbours(blocks: Blocks, field: str) -> Iterator[Blocks]:
    """The same sizes but for one."""
    for value in CHOICES[field]:
        if value != getattr(blocks, field):
            yield replace(blocks, **{field: value})


def improve(start: Blocks, seconds: Callable[[Blocks], float], least_gain: float = 0.02) -> tuple[Blocks, float]:
    """Changes one size at a time while a change gains the share `least_gain`; the sizes and their seconds.

    What differs by less may be noise, and a simple search that follows noise does not end.
    """
    best, best_seconds = start, seconds(start)
    improved = True
    while improved:
        improved = False
        for field in CHOICES:
            fastest, own_seconds = min(
                ((blocks, seconds(blocks)) for blocks in neighbours(best, field)), key=lambda pair: pair[1]
            )
            if own_seconds < best_seconds * (1 - least_gain):
                best, best_seconds, improved = fastest, own_seconds, True
    return best, best_seconds


def timer(own: ShapeClass) -> Callable[[Blocks], float]:
    """Seconds of a batch of the class with given sizes; infinite where the card cannot run them."""
    from triton.runtime.errors import OutOfResources

    dtype = torch.bfloat16 if own.bits == 16 else torch.float32
    word_counts = mixed_lengths(WORDS[own.is_small])
    class_counts = [own.types] * len(word_counts)
    u, v = torch.randn(2, sum(word_counts), HIDDEN, device="cuda", dtype=dtype)
    g, c = torch.randn(sum(class_counts), HIDDEN, device="cuda", dtype=dtype), torch.randn(sum(class_counts)).to(u)

    def seconds(blocks: Blocks) -> float:
        span_tiling.MEASURED_BLOCKS[torch.cuda.get_device_name()] = {own: blocks}
        tiling = span_tiling.cut_tiles(u, word_counts, class_counts, MAX_WIDTH)
        logits = u.new_empty(tiling.logits)
        try:
            return device_seconds(lambda: kernel.launch(u, v, g, c, tiling, MAX_WIDTH, logits, allow_tf32=False))
        except OutOfResources:
            return float("inf")

    return seconds


def main() -> None:
    """Tunes the asked classes and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=int, nargs="+", choices=[16, 32], default=[16, 32])
    parser.add_argument("--types", type=int, nargs="+", choices=[16, 32, 64, 128], default=[16, 32, 64, 128])
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device: block sizes are measured on the card that they are for")
    print(f"    # {date.today()}, torch {torch.__version__}, dense logits, H {HIDDEN}, K {MAX_WIDTH}")  # noqa: DTZ011
    print(f'    "{torch.cuda.get_device_name()}": {{')
    for own, start in span_tiling.DEFAULT_BLOCKS.items():
        if own.bits in arguments.bits and own.types in arguments.types:
            seconds = timer(own)
            best, best_seconds = improve(start, seconds)
            gain = seconds(start) / best_seconds
            print(f"        {own!r}: {best!r},  # {1e6 * best_seconds:.1f} us, {gain:.2f}x the default", flush=True)
    print("    },")


if __name__ == "__main__":
    main()
