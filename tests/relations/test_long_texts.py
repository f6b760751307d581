"""Relations of texts that are read in windows, by small random checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gliner_fast import GLiNER
from gliner_fast.predicting.request import Options, Request
from tests.reference.examples import EXAMPLES, examples
from tests.relation_checkpoints import RELATIONS
from tests.relations.answers import assert_same
from tests.samples import BOOKS, CROSSNER, LABELS

few_examples = settings(examples, max_examples=max(1, EXAMPLES // 4))  # each takes as long as many others
KINDS = ["relex", "relex-gat", "relex-none", "token-relex", "token-relex-gat"]
EVERYTHING = {"threshold": -1.0, "adjacency_threshold": -1.0, "relation_threshold": -1.0}
SENTENCES = [text for text in (*CROSSNER[:60], *BOOKS[:20]) if len(text.split()) < 40]


@pytest.fixture(scope="module")
def load(checkpoint: Callable[[str], Path]) -> Callable[..., Any]:
    """Loads a kind that reads few words."""
    loaded: dict[str, Any] = {}

    def once(kind: str, words: int = 24) -> Any:
        if kind not in loaded:
            loaded[kind] = GLiNER.from_pretrained(checkpoint(kind))
        loaded[kind].config.max_len = words
        return loaded[kind]

    return once


def check_form(model: Any, text: str, entities: list[Any], relations: list[Any]) -> None:
    """Asserts what holds for all relations: ends are entities, each relation comes once, by head and then tail.

    A token-level model looks at a span once for each label that it might have, as gliner's does: relations come again,
    and a span may be related to itself.
    """
    places = []
    for relation in relations:
        assert list(relation) == ["head", "tail", "relation", "score"]
        for end in (relation["head"], relation["tail"]):
            entity = entities[end["entity_idx"]]
            assert end == {
                "start": entity["start"], "end": entity["end"], "text": entity["text"], "type": entity["label"],
                "entity_idx": end["entity_idx"],
            }  # fmt: skip
            assert text[end["start"] : end["end"]] == end["text"]
        assert type(relation["score"]) is float
        ends = [(end["start"], end["end"]) for end in (relation["head"], relation["tail"])]
        places.append((*ends, RELATIONS.index(relation["relation"])))
    starts = [head[0] for head, *_ in places]
    assert starts == sorted(starts)
    if not model.config.is_token_level:
        assert places == sorted(set(places))
        assert all(head != tail for head, tail, _ in places)


@few_examples
@given(
    kind=st.sampled_from(KINDS),
    chosen=st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=4),
    words=st.sampled_from([16, 24, 60, 384]),
    options=st.sampled_from([{}, {"flat_ner": False}, {"flat_ner": False, "multi_label": True}]),
)
def test_relations_are_between_entities_of_the_whole_text(kind, chosen, words, options, load):
    model, text = load(kind, words), " ".join(chosen)
    asked = {"threshold": 0.4, "adjacency_threshold": 0.3, "relation_threshold": 0.4, **options}
    (entities,), (relations,) = model.inference([text], LABELS[:3], RELATIONS, on_long="window", **asked)
    check_form(model, text, entities, relations)
    alone = model.inference([text], LABELS[:3], RELATIONS, on_long="window", return_relations=False, **asked)
    assert alone == [entities]  # relations change no entity


@pytest.mark.parametrize("kind", KINDS)
def test_relations_of_a_document(kind: str, load: Callable[..., Any]):
    model, text = load(kind), " ".join(BOOKS)[:2500]
    asked = {"threshold": 0.3, "adjacency_threshold": 0.3, "relation_threshold": 0.3}
    entities, relations = model.predict_relations(text, LABELS, RELATIONS, on_long="window", **asked)
    check_form(model, text, entities, relations)
    assert len(relations) > 20
    assert max(relation["tail"]["end"] for relation in relations) > len(text) * 0.8
    farthest = max(abs(relation["head"]["start"] - relation["tail"]["start"]) for relation in relations)
    assert farthest < 500  # no window sees more


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_of_one_window_has_the_same_in_all_ways(kind: str, load: Callable[..., Any]):
    model, texts = load(kind, 60), SENTENCES[:8]
    ways = [
        model.inference(texts, LABELS, RELATIONS, on_long=way, threshold=0.3) for way in ("truncate", "window", "error")
    ]
    assert ways[0] == ways[1] == ways[2]
    assert sum(map(len, ways[0][1])) > 20


def spans_of_words(text: str, model: Any, step: int = 3) -> tuple[list[dict[str, int]], Any]:
    """A span of one word every few words, and the request's rows."""
    prepared = model.predictor().prepare(Request.read([text], LABELS, Options(on_long="window", relations=RELATIONS)))
    words = prepared.words
    spans = [{"start": s, "end": e} for s, e in zip(words.starts.tolist(), words.ends.tolist(), strict=True)]
    return spans[::step], prepared.rows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("words", [16, 30])
