"""Texts -> entities and the relations between them: ours beside gliner, on random models that find both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benches.bench_end_to_end import BATCH_SIZES, TEXT_COUNTS, fastest_batch_size
from benches.compare import SCALE, Race, words_of
from benches.conftest import DEVICES, LABELS, SIZES, Pair, texts_of
from gliner_fast import verify
from tests.relation_checkpoints import RELATIONS

TOLERANCE = 5e-4  # random layers, scaled to spread scores, multiply rounding as well

Answers = tuple[list[list[dict[str, Any]]], list[list[dict[str, Any]]]]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["relations", "relations-unlinked"] if SCALE > 0.1 else ["relations"])
@pytest.mark.parametrize("name", ["short", "mixed"])
@pytest.mark.timeout(1_800)
def bench_relations(race: Race, pair: Callable[..., Pair], name: str, kind: str, size: str, device: str) -> None:
    models, texts, labels = pair(size, device, kind), texts_of(name, TEXT_COUNTS[name]), LABELS[:5]
    by_length = sorted(texts, key=len, reverse=True)

    # As many entities as texts have: one in twelve words, wherever the scores of random weights lie.
    words = sum(len(text.split()) for text in texts)
    levels = (0.9, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02)

    def has_enough(level: float) -> bool:
        return sum(map(len, models.ours.inference(texts, labels, RELATIONS, threshold=level)[0])) >= words / 12

    threshold = next(filter(has_enough, levels), 0.0)
    options: dict[str, Any] = {"threshold": threshold, "adjacency_threshold": 0.5, "relation_threshold": 0.5}

    def find(model: Any, texts: list[str] = texts, **further: Any) -> Answers:
        answers: Answers = model.inference(texts, labels, RELATIONS, **options, **further)
        return answers

    def find_sorted(batch_size: int) -> Answers:
        return find(models.reference, by_length, batch_size=batch_size)

    report = verify(
        models.ours, texts, labels, relations=RELATIONS, reference=models.reference, tolerance=TOLERANCE, **options
    )
    assert report.ok, str(report)
    assert report.entities, "neither found an entity: nothing was compared"
    assert report.relations is not None
    batch_size = fastest_batch_size(find_sorted, device) if race.is_timed else BATCH_SIZES[device][-1]
    race.run(
        lambda: find(models.ours),
        {
            "gliner as shipped": lambda: find(models.reference),
            f"gliner sorted, batch {batch_size}": lambda: find_sorted(batch_size),
        },
        agreement=", ".join(
            f"{part.equal:,} of {found:,} {name} equal, {part.explained} differ by rounding"
            for name, found, part in (
                ("entities", report.entities, report),
                ("relations", report.relations.found, report.relations),
            )
        ),
        **words_of(
            texts, corpus=name, labels=len(labels), relations=len(RELATIONS), size=size, threshold=threshold,
            dtype="float32", kind=kind,
        ),
    )  # fmt: skip
