"""Texts -> entities through the public methods: ours beside gliner as shipped and gliner at its best.

"As shipped" is `inference` with its defaults: batches of 8 in input order. "At its best" is what a careful user does:
texts sorted by length, and the batch size that was fastest in a trial on this machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from benches.compare import Race, words_of
from benches.conftest import DEVICES, LABELS, SIZES, Pair, texts_of
from benches.floor import cpu_peak
from benches.useful_work import UsefulWork
from gliner_fast import Entity
from gliner_fast.comparing.reference_candidates import find_reference_candidates
from gliner_fast.comparing.report import VerificationReport
from gliner_fast.comparing.verification import compare

TEXT_COUNTS = {"short": 32, "mixed": 8, "long": 6}
BATCH_SIZES = {"cpu": [1, 4, 8, 16], "cuda": [16, 64, 256]}
THRESHOLD = 0.5
LOWER_THRESHOLDS = (0.3, 0.1)  # for random models that find nothing in few texts: no figure without agreement on some

Answers = list[list[Entity]]


def inference_sorted(
    model: Any, texts: Sequence[str], labels: list[str], batch_size: int, *, threshold: float = THRESHOLD
) -> Answers:
    """`inference` over texts sorted by length, answers put back into input order."""
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]), reverse=True)
    answers = model.inference([texts[index] for index in order], labels, threshold=threshold, batch_size=batch_size)
    back: Answers = [[] for _ in texts]
    for index, entities in zip(order, answers, strict=True):
        back[index] = entities
    return back


def fastest_batch_size(run: Callable[[int], object], device: str) -> int:
    """The batch size that one trial found fastest, of a run over sorted texts."""
    trials = {}
    for batch_size in BATCH_SIZES[device]:
        if device != "cpu":  # where the first call of a shape compiles
            run(batch_size)
        begin = time.perf_counter()
        run(batch_size)
        trials[batch_size] = time.perf_counter() - begin
    return min(trials, key=trials.__getitem__)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("label_count", [5, 25])
@pytest.mark.parametrize("name", TEXT_COUNTS)
@pytest.mark.timeout(1_800)  # base on two cores: seven passes of the reference and more
def bench_end_to_end(
    race: Race, pair: Callable[..., Pair], name: str, label_count: int, size: str, device: str
) -> None:
    race_texts(race, pair(size, device), name, label_count, size)


def race_texts(race: Race, models: Pair, name: str, label_count: int, size: str, **told: object) -> None:
    """Races both packages over texts of a corpus, once their answers are the same.

    Args:
        race: to be run.
        models: of both.
        name: of the corpus.
        label_count: entity types.
        size: of the checkpoint.
        **told: what else the result is to say.
    """
    texts, labels, device = texts_of(name, TEXT_COUNTS[name]), LABELS[:label_count], models.device
    levels = (THRESHOLD, *LOWER_THRESHOLDS)
    threshold = next((own for own in levels if any(models.ours.inference(texts, labels, threshold=own))), THRESHOLD)

    def ours() -> Answers:
        answers: Answers = models.ours.inference(texts, labels, threshold=threshold)
        return answers

    def shipped() -> Answers:
        answers: Answers = models.reference.inference(texts, labels, threshold=threshold)
        return answers

    def sorted_by_length(batch_size: int) -> Answers:
        return inference_sorted(models.reference, texts, labels, batch_size, threshold=threshold)

    report = same_answers(ours(), shipped(), models, texts, labels, threshold)
    # Without figures, what only they need runs for one case, to see that it does.
    for_figures = race.is_timed or (name, label_count, told) == ("short", 5, {})
    work = UsefulWork.of(models.ours, ours).encoder if for_figures and device == "cpu" else 0
    peak = cpu_peak() if work else 0.0
    batch_size = fastest_batch_size(sorted_by_length, device) if for_figures else BATCH_SIZES[device][-1]
    race.run(
        ours,
        {
            "gliner as shipped": shipped,
            f"gliner sorted, batch {batch_size}": lambda: sorted_by_length(batch_size),
        },
        agreement=(
            f"{report.equal:,} of {report.entities:,} entities equal, {report.explained} differ by rounding, "
            f"scores within {report.max_score_difference:.0e}"
        ),
        **words_of(texts, corpus=name, labels=label_count, size=size, threshold=threshold, dtype="float32", **told),
    )
    add_share_of_peak(race, work, peak, torch.float32)


def same_answers(
    ours: Answers,
    shipped: Answers,
    models: Pair,
    texts: Sequence[str],
    labels: Sequence[str],
    threshold: float = THRESHOLD,
) -> VerificationReport:
    """Asserts that both packages found the same entities, but for rounding, and some at all."""
    report = compare(
        ours,
        shipped,
        lambda index: find_reference_candidates(models.reference, texts[index], labels, floor=threshold - 1e-4),
        threshold=threshold,
    )
    assert report.ok, str(report)
    assert report.entities, "neither found an entity: nothing was compared"
    return report


def add_share_of_peak(race: Race, work: int, before: float, dtype: torch.dtype) -> None:
    """Adds what DESIGN 7 asks: how near to the products of the same run, and of nothing but what the answer needs.

    Args:
        race: that has been run.
        work: useful operations; none where they are not known.
        before: the peak before the race; the higher one of before and after counts.
        dtype: of the products.
    """
    if work and race.is_timed:
        peak = max(before, cpu_peak(dtype))
        reached = work / race.benchmark.extra_info["ours"]["median_s"]
        race.benchmark.extra_info.update(useful_operations=work, peak=peak, share_of_peak=reached / peak)
