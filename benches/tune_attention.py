"""Finds block sizes of the attention kernel for the CUDA device at hand: `python -m benches.tune_attention`.

Prints the lines to put into `MEASURED_BLOCKS` of kernels/disentangled_attention.py. All sizes are tried for each shape
class, by the time on the card (`benches.floor`) of packed texts of several lengths. Each takes a second or two to
compile, a class about a minute. Most published models have heads 64 wide and run in 16 bits: the default.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterable
from datetime import date
from functools import partial
from itertools import accumulate, product

import torch

from benches.bench_attention import CONFIG, HEADS, SUBWORDS, lengths_up_to
from benches.floor import device_seconds
from gliner_fast.encoders.deberta_config import DebertaConfig, position_rows
from gliner_fast.kernels import disentangled_attention as kernel
from gliner_fast.kernels.attention_reference import Positions
from gliner_fast.kernels.disentangled_attention import Blocks, ShapeClass

# The longest of a batch's texts.
LONGEST = {True: (16, 32), False: (64, 128, 400)}
# 64 rows in one or two warps spill thousands of bytes, and take seconds to compile.
CHOICES = [
    Blocks(rows, warps=warps, stages=stages)
    for rows, choices in ((32, (1, 2, 4, 8)), (64, (4, 8)))
    for warps, stages in product(choices, (1, 2, 3))
]


def fastest(choices: Iterable[Blocks], seconds: Callable[[Blocks], float]) -> tuple[Blocks, float]:
    """The sizes that take least, and their seconds; each is told, since this may be interrupted."""
    timed = []
    for blocks in choices:
        timed.append((blocks, seconds(blocks)))
        print(f"        # {blocks!r}: {1e6 * timed[-1][1]:.1f} us", flush=True)
    return min(timed, key=lambda pair: pair[1])


def timer(own: ShapeClass) -> Callable[[Blocks], float]:
    """Seconds of batches of the class with given sizes, their geometric mean; infinite where the sizes do not run."""
    from triton.errors import TritonError

    dtype = torch.bfloat16 if own.bits == 16 else torch.float32
    config = DebertaConfig.read(CONFIG)
    assert config is not None
    scale = (3 * own.head_dim) ** -0.5
    calls = []
    for longest in LONGEST[own.is_short]:
        lengths = lengths_up_to(longest)
        qkv = torch.randn(sum(lengths), 3, HEADS, own.head_dim, device="cuda").to(dtype)
        keys, queries = (torch.randn(2, HEADS, 2 * config.span, own.head_dim, device="cuda") * scale).to(dtype)
        rows = position_rows(longest, config).int().to("cuda")
        positions = Positions(keys, queries, rows) if own.has_positions else Positions(None, None, rows)
        offsets = torch.tensor([0, *accumulate(lengths)], device="cuda")
        attend = partial(kernel.disentangled_attention, longest=longest, offsets=offsets, scale=scale)
        calls.append(partial(attend, qkv, positions))

    def seconds(blocks: Blocks) -> float:
        kernel.MEASURED_BLOCKS[torch.cuda.get_device_name()] = {own: blocks}
        try:
            return statistics.geometric_mean(device_seconds(call) for call in calls)
        except (TritonError, RuntimeError) as error:  # too much shared memory, too many threads, a pass that fails
            if "CUDA error" in str(error):
                raise  # of the card, which then runs nothing any more
            return float("inf")

    return seconds


def main() -> None:
    """Tunes the asked classes and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=int, nargs="+", choices=[16, 32], default=[16])
    parser.add_argument("--head-dim", type=int, nargs="+", choices=kernel.HEAD_DIMS, default=[64])
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device: block sizes are measured on the card that they are for")
    print(f"    # {date.today()}, torch {torch.__version__}, {HEADS} heads, {SUBWORDS} subwords")  # noqa: DTZ011
    print(f'    "{torch.cuda.get_device_name()}": {{')
    for bits, head_dim, positions, short in product(arguments.bits, arguments.head_dim, (True, False), (False, True)):
        own = ShapeClass(bits, head_dim, positions, short)
        seconds = timer(own)
        start = seconds(kernel.default_blocks(own, torch.cuda.get_device_capability()[0]))
        best, best_seconds = fastest(CHOICES, seconds)
        print(
            f"        {own!r}: {best!r},  # {1e6 * best_seconds:.1f} us, {start / best_seconds:.2f}x the default",
            flush=True,
        )
    print("    },")


if __name__ == "__main__":
    main()
