"""Where a CUDA device's time goes, kernel by kernel, and what it waits for: `python -m benches.profile_card`.

Prints the kernels that take most, beside the wall time and the time in which anything ran; with `--out FOLDER` the
timeline goes there, too, for chrome://tracing or Perfetto, the host's calls included. Tracing slows the host down: the
wall time is that of calls without.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

import torch

from benches.conftest import LABELS, checkpoint, distinct_texts
from benches.floor import measure_peaks
from benches.on_card import busy_seconds, on_card, profiled
from benches.useful_work import UsefulWork
from gliner_fast import GLiNER

TEXTS = {"short": 8_192, "mixed": 1_024}
ROUNDS = 3


def profile_of(model: GLiNER, texts: list[str], labels: list[str], most: int, trace: Path | None) -> list[str]:
    """Lines that tell the wall time, the busy share and the kernels that take most; the timeline is written."""

    def call() -> None:
        model.inference(texts, labels)
        torch.cuda.synchronize()

    seconds = []
    for _ in range(1 + ROUNDS):  # in the first, kernels are compiled
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    wall = statistics.median(seconds[1:])
    profiler = profiled(call, with_host=True)
    if trace is not None:
        profiler.export_chrome_trace(str(trace))
    events = on_card(profiler)
    if not events:
        sys.exit("the profiler saw no kernel: CUPTI, which tells it, may not be allowed here (see its warning above)")
    totals: dict[str, list[float]] = defaultdict(list)
    for event in events:
        totals[event.name].append(event.time_range.elapsed_us())
    busy, useful = busy_seconds(events), UsefulWork.of(model, call)
    share = (useful.encoder + useful.span_scores) / measure_peaks(model.dtype).operations
    speed = f"{useful.subwords / wall:,.0f} subwords/s, {share / wall:.0%} of the product peak"
    lines = [
        f"{useful.subwords:,} subwords: wall {1e3 * wall:.1f} ms, {speed}",
        f"something runs for {1e3 * busy:.1f} ms: {busy / wall:.0%} of the time, then {share / busy:.0%} of the peak",
    ]
    whole = sum(map(sum, totals.values()))
    for name, times in sorted(totals.items(), key=lambda item: -sum(item[1]))[:most]:
        lines.append(f"{sum(times) / whole:6.1%} {sum(times) / 1e3:9.2f} ms {len(times):6} x  {name[:110]}")
    return lines


def main() -> None:
    """Prints a table for each corpus."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["small", "base", "large"], default="base")
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--labels", type=int, default=5)
    parser.add_argument("--corpora", nargs="+", choices=TEXTS, default=list(TEXTS))
    parser.add_argument("--most", type=int, default=25, help="kernels that are told of")
    parser.add_argument("--out", type=Path, help="folder of the timelines")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device: this tells where a card's time goes")
    model = GLiNER.from_pretrained(checkpoint(arguments.size), map_location="cuda", dtype=arguments.dtype)
    peaks = measure_peaks(model.dtype)
    print(f"{torch.cuda.get_device_name()}, {arguments.size}, {arguments.dtype}, {arguments.labels} types")
    print(f"products {peaks.operations / 1e12:.0f} TFLOP/s, copies {peaks.bytes / 1e12:.2f} TB/s", flush=True)
    for name in arguments.corpora:
        texts = distinct_texts(name, TEXTS[name])
        print(f"{len(texts):,} {name} texts", flush=True)
        trace = arguments.out and arguments.out / f"timeline-{name}-{arguments.dtype}.json.gz"
        print("\n".join(profile_of(model, texts, LABELS[: arguments.labels], arguments.most, trace)), flush=True)


if __name__ == "__main__":
    main()
