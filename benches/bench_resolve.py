"""Candidates -> entities: ours beside gliner's greedy search, and how the time grows up to a million candidates."""

from __future__ import annotations

import statistics
import time
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from benches.compare import SCALE, Race
from gliner_fast import _rust
from tests.reference import decoding

MODES = {"flat": (False, False), "flat multi-label": (False, True), "nested": (True, False)}
MODES["nested multi-label"] = (True, True)
WIDEST = {"to 12 words": 12, "any width": None}
CANDIDATES_PER_WORD = 4  # far more than a sane threshold lets through
SIZES = [10**3, 10**4, 10**5, 10**6]
ROUNDS = max(5, round(15 * SCALE))


class Candidates(NamedTuple):
    """The arguments of `resolve` for one text."""

    text_offsets: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    scores: NDArray[np.float32]
    word_counts: NDArray[np.int64]
    nested: NDArray[np.bool_]
    multi_label: NDArray[np.bool_]

    def as_tuples(self) -> list[decoding.Candidate]:
        """As the plain-Python reference takes them."""
        return list(zip(self.starts.tolist(), self.ends.tolist(), self.scores.tolist(), strict=True))


def make_candidates(count: int, widest: int | None, mode: str, seed: int = 0) -> Candidates:
    """Random spans over a quarter as many words, with scores of which some are equal."""
    words = max(1, count // CANDIDATES_PER_WORD)
    generator = np.random.default_rng((count, seed))
    starts = generator.integers(0, words, count)
    ends = np.minimum(starts + generator.integers(1, (widest or words) + 1, count), words)
    scores = generator.random(count, np.float32)
    nested, multi_label = MODES[mode]
    return Candidates(
        np.array([0, count]), starts, ends, scores, np.array([words]), np.array([nested]), np.array([multi_label])
    )


def gliner_spans(candidates: Candidates) -> list[Any]:
    """The same as gliner's spans; each knows its index as its class."""
    from gliner.decoding.decoder import Span

    return [
        Span(start, end - 1, "type", score, class_index=index)
        for index, (start, end, score) in enumerate(candidates.as_tuples())
    ]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", [10, 100, 1000])
def bench_resolve(race: Race, count: int, mode: str) -> None:
    from gliner.decoding.decoder import SpanDecoder

    candidates = make_candidates(count, 12, mode)
    nested, multi_label = MODES[mode]
    decoder, spans, tuples = SpanDecoder(None), gliner_spans(candidates), candidates.as_tuples()

    def run_gliner() -> list[Any]:
        kept: list[Any] = decoder.greedy_search(spans, flat_ner=not nested, multi_label=multi_label)
        return kept

    def run_plain() -> list[int]:
        return decoding.resolve(tuples, nested=nested, multi_label=multi_label)

    kept = _rust.resolve(*candidates)[0].tolist()
    assert kept == [span.class_index for span in run_gliner()] == run_plain()
    race.run(
        lambda: _rust.resolve(*candidates),
        {"gliner": run_gliner, "plain Python": run_plain},
        agreement=f"identical: {len(kept):,} kept",
        amount=count,
        unit="candidates",
        mode=mode,
        widest=12,
    )


def seconds_of(inputs: list[Candidates]) -> float:
    """Mean time of one call."""
    begin = time.perf_counter()
    for candidates in inputs:
        _rust.resolve(*candidates)
    return (time.perf_counter() - begin) / len(inputs)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("widest", WIDEST)
def bench_growth(benchmark: Any, capsys: pytest.CaptureFixture[str], widest: str, mode: str) -> None:
    """Prints t(n) and t(10n) / t(n) for a thousand to a million candidates of one text."""
    nested, multi_label = MODES[mode]
    # Each size works through a million candidates a round, all different: a processor learns a thousand by heart.
    inputs = {
        count: [make_candidates(count, WIDEST[widest], mode, seed) for seed in range(SIZES[-1] // count)]
        for count in SIZES
    }
    small = inputs[SIZES[0]][0]
    expected = decoding.resolve(small.as_tuples(), nested=nested, multi_label=multi_label)
    assert _rust.resolve(*small)[0].tolist() == expected
    rounds = {count: [seconds_of(inputs[count]) for _ in range(ROUNDS)] for count in SIZES}
    benchmark.pedantic(lambda: seconds_of(inputs[SIZES[-1]]), rounds=1, iterations=1)
    # The least of the rounds: another process can only add to a time.
    best = {count: min(times) for count, times in rounds.items()}
    growth = {count: best[count] / best[count // 10] for count in SIZES[1:]}
    kept = len(_rust.resolve(*inputs[SIZES[-1]][0])[0])
    benchmark.extra_info.update(
        mode=mode,
        widths=widest,
        seconds={str(count): round(statistics.median(times), 9) for count, times in rounds.items()},
        best_seconds={str(count): round(seconds, 9) for count, seconds in best.items()},
        growth={str(count): round(factor, 2) for count, factor in growth.items()},
    )
    cells = [f"{best[count] * 1e3:9.3f} ms {growth.get(count, 1):5.1f}x" for count in SIZES]
    with capsys.disabled():
        print(f"\n{mode:>18}, {widest:<11} {' '.join(cells)}  kept {kept:,} of {SIZES[-1]:,}", end="")
