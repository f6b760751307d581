"""Prints comparison tables of bench results: `python -m benches.report benches/results/X.json [--only end_to_end]`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

MARKS = ("<!-- figures -->", "<!-- end of figures -->")
HEADER = ("bench", "work", "ours", "rival", "its speed", "ours is", "middle half", "agreement")


def rows(result: Mapping[str, Any], only: str) -> Iterator[tuple[str, ...]]:
    """One row for each rival of each bench whose name contains `only`."""
    for bench in result["benchmarks"]:
        info = bench["extra_info"]
        if "rivals" not in info or only not in bench["name"]:
            continue
        amount, unit = info["amount"], info["unit"]
        own = speed(amount, info["ours"]["median_s"])
        cut_off = f", cut off after {rounds_told(info['cut_off_after'])}" if "cut_off_after" in info else ""
        for name, times in info["rivals"].items():
            yield (
                bench["name"].removeprefix("bench_") + cut_off,
                f"{amount:,} {unit}",
                f"{own} {unit}/s",
                name,
                f"{speed(amount, times['median_s'])} {unit}/s",
                f"**{times['ratio']:.2f}x**",
                f"{times['low_quartile_ratio']:.2f} to {times['high_quartile_ratio']:.2f}",
                times.get("agreement", info["agreement"]),
            )


def rounds_told(rounds: int) -> str:
    """Such as 1 round."""
    return "1 round" if rounds == 1 else f"{rounds} rounds"


def speed(amount: int, seconds: float) -> str:
    """Three significant digits, grouped: 1,230."""
    value = amount / seconds
    return f"{value:.3g}" if value < 1_000 else f"{float(f'{value:.3g}'):,.0f}"


def growth_rows(result: Mapping[str, Any], only: str) -> Iterator[tuple[str, ...]]:
    """One row for each bench that shows how time grows with size."""
    for bench in result["benchmarks"]:
        info = bench["extra_info"]
        if "growth" in info and only in bench["name"]:
            sizes = sorted(info["best_seconds"], key=int)
            first = f"{1_000 * info['best_seconds'][sizes[0]]:.3g} ms for {int(sizes[0]):,}"
            steps = ", ".join(f"{int(size):,}: {info['growth'][size]:.1f}x" for size in sizes[1:])
            yield bench["name"].removeprefix("bench_"), first, steps


def share_rows(result: Mapping[str, Any], only: str) -> Iterator[tuple[str, ...]]:
    """One row for each bench that knows how near to the machine's limit it came."""
    for bench in result["benchmarks"]:
        info = bench["extra_info"]
        if "share_of_peak" in info and only in bench["name"]:
            peak, reached = info["peak"] / 1e9, info["useful_operations"] / info["ours"]["median_s"] / 1e9
            name = bench["name"].removeprefix("bench_")
            yield name, f"{reached:.0f} GFLOP/s", f"{peak:.0f} GFLOP/s", f"**{100 * info['share_of_peak']:.0f} %**"


def card_rows(result: Mapping[str, Any], only: str) -> Iterator[tuple[str, ...]]:
    """One row for each bench that knows how busy the card was; what it did not come to is left blank."""
    for bench in result["benchmarks"]:
        card = bench["extra_info"].get("card")
        if card and only in bench["name"]:
            told: dict[str, Callable[[float], str]] = {
                "subwords_a_second": lambda value: f"{value:,.0f}",
                "share_of_product_peak": lambda value: f"{100 * value:.0f} %",
                "busy_share": lambda value: f"{100 * value:.0f} %",
                "peak_bytes": lambda value: f"{value / 2**30:.2f} GiB",
            }
            name = bench["name"].removeprefix("bench_")
            yield name, *(tell(card[key]) if key in card else "" for key, tell in told.items())


def as_table(header: tuple[str, ...], table: list[tuple[str, ...]]) -> list[str]:
    """Lines of a Markdown table; none where it has no rows."""
    return ["| " + " | ".join(cells) + " |" for cells in (header, ("---",) * len(header), *table)] if table else []


def as_markdown(result: Mapping[str, Any], only: str = "") -> str:
    """The tables, with the machine and the versions above them."""
    machine = next((b["extra_info"]["machine"] for b in result["benchmarks"] if "machine" in b["extra_info"]), None)
    lines = []
    if machine is not None:
        versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
        where = f"{machine['device']}, {machine['threads']} threads, load {machine['load']}, {result['datetime'][:10]}"
        lines += [f"{where}, Python {machine['python']}, {versions}", ""]
    lines += as_table(HEADER, list(rows(result, only)))
    growth = as_table(("growth", "time", "factor for ten times as many"), list(growth_rows(result, only)))
    lines += ["", *growth] if growth else []
    header: tuple[str, ...] = ("bench", "useful products", "peak of the same run", "share")
    shares = as_table(header, list(share_rows(result, only)))
    lines += ["", *shares] if shares else []
    header = ("bench", "subwords/s", "useful share of the product peak", "card busy", "peak memory")
    cards = as_table(header, list(card_rows(result, only)))
    lines += ["", *cards] if cards else []
    return "\n".join(lines)


def describe(path: Path, only: str = "") -> str:
    """The tables of a result file; a line for one that no bench wrote, as `benches.job_memory` and others do."""
    result = json.loads(path.read_text(encoding="utf-8"))
    if "benchmarks" not in result:
        return f"{path.name}: not by pytest-benchmark, no table ({', '.join(result)})"
    return as_markdown(result, only)


def write_between_marks(path: Path, tables: str) -> None:
    """Replaces what stands between the two figures marks of a Markdown file."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not (begin and end):
        raise SystemExit(f"{path} has no {MARKS[0]} ... {MARKS[1]}: put these two lines where the table belongs")
    path.write_text(f"{before}{begin}\n{tables}\n{end}{after}", encoding="utf-8")


def main(given: Sequence[str] | None = None) -> None:
    """Prints a table for each result file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("results", nargs="+", type=Path, help="JSON files that pytest-benchmark wrote")
    parser.add_argument("--only", default="", metavar="PART", help="only benches whose name contains this")
    parser.add_argument("--into", type=Path, metavar="FILE", help="write between the file's figures marks, too")
    arguments = parser.parse_args(given)
    tables = "\n\n".join(describe(path, arguments.only) for path in arguments.results)
    print(tables)
    if arguments.into:
        write_between_marks(arguments.into, tables)


if __name__ == "__main__":
    main()
