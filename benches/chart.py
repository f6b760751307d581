"""Draws a result file: `python -m benches.chart benches/results/X.json --only end_to_end --output X.svg`.

Each bench is a group of bars, ours first; a bar is a speed in multiples of the first rival's, by the run's medians.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from benches.report import speed

# Pixels: a bar with its gap, the gap between groups, the names' column, the longest bar, what is written beside it.
BAR, GAP, NAMES, PLOT, BESIDE = 18, 22, 240, 420, 130
OURS, THEIRS = "#0072b2", "#999999"


@dataclass(frozen=True)
class Bar:
    """One side of a bench."""

    name: str
    words: str
    multiple: float


def bars_of(bench: Mapping[str, Any]) -> list[Bar]:
    """Ours and every rival."""
    info = bench["extra_info"]
    seconds = {"gliner_fast": info["ours"]["median_s"]} | {
        name: times["median_s"] for name, times in info["rivals"].items()
    }
    first = next(iter(info["rivals"].values()))["median_s"]
    return [Bar(name, f"{speed(info['amount'], s)} {info['unit']}/s", first / s) for name, s in seconds.items()]


def chart(result: Mapping[str, Any], only: str = "") -> str:
    """An SVG document of the benches whose name contains `only`.

    Raises:
        ValueError: there is no such bench.
    """
    benches = [b for b in result["benchmarks"] if "rivals" in b["extra_info"] and only in b["name"]]
    if not benches:
        raise ValueError(f"no bench whose name contains {only!r} was run beside a rival")
    groups = {bench["name"].removeprefix("bench_"): bars_of(bench) for bench in benches}
    longest = max(bar.multiple for bars in groups.values() for bar in bars)
    machine = benches[0]["extra_info"]["machine"]
    title = f"{machine['device']}, {machine['threads']} threads, {result['datetime'][:10]}"
    parts = [f'<text x="10" y="20" font-size="14">{escape(title)}</text>']
    y = 40
    for name, bars in groups.items():
        parts.append(f'<text x="10" y="{y + 11}" font-weight="bold">{escape(name)}</text>')
        y += BAR
        for bar in bars:
            parts += draw(bar, y, PLOT * bar.multiple / longest)
            y += BAR
        y += GAP
    size = f'width="{NAMES + PLOT + BESIDE}" height="{y}"'
    head = [f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', '<g font-family="sans-serif" font-size="12">']
    return "\n".join([*head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</g>", "</svg>", ""])


def draw(bar: Bar, y: int, length: float) -> Sequence[str]:
    """The name, the bar, and what it stands for."""
    colour = OURS if bar.name == "gliner_fast" else THEIRS
    return (
        f'<text x="{NAMES - 8}" y="{y + 11}" text-anchor="end">{escape(bar.name)}</text>',
        f'<rect x="{NAMES}" y="{y}" width="{length:.1f}" height="{BAR - 4}" fill="{colour}"/>',
        f'<text x="{NAMES + length + 5:.1f}" y="{y + 11}">{bar.multiple:.2f}x, {bar.words}</text>',
    )


def main() -> None:
    """Draws the benches of a result file as SVG."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("result", type=Path, help="a JSON file that pytest-benchmark wrote")
    parser.add_argument("--only", default="", metavar="PART", help="only benches whose name contains this")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the SVG file")
    arguments = parser.parse_args()
    result = json.loads(arguments.result.read_text(encoding="utf-8"))
    arguments.output.write_text(chart(result, arguments.only), encoding="utf-8")


if __name__ == "__main__":
    main()
