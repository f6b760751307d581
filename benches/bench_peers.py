"""Texts -> entities beside gliner and its ports that run on ONNX: in bulk, and one text at a time.

A port that answers otherwise than gliner is shown with the share of gliner's entities that it finds, not hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from benches import peers
from benches.compare import Race
from benches.conftest import LABELS, SIZES, Pair, checkpoint, texts_of
from benches.peers import THRESHOLD, Answers, Predict

TEXT_COUNTS = {"short": 16, "mixed": 4}


def one_by_one(predict: Predict) -> Predict:
    """The same, but called with a text at a time."""

    def predict_each(texts: Sequence[str], labels: list[str]) -> Answers:
        return [predict([text], labels)[0] for text in texts]

    return predict_each


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", TEXT_COUNTS)
@pytest.mark.parametrize("way", ["bulk", "single"])
@pytest.mark.timeout(1_800)
def bench_peers(race: Race, pair: Callable[[str, str], Pair], way: str, name: str, size: str) -> None:
    if lacking := peers.missing():
        pytest.skip(f"not installed: {', '.join(lacking)}; pip install -e '.[peers]'")
    models = pair(size, "cpu")
    texts, labels = texts_of(name, TEXT_COUNTS[name]), LABELS[:5]
    folder = peers.export(models.reference, checkpoint(size))
    predictors: dict[str, Predict] = {
        "ours": lambda texts, labels: models.ours.inference(texts, labels, threshold=THRESHOLD),
        "gliner as shipped": lambda texts, labels: models.reference.inference(texts, labels, threshold=THRESHOLD),
        **{peer: load(folder) for peer, load in peers.PEERS.items()},
    }
    if way == "single":
        predictors = {peer: one_by_one(predict) for peer, predict in predictors.items()}
    expected = keys(models.reference.inference(texts, labels, threshold=THRESHOLD))
    agreements = {
        peer: agreement(keys(predict(texts, labels)), expected)
        for peer, predict in predictors.items()
        if peer != "gliner as shipped"
    }
    assert agreements["ours"] == agreement(expected, expected)
    race.run(
        lambda: predictors["ours"](texts, labels),
        {peer: lambda p=predict: p(texts, labels) for peer, predict in predictors.items() if peer != "ours"},
        agreement=f"ours: {agreements['ours']}",
        agreements={peer: f"its own: {told}" for peer, told in agreements.items() if peer != "ours"},
        amount=sum(len(text.split()) for text in texts),
        unit="words",
        texts=len(texts),
        corpus=name,
        labels=len(labels),
        size=size,
        threshold=THRESHOLD,
        way=way,
    )


def keys(answers: Answers) -> set[tuple[Any, ...]]:
    """Entities as (text, start, end, label)."""
    return {(row, e["start"], e["end"], e["label"]) for row, entities in enumerate(answers) for e in entities}


def agreement(found: set[tuple[Any, ...]], expected: set[tuple[Any, ...]]) -> str:
    """How many of gliner's entities were found, and what else."""
    return f"{len(found & expected)} of {len(expected)} of gliner's entities, {len(found - expected)} others"
