"""Finds how many subwords make a batch on the CUDA device at hand: `python -m benches.tune_budget`.

Prints the speed of each budget, rounds interleaved, with the most memory that a batch takes. A larger one keeps the
card in longer products and asks the host less often, but begins and ends with more that nothing overlaps. The default
is in `gliner_fast/predicting/token_budget.py`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch

from benches.conftest import LABELS, checkpoint, distinct_texts
from benches.on_card import peak_bytes
from gliner_fast import GLiNER

BUDGETS = tuple(2**power for power in range(13, 18))
ROUNDS = 3
TEXTS = {"short": 8_192, "mixed": 1_536}


def rows(
    model: GLiNER, texts: Sequence[str], labels: list[str], peak: Callable[[Callable[[], object]], int]
) -> list[str]:
    """A line for each budget: median words a second of interleaved rounds, and the most memory in GiB.

    The memory is that of a first round, which is not timed: kernels are compiled in it.
    """
    words, seconds, memory = sum(len(text.split()) for text in texts), defaultdict[int, list[float]](list), {}
    for number in range(ROUNDS + 1):
        for budget in BUDGETS:
            model.token_budget = budget
            began = time.perf_counter()
            if number:
                model.inference(texts, labels)
                seconds[budget].append(time.perf_counter() - began)
            else:
                memory[budget] = peak(lambda: model.inference(texts, labels))
    return [
        f"{budget:>8,} subwords  {words / statistics.median(seconds[budget]):>10,.0f} words/s  "
        f"{memory[budget] / 2**30:>6.2f} GiB"
        for budget in BUDGETS
    ]


def main() -> None:
    """Prints a table for each corpus."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["tiny", "small", "base", "large"], default="base")
    parser.add_argument("--dtype", default="bf16")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device: budgets are measured on the card that they are for")
    model = GLiNER.from_pretrained(checkpoint(arguments.size), map_location="cuda", dtype=arguments.dtype)
    print(f"{torch.cuda.get_device_name()}, {arguments.size}, {arguments.dtype}, 5 types")
    for name, count in TEXTS.items():
        print(f"{count:,} {name} texts", flush=True)
        print("\n".join(rows(model, distinct_texts(name, count), LABELS[:5], peak_bytes)), flush=True)


if __name__ == "__main__":
    main()
