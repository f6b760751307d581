"""Does a job's memory grow with its input? `python -m benches.job_memory [--rows 10000 1000000] [--into FILE.json]`.

Runs one job, Parquet to Parquet, for each number of rows, each in a process of its own, and prints the peak of its
resident memory. Rows are distinct: sentences of `data/short.jsonl`, two halves joined anew.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benches import hardware
from benches.conftest import LABELS, checkpoint, read_texts

_GROUP = 50_000


def make_texts(rows: int) -> Iterator[str]:
    """Yields distinct short texts: the beginning of one sentence, the end of another, and a number."""
    words = [text.split() for text in read_texts("short")]
    for number in range(rows):
        head, tail = words[number % len(words)], words[number * 7 // len(words) % len(words)]
        yield " ".join([*head[: len(head) // 3], *tail[-(len(tail) // 3) :], str(number)])


def write_input(path: Path, rows: int) -> None:
    """Writes the texts, a row group at a time."""
    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    texts = make_texts(rows)
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, rows, _GROUP):
            count = min(_GROUP, rows - first)
            ids = range(first, first + count)
            writer.write_table(pa.table({"id": list(ids), "text": [next(texts) for _ in ids]}, schema))


def run_job(source: Path, output: Path, model: str) -> None:
    """Runs the job in this process, and prints what it took."""
    from gliner_fast import extract_files

    begin = time.monotonic()
    report = extract_files(source, output, LABELS[:5], model=model or None)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    print(json.dumps({"peak_mib": round(peak, 1), "seconds": time.monotonic() - begin, "report": report.to_dict()}))


def main() -> None:
    """Measures, prints a line a job, and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--size", default="tiny", help="of the random checkpoint; built-in for the built-in model")
    parser.add_argument("--into", type=Path, help="write the figures there, as JSON")
    parser.add_argument("--run", nargs=2, type=Path, metavar=("IN", "OUT"), help=argparse.SUPPRESS)
    parser.add_argument("--model", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        source, output = given.run
        run_job(source, output, given.model)
        return
    model = "" if given.size == "built-in" else str(checkpoint(given.size))
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for rows in given.rows:
            source = Path(folder) / f"{rows}.parquet"
            write_input(source, rows)
            command = [sys.executable, "-m", "benches.job_memory", "--model", model]
            command += ["--run", str(source), str(Path(folder) / f"{rows}-found.parquet")]
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            result = {"rows": rows, **json.loads(answer)}
            result["of_the_smallest"] = round(result["peak_mib"] / (results[0] if results else result)["peak_mib"], 3)
            result["report"].pop("output")
            results.append(result)
            print(f"{rows:,} rows: peak {result['peak_mib']:,.0f} MiB, {result['seconds']:,.0f} s", flush=True)
    if given.into is not None:
        facts = {"machine": hardware.describe("cpu"), "model": given.size, "jobs": results}
        given.into.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
