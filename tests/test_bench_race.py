"""What a race leaves in the result file: when it is done, when it is interrupted, and when no figure is wanted."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from benches import report, settings
from benches.compare import FEWEST_ROUNDS, Race, summarize


class Benchmark:
    """Stands for pytest-benchmark's fixture, whose rounds all take a second.

    Attributes:
        disabled: by --benchmark-disable.
        finished: rounds after which ctrl-C comes; None for never.
    """

    def __init__(self, *, disabled: bool = False, finished: int | None = None) -> None:
        self.disabled, self.finished = disabled, finished
        self.extra_info: dict[str, Any] = {}
        self.stats: Any = None

    def pedantic(self, target: Callable[[], object], *, setup: Callable[[], object], rounds: int, iterations: int):
        assert iterations == 1
        if not self.disabled:
            self.stats = SimpleNamespace(stats=SimpleNamespace(data=[]))
        for done in range(1 if self.disabled else rounds):
            setup()
            if done == self.finished:
                raise KeyboardInterrupt
            target()
            if self.stats is not None:
                self.stats.stats.data.append(1.0)


def run(benchmark: Benchmark, calls: list[str]) -> dict[str, Any]:
    race = Race(benchmark, {"device": "none", "threads": 1, "load": 0, "python": "3", "versions": {}})
    race.run(
        lambda: calls.append("ours"),
        {"theirs": lambda: calls.append("theirs")},
        agreement="all equal",
        agreements={"theirs": "its own"},
        amount=10,
        unit="words",
        corpus="short",
    )
    return benchmark.extra_info


def test_a_race_that_is_interrupted_leaves_the_rounds_that_it_finished():
    benchmark = Benchmark(finished=2)
    with pytest.raises(KeyboardInterrupt):
        run(benchmark, [])
    told = benchmark.extra_info
    assert told["conditions"] == {"corpus": "short"}
    assert told["ours"]["median_s"] == 1.0
    assert told["rivals"]["theirs"]["ratio"] > 0
    result = {"datetime": "2026-11-30", "benchmarks": [{"name": "bench_end_to_end[short]", "extra_info": told}]}
    table = report.as_markdown(result)
    assert "| end_to_end[short], cut off after 2 rounds | 10 words | 10 words/s | theirs |" in table
    assert "| its own |" in table


def test_a_race_that_is_interrupted_after_one_round_is_told_of():
    benchmark = Benchmark(finished=1)
    with pytest.raises(KeyboardInterrupt):
        run(benchmark, [])
    assert benchmark.extra_info["cut_off_after"] == 1
    assert summarize([3.0], [2.0]) == {
        **dict.fromkeys(("median_s", "low_quartile_s", "high_quartile_s"), 3.0),
        **dict.fromkeys(("ratio", "low_quartile_ratio", "high_quartile_ratio"), 1.5),
    }


def test_a_race_that_is_interrupted_before_the_first_round_ends_claims_nothing():
    benchmark = Benchmark(finished=0)
    with pytest.raises(KeyboardInterrupt):
        run(benchmark, [])
    assert "rivals" not in benchmark.extra_info


def test_a_race_that_is_done_is_not_cut_off():
    calls: list[str] = []
    told = run(Benchmark(), calls)
    assert "cut_off_after" not in told
    assert calls.count("ours") == calls.count("theirs") > FEWEST_ROUNDS


def test_a_race_without_figures_is_one_round():
    calls: list[str] = []
    told = run(Benchmark(disabled=True), calls)
    assert calls == ["theirs", "ours"]
    assert "ours" not in told


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("GLINER_FAST_BENCH_SCALE", "abc", "expected a number above 0"),
        ("GLINER_FAST_BENCH_SCALE", "nan", "expected a number above 0"),
        ("GLINER_FAST_BENCH_SCALE", "0", "expected a number above 0"),
        ("GLINER_FAST_BENCH_SIZES", "bse", "expected some of tiny, "),
        ("GLINER_FAST_BENCH_SIZES", "", "expected some of tiny, "),
    ],
)
def test_what_the_environment_may_not_say_is_refused_in_a_sentence(
    variable: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit, match=f"^{variable} is '{value}': {expected}"):
        settings.read_sizes() if variable.endswith("SIZES") else settings.read_scale()