def test_each_pair_that_a_window_sees_is_related_where_all_is_asked_for(
    kind: str, words: int, load: Callable[..., Any]
):
    model, text, step = load(kind, words), " ".join(SENTENCES[:6]), 3
    spans, rows = spans_of_words(text, model, step)
    assert len(rows.texts) > 3
    entities, relations = model.predict_relations(
        text, ["person"], RELATIONS, on_long="window", input_spans=[spans], **EVERYTHING
    )
    assert [(entity["start"], entity["end"]) for entity in entities] == [(span["start"], span["end"]) for span in spans]
    check_form(model, text, entities, relations)
    seen = {
        (head, tail)
        for first, last in zip(rows.firsts.tolist(), rows.lasts.tolist(), strict=True)
        for head in range(len(spans))
        for tail in range(len(spans))
        if head != tail and first <= min(head, tail) * step and max(head, tail) * step < last
    }
    found = {(r["head"]["entity_idx"], r["tail"]["entity_idx"], r["relation"]) for r in relations}
    assert {pair for pair in found if pair[0] != pair[1]} == {(*pair, name) for pair in seen for name in RELATIONS}


@pytest.mark.parametrize("kind", KINDS)
def test_results_depend_neither_on_batch_size_nor_on_neighbours(kind: str, load: Callable[..., Any]):
    model, long = load(kind), " ".join(BOOKS)
    texts = [long[:500], CROSSNER[0][:60], long[500:1100], "", long[:500], "Ada lived in London."]
    asked = {"threshold": 0.3, "adjacency_threshold": 0.3, "relation_threshold": 0.3, "on_long": "window"}
    together = model.inference(texts, LABELS, RELATIONS, **asked)
    assert sum(map(len, together[1])) > 20
    assert together[1][0] == together[1][4]
    assert together[1][3] == []
    for batch_size in (1, 3):
        entities, relations = model.inference(texts, LABELS, RELATIONS, batch_size=batch_size, **asked)
        assert_same(entities, together[0])
        assert_same(relations, together[1])
    for text, entities, relations in zip(texts, *together, strict=True):
        alone = model.predict_relations(text, LABELS, RELATIONS, **asked)
        assert_same(alone, (entities, relations))


@pytest.mark.parametrize("kind", ["relex", "relex-triples"])
def test_vectors_are_those_of_the_window_that_tells(kind: str, load: Callable[..., Any]):
    model, text = load(kind), " ".join(BOOKS)[:1200]
    asked = {"threshold": 0.3, "adjacency_threshold": 0.1, "relation_threshold": 0.2, "on_long": "window"}
    _, plain = model.predict_relations(text, LABELS, RELATIONS, **asked)
    entities, relations = model.predict_relations(
        text, LABELS, RELATIONS, **asked, return_vectors=True, return_label_vectors=True
    )
    of_kind = {
        "relex": ["vector", "label_vector"],
        "relex-triples": ["label_vector", "head_relation_vector", "tail_relation_vector"],
    }
    assert plain
    assert [{name: r[name] for name in ("head", "tail", "relation", "score")} for r in relations] == plain
    assert all(list(relation)[4:] == of_kind[kind] for relation in relations)
    assert all({"vector", "label_vector"} <= set(entity) for entity in entities)
    if kind == "relex":
        logits = [float(relation["vector"] @ relation["label_vector"]) for relation in relations]
        scores = [relation["score"] for relation in relations]
        np.testing.assert_allclose(1 / (1 + np.exp(-np.array(logits))), scores, atol=1e-4)


def test_texts_have_relations_and_thresholds_of_their_own_in_windows(load: Callable[..., Any]):
    model, long = load("relex"), " ".join(BOOKS)
    texts, relations = [long[:900], long[900:1800], long[1800:2700]], [RELATIONS[:2], [], RELATIONS[3:]]
    values = {
        "threshold": [0.3, 0.3, 0.2],
        "adjacency_threshold": [0.2, 0.5, 0.4],
        "relation_threshold": [0.1, 0.2, 0.3],
    }
    _, found = model.inference(texts, LABELS, relations, on_long="window", **values)
    assert found[1] == []
    for at in (0, 2):
        own = {name: value[at] for name, value in values.items()}
        assert_same(found[at], model.predict_relations(texts[at], LABELS, relations[at], on_long="window", **own)[1])
        assert {relation["relation"] for relation in found[at]} <= set(relations[at])
        assert min(relation["score"] for relation in found[at]) > values["relation_threshold"][at]
