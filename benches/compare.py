"""Times ours beside the reference: interleaved rounds in one process, agreement first.

pytest-benchmark times one function. Here its untimed set-up of each round runs the rivals, so that a round is
"rivals, then ours" and a machine that slows down half-way slows all of them down.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from benches.settings import read_scale

# How much work a bench does: 1 is meant for two cores; 0.1 is a quick look, 10 a patient one.
SCALE = read_scale()
# Wall-clock seconds that one bench may spend on its rounds, and the rounds that it makes at least and at most.
SECONDS = 8.0 * SCALE
FEWEST_ROUNDS, MOST_ROUNDS = 5, 200


@dataclass
class Race:
    """Ours against any number of rivals on the same work.

    Attributes:
        benchmark: pytest-benchmark's fixture.
        machine: what `hardware.describe` says.
        synchronize: waits for the device, so that a time holds the work that was started in it.
    """

    benchmark: Any
    machine: Mapping[str, object]
    synchronize: Callable[[], None] = field(default=lambda: None)

    def run(
        self,
        ours: Callable[[], object],
        rivals: Mapping[str, Callable[[], object]],
        *,
        agreement: str,
        amount: int,
        unit: str,
        agreements: Mapping[str, str] | None = None,
        fewest_rounds: int = FEWEST_ROUNDS,
        **conditions: object,
    ) -> None:
        """Times all, and leaves the figures in the benchmark's extra information.

        Args:
            ours: our side of the work.
            rivals: the others, each by the name that the table shows; the first is the one that ratios are quoted of.
            agreement: how ours was found to agree with the reference just before; a bench that finds it does not
                must not come here.
            amount: how many `unit` one call works through, for the throughput.
            unit: such as `words`.
            agreements: by rival, where a rival's own agreement with the reference is to be told in the table instead.
            fewest_rounds: where a round takes long.
            **conditions: shapes, dtype and settings, to be written beside the figures.
        """
        calls = {name: self._timed(call) for name, call in [*rivals.items(), ("ours", ours)]}
        seconds: dict[str, list[float]] = {name: [] for name in rivals}

        def run_rivals() -> None:
            for name in rivals:
                seconds[name].append(calls[name]())

        rounds = 1
        if self.is_timed:
            once = sum(call() for call in calls.values())  # warms caches up, and says what a round costs
            rounds = max(fewest_rounds, min(MOST_ROUNDS, int(SECONDS / max(once, 1e-9))))
        self.benchmark.extra_info.update(
            machine=dict(self.machine), conditions=conditions, agreement=agreement, amount=amount, unit=unit
        )
        try:
            self.benchmark.pedantic(self._finished(ours), setup=run_rivals, rounds=rounds, iterations=1)
        finally:  # where the race is interrupted, too, with the rounds that it came to
            stats = self.benchmark.stats
            if stats is not None and stats.stats.data:
                self._add_figures(stats.stats.data, seconds, agreements or {}, rounds)

    @property
    def is_timed(self) -> bool:
        """Whether figures are made; by --benchmark-disable the agreement is all that is asked for."""
        return not self.benchmark.disabled

    def _add_figures(
        self, ours: list[float], rivals: Mapping[str, list[float]], agreements: Mapping[str, str], rounds: int
    ) -> None:
        """Adds what the finished rounds say, and how many they were where some are missing."""
        info = self.benchmark.extra_info
        info["ours"] = summarize(ours)
        info["rivals"] = {name: summarize(times[: len(ours)], ours) for name, times in rivals.items()}
        for name, told in agreements.items():
            info["rivals"][name]["agreement"] = told
        if len(ours) < rounds:
            info["cut_off_after"] = len(ours)

    def _finished(self, call: Callable[[], object]) -> Callable[[], None]:
        def finished() -> None:
            call()
            self.synchronize()

        return finished

    def _timed(self, call: Callable[[], object]) -> Callable[[], float]:
        finished = self._finished(call)

        def timed() -> float:
            begin = time.perf_counter()
            finished()
            return time.perf_counter() - begin

        return timed


def words_of(texts: Sequence[str], **conditions: object) -> dict[str, Any]:
    """What `Race.run` is told of work on texts: their words, their number, and the conditions."""
    return {"amount": sum(len(text.split()) for text in texts), "unit": "words", "texts": len(texts), **conditions}


def keys_of(answers: Sequence[Sequence[Mapping[str, Any]]]) -> set[tuple[Any, ...]]:
    """Entities of texts without their scores: (text, start, end, label)."""
    return {(text, own["start"], own["end"], own["label"]) for text, found in enumerate(answers) for own in found}


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())


def summarize(seconds: list[float], ours: list[float] | None = None) -> dict[str, float]:
    """Median and quartiles of the rounds; with `ours`, also how often ours goes into it, round by round."""
    low, median, high = _quartiles(seconds)
    summary = {"median_s": median, "low_quartile_s": low, "high_quartile_s": high}
    if ours is not None:
        ratios = [theirs / own for theirs, own in zip(seconds, ours, strict=True)]
        low, median, high = _quartiles(ratios)
        summary |= {"ratio": median, "low_quartile_ratio": low, "high_quartile_ratio": high}
    return summary


def _quartiles(values: list[float]) -> list[float]:
    """Low, median and high; of one value, of which `statistics` before Python 3.13 has none, itself."""
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else 3 * values
