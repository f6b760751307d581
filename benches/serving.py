"""How a model answers in a server: `python -m benches.serving [--threads 1 2 4] [--busy 0 2 8] [--into FILE.json]`.

Single texts, one after another in each of some threads that share a model, on a CPU: how long an answer takes, and how
many there are in a second. With OpenMP as it is, with `OMP_WAIT_POLICY=PASSIVE`, by which its threads sleep where they
wait, and with `OMP_NUM_THREADS=1`; beside other processes that keep the CPU busy, as a server's neighbours do. Each
measurement is a process of its own; rounds are interleaved.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, product
from pathlib import Path
from typing import Any

from benches import hardware
from benches.conftest import LABELS, checkpoint, read_texts

POLICIES = {
    "as it is": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
}
_BUSY = "while True: pass"


def serve(model_id: str | None, dtype: str, threads: int, seconds: float) -> dict[str, Any]:
    """Answers in this process for some time; the first texts of each thread do not count.

    Returns:
        `ms` an answer took, of each, and answers a `second`.
    """
    from gliner_fast import GLiNER

    model, texts = GLiNER.from_pretrained(model_id, dtype=dtype), read_texts("short")
    for text in texts[:5]:
        model.predict_entities(text, LABELS[:5])
    end = time.perf_counter() + seconds

    def answer(thread: int) -> list[float]:
        took, number = [], thread
        while (begin := time.perf_counter()) < end:
            model.predict_entities(texts[number % len(texts)], LABELS[:5])
            took.append((time.perf_counter() - begin) * 1e3)
            number += threads
        return took

    with ThreadPoolExecutor(threads) as pool:
        took = list(chain.from_iterable(pool.map(answer, range(threads))))
    return {"ms": took, "second": len(took) / seconds}


def measure(command: list[str], policy: str, busy: int) -> dict[str, Any]:
    """Serves in another process, beside `busy` more that compute."""
    neighbours = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(busy)]
    try:
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env={**os.environ, **POLICIES[policy]}
        )
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def summary(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Over all rounds: the median and the ninth decile of what an answer took, and the median of answers a second."""
    took = sorted(ms for run in runs for ms in run["ms"])
    return {
        "median_ms": round(statistics.median(took), 1),
        "p90_ms": round(took[len(took) * 9 // 10], 1),
        "answers_a_second": round(statistics.median(run["second"] for run in runs), 1),
    }


def main() -> None:
    """Measures, prints a table, and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4], help="that share the model")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 2, 8], help="other processes that compute")
    parser.add_argument("--size", default="built-in", help="of the random checkpoint; built-in for the built-in model")
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement")
    parser.add_argument("--into", type=Path, help="write the figures there, as JSON")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        print(json.dumps(serve(given.model, given.dtype, given.serve, given.seconds)))
        return
    command = [sys.executable, "-m", "benches.serving", "--dtype", given.dtype, "--seconds", str(given.seconds)]
    if given.size != "built-in":
        command += ["--model", str(checkpoint(given.size))]
    machine = hardware.describe("cpu")
    cases = list(product(given.busy, given.threads, POLICIES))
    runs: dict[tuple[int, int, str], list[dict[str, Any]]] = {case: [] for case in cases}
    for number, (busy, threads, policy) in product(range(given.rounds), cases):
        runs[busy, threads, policy].append(measure([*command, "--serve", str(threads)], policy, busy))
        print(f"round {number + 1}: {busy} busy, {threads} threads, {policy}", file=sys.stderr, flush=True)
    print("| other processes | threads | | median | ninth decile | answers a second |\n|---|---|---|---|---|---|")
    results = [{"busy": case[0], "threads": case[1], "policy": case[2], **summary(own)} for case, own in runs.items()]
    for each in results:
        took = f"{each['median_ms']} ms | {each['p90_ms']} ms | {each['answers_a_second']}"
        print(f"| {each['busy']} | {each['threads']} | {each['policy']} | {took} |")
    if given.into is not None:
        facts = {"machine": machine, "model": given.size, "dtype": given.dtype, "rounds": given.rounds}
        given.into.write_text(json.dumps({**facts, "serving": results}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
