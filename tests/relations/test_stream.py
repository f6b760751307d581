"""Streams of a model that finds relations: lazily and in order what `inference` gives."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

from gliner_fast import GLiNER
from gliner_fast.relex import RelexGLiNER
from tests.relation_checkpoints import RELATIONS
from tests.relations.answers import assert_same
from tests.samples import BOOKS, CROSSNER, LABELS

TEXTS = [text[:90] for text in CROSSNER[:40]]
ASKED = {"threshold": 0.3, "adjacency_threshold": 0.2, "relation_threshold": 0.3}


@pytest.fixture(scope="module", params=["relex", "relex-none", "token-relex-gat"])
def model(checkpoint: Callable[[str], Path], request: pytest.FixtureRequest) -> RelexGLiNER:
    return GLiNER.from_pretrained(checkpoint(request.param))


@pytest.fixture(scope="module")
def expected(model: RelexGLiNER) -> Any:
    entities, relations = model.inference(TEXTS, LABELS, RELATIONS, **ASKED)
    assert sum(map(len, relations)) > 50
    return list(zip(entities, relations, strict=True))


@pytest.fixture(autouse=True)
def no_thread_left_behind() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("gliner_fast")] == []


@pytest.mark.parametrize("window_size", [1, 7, 1024])
def test_a_stream_gives_what_inference_gives(window_size: int, model: RelexGLiNER, expected: Any):
    found = list(model.stream(iter(TEXTS), LABELS, relations=RELATIONS, window_size=window_size, **ASKED))
    assert_same(found, expected)
    assert all(type(one) is tuple and [type(part) for part in one] == [list, list] for one in found)


def test_contexts_travel_with_their_texts(model: RelexGLiNER, expected: Any):
    contexts = [{"row": row} for row in range(len(TEXTS))]
    pairs = zip(TEXTS, contexts, strict=True)
    found = list(model.stream(pairs, LABELS, relations=RELATIONS, as_tuples=True, **ASKED))
    assert all(mine is given for (_, mine), given in zip(found, contexts, strict=True))
    assert_same([answer for answer, _ in found], expected)


@pytest.mark.parametrize("relations", [(), [], "", None, pl.Series([], dtype=pl.String)])
def test_without_relations_there_are_entities_alone(relations: Any, model: RelexGLiNER):
    wanted = model.inference(TEXTS[:6], LABELS, threshold=0.3, return_relations=False)
    found = list(model.stream(TEXTS[:6], LABELS, relations=relations, threshold=0.3))
    assert_same(found, wanted)
    assert all(type(entities) is list for entities in found)
    (pair,) = model.stream([(TEXTS[0], 5)], LABELS, relations=relations, threshold=0.3, as_tuples=True)
    assert_same(pair, (wanted[0], 5))


def test_relations_may_be_a_column_and_a_string(model: RelexGLiNER):
    wanted = list(model.stream(TEXTS[:6], LABELS, relations=RELATIONS[:2], **ASKED))
    for column in (pd.Series(RELATIONS[:2]), pl.Series(RELATIONS[:2]), tuple(RELATIONS[:2])):
        assert list(model.stream(TEXTS[:6], LABELS, relations=column, **ASKED)) == wanted
    one = list(model.stream(TEXTS[:6], LABELS, relations=RELATIONS[0], **ASKED))
    assert one == list(model.stream(TEXTS[:6], LABELS, relations=RELATIONS[:1], **ASKED))


def test_what_is_done_to_arguments_meanwhile_changes_nothing(model: RelexGLiNER):
    relations, thresholds = RELATIONS[:2], dict.fromkeys(RELATIONS[:2], 0.3)
    wanted = list(model.stream(TEXTS, LABELS, relations=RELATIONS[:2], relation_threshold=0.3, window_size=1))
    results = model.stream(TEXTS, LABELS, relations=relations, relation_threshold=thresholds, window_size=1)
    first = next(results)
    relations.clear()
    thresholds.clear()
    assert [first, *results] == wanted


def test_long_texts_are_read_whole(model: RelexGLiNER):
    text = " ".join(BOOKS)[:5000]
    ((entities, relations),) = model.stream([text], LABELS[:2], relations=RELATIONS[:2], threshold=0.6)
    assert (entities, relations) == model.predict_relations(
        text, LABELS[:2], RELATIONS[:2], threshold=0.6, on_long="window"
    )
    assert entities[-1]["end"] > 0.7 * len(text)
    with pytest.raises(ValueError, match=r"text 1 has .* words, and the model reads 384"):
        list(model.stream(["short", text], LABELS[:2], relations=RELATIONS[:2], on_long="error"))


def test_what_is_no_text_has_neither(model: RelexGLiNER):
    texts = ["", None, TEXTS[0], float("nan"), " \n"]
    found = list(model.stream(texts, LABELS, relations=RELATIONS, **ASKED))
    assert [found[at] for at in (0, 1, 3, 4)] == [([], [])] * 4
    assert found[2][0]
    with pytest.warns(UserWarning, match=r"^text 0 is 5 \(int\)"):
        assert list(model.stream([5], LABELS, relations=RELATIONS)) == [([], [])]
    assert list(model.stream([], LABELS, relations=RELATIONS)) == []


def test_an_infinite_source_is_read_a_little_ahead_and_closed(model: RelexGLiNER):
    read, closed = [], []

    def source() -> Iterator[str]:
        try:
            for text in itertools.cycle(TEXTS[:4]):
                read.append(text)
                yield text
        finally:
            closed.append(True)

    with closing(model.stream(source(), LABELS[:1], relations=RELATIONS[:1])) as results:
        assert read == []
        for _ in range(3):
            next(results)
        assert len(read) == 32 + 64
    assert closed == [True]
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"relations": [["works for"], []]}, TypeError, "relations holds lists: a stream has one list of relations"),
        ({"relations": {"works for": "is employed by"}}, TypeError, r"relations is \{.*\(dict\): expected strings"),
        ({"relations": 5}, TypeError, r"relations is 5 \(int\): expected strings"),
        ({"relations": ["works for", []]}, TypeError, "relations holds lists"),
        ({"relations": ["works for", {}]}, TypeError, r"relations is \['works for', \{\}\] \(list\): expected strings"),
        ({"relations": (name for name in "ab")}, TypeError, "relations is a generator: expected"),
        ({"adjacency_threshold": [0.5]}, TypeError, r"adjacency_threshold is \[0\.5\]: a stream has one value"),
        ({"relation_threshold": [0.5]}, TypeError, r"relation_threshold is \[0\.5\]: a stream has one value"),
        ({"adjacency_threshold": {"works for": 0.5}}, TypeError, "adjacency_threshold is a mapping"),
        ({"adjacency_threshold": "high"}, TypeError, "adjacency_threshold is 'high'"),
        ({"relation_threshold": float("nan")}, ValueError, "relation_threshold is NaN"),
        ({"relation_threshold": {"born in": 0.5}}, ValueError, "relation_threshold has no value for .*'works for'"),
        ({"window_size": 0}, ValueError, "window_size is 0"),
        ({"on_long": "skip"}, ValueError, "on_long is 'skip'"),
        ({"labels": [["person"]]}, TypeError, "labels holds lists or mappings"),
    ],
)
def test_what_cannot_be_is_told_before_a_text_is_read(
    options: dict[str, Any], error: type[Exception], message: str, model: RelexGLiNER
):
    def unread() -> Iterator[str]:
        raise AssertionError("read")
        yield ""

    asked = {"labels": LABELS, "relations": ["works for"], **options}
    with pytest.raises(error, match=message):
        model.stream(unread(), asked.pop("labels"), **asked)
