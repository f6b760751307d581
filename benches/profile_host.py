"""What a host does for each batch of a card, and how much it can feed, without one: `python -m benches.profile_host`.

The card is hollow (`benches.hollow_cuda`): its kernels compute nothing and take no time, and to start one takes the
host as long as `--start` says, by default a guess at what a driver takes. All else that a host does is real, from texts
to entities, but for the entities themselves: some are drawn for each text. So this tells what the host costs, and
nothing of a card; where a card computes more slowly than the host feeds, it is busy. Everything runs on this machine's
cores: threads that have one each on a larger machine take turns on a small one.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import json
import os
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benches import hollow_cuda
from benches.conftest import LABELS, checkpoint, distinct_texts
from gliner_fast import GLiNER
from gliner_fast.kernels import span_candidates
from gliner_fast.predicting.predictor import Predictor
from gliner_fast.predicting.request import Options, Request

TEXTS = {"short": 16_384, "mixed": 4_096}
STAGES = ("prepare", "lay_out", "score", "decode")
ROUNDS = 5


def draw_entities(a_text: float, labels: int) -> None:
    """Has each search for spans find some that are drawn, one word wide: the card's memory holds nothing of sense."""
    search, random = span_candidates._search, np.random.default_rng(0)

    def found(inputs: Any, tiling: Any, max_width: int, *given: Any, **options: Any) -> tuple[Tensor, Any]:
        table, event = search(inputs, tiling, max_width, *given, **options)
        room = (len(table) - 2) * 2 // 3
        drawn = torch.from_numpy(random.integers(0, tiling.logits, int(a_text * len(tiling.texts_on_host))))
        _, _, widths, _ = tiling.decode(drawn, max_width)
        places = torch.unique(drawn - widths * labels)[:room]
        table[0] = len(places)
        table[2 : 2 + len(places)] = places
        table[2 + room :].view(torch.float32)[: len(places)] = 2.0
        return table, event

    span_candidates._search = found


class Timed:
    """Seconds of a CPU that each stage of a predictor took, in whichever thread."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        for name in STAGES:
            setattr(Predictor, name, self._timed(name, getattr(Predictor, name)))

    def _timed(self, name: str, stage: Any) -> Any:
        @functools.wraps(stage)
        def run(*given: Any, **options: Any) -> Any:
            began = time.thread_time()
            try:
                return stage(*given, **options)
            finally:
                self.seconds[name].append(time.thread_time() - began)

        return run


def profiled(model: GLiNER, name: str, labels: list[str], timed: Timed, hollow: Any) -> dict[str, Any]:
    """What the host does for a corpus."""
    texts = distinct_texts(name, TEXTS[name])
    subwords = int(model.predictor().prepare(Request.read(texts, labels, Options())).lengths.sum())
    model.inference(texts, labels)
    timed.seconds.clear()
    started, waited, seconds = hollow.hollow_started(), hollow.hollow_waited(), []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        model.inference(texts, labels)
        seconds.append(time.perf_counter() - began)
    batches = len(timed.seconds["score"])
    return {
        "texts": len(texts),
        "subwords": subwords,
        "batches": batches // ROUNDS,
        "subwords_a_second": subwords / statistics.median(seconds),
        "started_a_batch": (hollow.hollow_started() - started) / batches,
        "waits_a_batch": (hollow.hollow_waited() - waited) / batches,
        "cpu_seconds_a_batch": {stage: sum(timed.seconds[stage]) / batches for stage in STAGES},
    }


def profiled_alone(model: GLiNER, labels: list[str], hollow: Any) -> dict[str, Any]:
    """What the host does for one short text."""
    text = distinct_texts("short", 16)[3]
    for _ in range(20):
        model.predict_entities(text, labels)
    started, seconds, of_cpu = hollow.hollow_started(), [], []
    for _ in range(200):
        began, began_on_cpu = time.perf_counter(), time.thread_time()
        model.predict_entities(text, labels)
        seconds.append(time.perf_counter() - began)
        of_cpu.append(time.thread_time() - began_on_cpu)
    return {
        "seconds": statistics.median(seconds),
        "cpu_seconds": statistics.median(of_cpu),
        "started": (hollow.hollow_started() - started) / len(seconds),
    }


def main() -> None:
    """Prints what the host does for each corpus, and for a text alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["small", "base", "large"], default="base")
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--labels", type=int, default=5)
    parser.add_argument("--corpora", nargs="*", choices=TEXTS, default=list(TEXTS))
    parser.add_argument("--entities", type=float, default=3, help="spans that are found in a text")
    parser.add_argument("--start", type=int, default=2000, help="nanoseconds in which a driver starts a kernel")
    parser.add_argument("--out", type=Path, help="JSON file")
    asked = parser.parse_args()
    if not hollow_cuda.is_here():
        os.environ["HOLLOW_START_NS"] = str(asked.start)
        path = checkpoint(asked.size)  # made now, and not by a model on the hollow card
        print(f"{path.name}, {asked.dtype}, {asked.labels} types, {asked.start} ns a kernel", flush=True)
        hollow_cuda.run_again(hollow_cuda.FOLDER)
    hollow: Any = ctypes.CDLL("libhollow.so")
    hollow.hollow_started.restype = hollow.hollow_waited.restype = ctypes.c_int64
    labels = LABELS[: asked.labels]
    model = GLiNER.from_pretrained(checkpoint(asked.size), map_location="cuda", dtype=asked.dtype)
    draw_entities(asked.entities, len(labels))
    found: dict[str, Any] = {"one text": profiled_alone(model, labels, hollow)}
    alone = found["one text"]
    print(
        f"one short text: {1e3 * alone['seconds']:.2f} ms, {1e3 * alone['cpu_seconds']:.2f} of a CPU, "
        f"{alone['started']:.0f} kernels and copies",
        flush=True,
    )
    timed = Timed()
    for name in asked.corpora:
        own = found[name] = profiled(model, name, labels, timed, hollow)
        stages = ", ".join(f"{stage} {1e3 * own['cpu_seconds_a_batch'][stage]:.2f}" for stage in STAGES)
        print(
            f"{own['texts']:,} {name} texts, {own['subwords']:,} subwords in {own['batches']} batches: the host feeds "
            f"{own['subwords_a_second'] / 1e6:.2f} million a second\n"
            f"  a batch: {own['started_a_batch']:.0f} kernels and copies, {own['waits_a_batch']:.1f} waits; "
            f"ms of a CPU: {stages}",
            flush=True,
        )
    if asked.out is not None:
        asked.out.write_text(json.dumps(vars(asked) | {"out": str(asked.out), "found": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
