"""Texts -> entities and the relations between them: ours beside gliner, on random models that find both."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from benches.bench_end_to_end import BATCH_SIZES, TEXT_COUNTS, THRESHOLD
from benches.compare import SCALE, Race, words_of
from benches.conftest import DEVICES, LABELS, SIZES, Pair, texts_of
from tests.relation_checkpoints import RELATIONS

Answers = tuple[list[list[dict[str, Any]]], list[list[dict[str, Any]]]]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["relations", "relations-unlinked"] if SCALE > 0.1 else ["relations"])
@pytest.mark.parametrize("name", ["short", "mixed"])
@pytest.mark.timeout(1_800)
def bench_relations(race: Race, pair: Callable[..., Pair], name: str, kind: str, size: str, device: str) -> None:
    models, texts, labels = pair(size, device, kind), texts_of(name, TEXT_COUNTS[name]), LABELS[:5]
    by_length = sorted(texts, key=len, reverse=True)

    def find(model: Any, texts: list[str] = texts, **options: Any) -> Answers:
        answers: Answers = model.inference(texts, labels, RELATIONS, threshold=THRESHOLD, **options)
        return answers

    def find_sorted(batch_size: int) -> Answers:
        return find(models.reference, by_length, batch_size=batch_size)

    agreement = _agreement(find(models.ours), find(models.reference))
    batch_size = min(BATCH_SIZES[device], key=lambda size: _seconds(lambda: find_sorted(size)))
    race.run(
        lambda: find(models.ours),
        {
            "gliner as shipped": lambda: find(models.reference),
            f"gliner sorted, batch {batch_size}": lambda: find_sorted(batch_size),
        },
        agreement=agreement,
        **words_of(
            texts, corpus=name, labels=len(labels), relations=len(RELATIONS), size=size, threshold=THRESHOLD,
            dtype="float32", kind=kind,
        ),
    )  # fmt: skip


def _seconds(call: Callable[[], object]) -> float:
    call()
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def _agreement(mine: Answers, theirs: Answers) -> str:
    """Asserts that both found the same, and says how much it is."""
    (entities, of_entities), (relations, of_relations) = (
        _compared(own, their, key) for own, their, key in zip(mine, theirs, (_entity_key, _relation_key), strict=True)
    )
    return (
        f"all of {entities:,} entities and {relations:,} relations equal, scores within "
        f"{max(of_entities, of_relations):.0e}"
    )


def _compared(mine: list[Any], theirs: list[Any], key: Callable[[Any], Any]) -> tuple[int, float]:
    """How many of a kind there are, and by how much their scores differ at most."""
    own, their = (
        {(index, *key(one)): one["score"] for index, of_text in enumerate(found) for one in of_text}
        for found in (mine, theirs)
    )
    assert own.keys() == their.keys(), f"{len(own.keys() ^ their.keys())} of {len(their)} differ"
    return len(their), max(abs(score - their[name]) for name, score in own.items())


def _entity_key(entity: Any) -> tuple[Any, ...]:
    return entity["start"], entity["end"], entity["label"]


def _relation_key(relation: Any) -> tuple[Any, ...]:
    return relation["head"]["entity_idx"], relation["tail"]["entity_idx"], relation["relation"]
