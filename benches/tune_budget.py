"""Finds how many subwords make a batch on the CUDA device at hand: `python -m benches.tune_budget`.

Prints the speed of each budget, rounds interleaved, with the most memory that a batch takes. A larger one keeps the
card in longer products and asks the host less often, but begins and ends with more that nothing overlaps. The default
is in `gliner_fast/token_budget.py`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from benches.bench_span_scores import peak_bytes
from benches.conftest import LABELS, checkpoint, distinct_texts
from gliner_fast import GLiNER

BUDGETS = tuple(2**power for power in range(13, 18))
TEXTS = {"short": 16_384, "mixed": 3_072}


def medians(calls: Mapping[int, Callable[[], object]], rounds: int) -> dict[int, float]:
    """Median seconds of each call, in interleaved rounds after one that is not counted."""
    seconds: dict[int, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(own[1:]) for name, own in seconds.items()}


def rows(
    model: GLiNER, texts: Sequence[str], labels: list[str], peak: Callable[[Callable[[], object]], int]
) -> list[str]:
    """A line for each budget: words a second, and the most memory in GiB."""
    words = sum(len(text.split()) for text in texts)

    def with_budget(budget: int) -> Callable[[], object]:
        def call() -> object:
            model.token_budget = budget
            return model.inference(texts, labels)

        return call

    calls = {budget: with_budget(budget) for budget in BUDGETS}
    found = medians(calls, rounds=3)
    return [
        f"{budget:>8,} subwords  {words / found[budget]:>10,.0f} words/s  {peak(call) / 2**30:>6.2f} GiB"
        for budget, call in calls.items()
    ]


def main() -> None:
    """Prints a table for each corpus."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["small", "base", "large"], default="base")
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
