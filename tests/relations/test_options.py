"""What is asked of a model that finds relations, in every form, and what is refused with its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gliner_fast import GLiNER
from gliner_fast.labels import LabelSet, plan_labels, with_relations
from gliner_fast.predicting.request import Options, Request
from gliner_fast.relex import RelexGLiNER
from tests.relation_checkpoints import RELATIONS
from tests.relations.answers import assert_same
from tests.samples import CROSSNER, LABELS

TEXTS = [text[:100] for text in CROSSNER[:12]]
ASKED = {"threshold": 0.3, "adjacency_threshold": 0.2, "relation_threshold": 0.3}
TEXT = "Ada Lovelace lived in London."


@pytest.fixture(scope="module")
def model(checkpoint: Callable[[str], Path]) -> RelexGLiNER:
    return GLiNER.from_pretrained(checkpoint("relex"))


@pytest.fixture(scope="module")
def expected(model: RelexGLiNER) -> Any:
    found = model.inference(TEXTS, LABELS, RELATIONS, **ASKED)
    assert sum(map(len, found[1])) > 20
    return found


# --- forms of relations -----------------------------------------------------------------------------------------------


def test_one_relation_may_be_a_string(model: RelexGLiNER):
    found = model.inference(TEXTS, LABELS, RELATIONS[0], **ASKED)
    assert found == model.inference(TEXTS, LABELS, RELATIONS[:1], **ASKED)
    assert {relation["relation"] for own in found[1] for relation in own} == {RELATIONS[0]}


@pytest.mark.parametrize("make", [tuple, np.array])
def test_relations_may_be_any_sequence(make: Callable[..., Any], model: RelexGLiNER, expected: Any):
    assert model.inference(TEXTS, LABELS, make(RELATIONS), **ASKED) == expected


def test_a_relation_that_comes_again_counts_once(model: RelexGLiNER, expected: Any):
    twice = [*RELATIONS[:3], *RELATIONS[:2], *RELATIONS[3:], RELATIONS[0]]
    assert model.inference(TEXTS, LABELS, twice, **ASKED) == expected


def test_relations_that_are_no_strings_are_given_back(model: RelexGLiNER):
    found = model.inference(TEXTS, LABELS, [5, "5 times"], relation_threshold=-1.0)[1]
    assert {type(relation["relation"]) for own in found for relation in own} == {int, str}


@pytest.mark.parametrize("relations", [(), [], None, "", [[]] * len(TEXTS)])
def test_no_relations_are_entities_and_none(relations: Any, model: RelexGLiNER):
    entities, found = model.inference(TEXTS, LABELS, relations, threshold=0.3)
    assert found == [[] for _ in TEXTS]
    assert all(type(own) is list for own in (*entities, *found))
    assert_same(entities, model.inference(TEXTS, LABELS, relations, threshold=0.3, return_relations=False))


def test_texts_have_relations_of_their_own(model: RelexGLiNER):
    relations = [[RELATIONS[at % 8], RELATIONS[(at + 3) % 8]] if at % 3 else [] for at in range(len(TEXTS))]
    found = model.inference(TEXTS, LABELS, relations, **ASKED)
    for text, own, *answer in zip(TEXTS, relations, *found, strict=True):
        assert_same(tuple(answer), model.predict_relations(text, LABELS, own, **ASKED))
    assert any(found[1])


def test_labels_and_relations_of_each_text_s_own(model: RelexGLiNER):
    labels = [LABELS[at % 3 : at % 3 + 3] for at in range(len(TEXTS))]
    relations = [RELATIONS[at % 2 : at % 2 + 4] for at in range(len(TEXTS))]
    found = model.inference(TEXTS, labels, relations, **ASKED)
    for text, types, own, *answer in zip(TEXTS, labels, relations, *found, strict=True):
        assert_same(tuple(answer), model.predict_relations(text, types, own, **ASKED))


def test_labels_with_descriptions(model: RelexGLiNER):
    described = {name: f"any {name}" for name in LABELS}
    entities, relations = model.inference(TEXTS, described, RELATIONS, **ASKED)
    same_entities, same_relations = model.inference(TEXTS, list(described.values()), RELATIONS, **ASKED)
    assert [[e["label"] for e in own] for own in entities] == [[e["label"][4:] for e in own] for own in same_entities]
    ends = [[(r["head"]["type"], r["score"]) for r in own] for own in relations]
    assert ends == [[(r["head"]["type"][4:], r["score"]) for r in own] for own in same_relations]
    assert any(ends)


def test_no_labels_are_nothing(model: RelexGLiNER):
    assert model.inference(TEXTS[:2], [], RELATIONS) == ([[], []], [[], []])
    assert model.predict_relations(TEXT, [], RELATIONS, threshold=-1) == ([], [])
    entities, relations = model.inference(TEXTS[:2], [[], LABELS], RELATIONS, **ASKED)
    assert (entities[0], relations[0]) == ([], [])
    assert entities[1]


def test_one_entity_is_related_to_nothing(model: RelexGLiNER):
    spans = [[{"start": 0, "end": 12}]]
    everything = {"threshold": -1.0, "adjacency_threshold": -1.0, "relation_threshold": -1.0}
    (entity,), relations = model.predict_relations(TEXT, ["person"], RELATIONS, input_spans=spans, **everything)
    assert (entity["text"], relations) == ("Ada Lovelace", [])


# --- texts ------------------------------------------------------------------------------------------------------------


def test_what_is_no_text_has_neither(model: RelexGLiNER):
    with pytest.warns(UserWarning, match=r"text 3 is 5 \(int\): what is no string has no entities"):
        found = model.inference(["", None, TEXTS[0], 5, "\u3000", ["Ada"]], LABELS, RELATIONS, **ASKED)
    assert [(entities, relations) for entities, relations in zip(*found, strict=True) if not entities] == [([], [])] * 5
    assert model.inference([], LABELS, RELATIONS) == ([], [])
    assert model.inference(TEXTS[0], LABELS, RELATIONS, **ASKED)[0] == [found[0][2]]


def test_lone_surrogates_are_read_as_the_replacement_character(model: RelexGLiNER):
    text, relations, everything = "Ada \ud800 lived in \udcff.", ["lived\ud800 in"], {"relation_threshold": -1.0}
    clean = model.predict_relations(
        "Ada \ufffd lived in \ufffd.", LABELS, ["lived\ufffd in"], threshold=0.1, **everything
    )
    found = model.predict_relations(text, LABELS, relations, threshold=0.1, **everything)
    assert [relation["score"] for relation in found[1]] == [relation["score"] for relation in clean[1]]
    assert {relation["relation"] for relation in found[1]} <= set(relations)
    assert all(text[entity["start"] : entity["end"]] == entity["text"] for entity in found[0])


def test_results_of_equal_texts_share_nothing(model: RelexGLiNER):
    texts = [TEXTS[0], TEXTS[1], TEXTS[0]]
    entities, relations = model.inference(texts, LABELS, RELATIONS, **ASKED, return_vectors=True)
    assert relations[0]
    assert_same(relations[2], relations[0])
    kept = [relation["head"]["text"] for relation in relations[2]]
    for relation in relations[0]:
        relation["head"]["text"] = "changed"
        relation["vector"][:] = 7
    entities[0].clear()
    relations[0].clear()
    assert [relation["head"]["text"] for relation in relations[2]] == kept
    assert not any((relation["vector"] == 7).all() for relation in relations[2])
    assert entities[2]


def test_relations_change_nothing_of_an_entity(model: RelexGLiNER, expected: Any):
    alone = model.inference(TEXTS, LABELS, RELATIONS, **ASKED, return_relations=False)
    assert alone == expected[0]
    assert_same(model.predict_entities(TEXTS[0], LABELS, RELATIONS, threshold=0.3), expected[0][0])
    with pytest.warns(FutureWarning, match="batch_predict_entities is deprecated"):
        assert model.batch_predict_entities(TEXTS, LABELS, relations=RELATIONS, **ASKED) == expected


# --- thresholds -------------------------------------------------------------------------------------------------------


def test_thresholds_of_relations_are_those_of_entities_unless_given(model: RelexGLiNER):
    for threshold, default in ((0.3, 0.3), (dict.fromkeys(LABELS, 0.3), 0.5)):
        given = {"adjacency_threshold": default, "relation_threshold": default}
        found = model.inference(TEXTS, LABELS, RELATIONS, threshold=threshold)
        assert found == model.inference(TEXTS, LABELS, RELATIONS, threshold=threshold, **given)
        assert any(found[1])


def test_each_relation_may_have_a_threshold_of_its_own(model: RelexGLiNER):
    options = {"threshold": 0.3, "adjacency_threshold": 0.2}
    everything = model.inference(TEXTS, LABELS, RELATIONS, **options, relation_threshold=-1.0)[1]
    thresholds = {name: at / 10 for at, name in enumerate(RELATIONS)}
    found = model.inference(TEXTS, LABELS, RELATIONS, **options, relation_threshold=thresholds)[1]
    assert found == [[r for r in own if r["score"] > thresholds[r["relation"]]] for own in everything]
    assert 0 < sum(map(len, found)) < sum(map(len, everything))
    of_texts = [RELATIONS[:2], RELATIONS[2:]] * 6
    found = model.inference(TEXTS, LABELS, of_texts, **options, relation_threshold=thresholds)[1]
    assert all(r["score"] > thresholds[r["relation"]] for own in found for r in own)


@pytest.mark.parametrize("name", ["threshold", "adjacency_threshold", "relation_threshold"])
def test_each_text_may_have_a_threshold_of_its_own(name: str, model: RelexGLiNER):
    values = [0.2 + 0.05 * at for at in range(len(TEXTS))]
    for given in (values, np.array(values)):
        found = model.inference(TEXTS, LABELS, RELATIONS, **{**ASKED, name: given})
        for text, value, *answer in zip(TEXTS, values, *found, strict=True):
            assert_same(tuple(answer), model.predict_relations(text, LABELS, RELATIONS, **{**ASKED, name: value}))
    equal_texts = model.inference([TEXTS[0]] * 2, LABELS, RELATIONS, **{**ASKED, name: [0.3, 2.0]})
    assert equal_texts[1][1] == []
    assert equal_texts[1][0]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"relations": {"works for": "is employed by"}},
            TypeError,
            r"relations is \{.*\(dict\): expected strings such",
        ),
        ({"relations": {"works for"}}, TypeError, r"relations is \{'works for'\} \(set\): expected strings"),
        ({"relations": 5}, TypeError, r"relations is 5 \(int\): expected strings"),
        ({"relations": b"works for"}, TypeError, r"relations is b'works for' \(bytes\): expected strings"),
        (
            {"relations": [("works for", "born in")]},
            TypeError,
            r"relations is \[\('works for', .*\(list\): expected strings",
        ),
        (
            {"relations": ["works for", None]},
            TypeError,
            r"relations is \['works for', None\] \(list\): expected strings",
        ),
        ({"relations": [{"works for"}]}, TypeError, r"relations is \[\{'works for'\}\] \(list\): expected strings"),
        ({"relations": ["works for", ["born in"]]}, TypeError, r"relations is \['works for', .*\(list\): expected"),
        ({"relations": [["born in"], {"a": "b"}]}, TypeError, r"relations is \{'a': 'b'\} \(dict\): expected strings"),
        ({"relations": [["born in"], 5]}, TypeError, r"relations is 5 \(int\): expected"),
        ({"relations": (name for name in "ab")}, TypeError, "relations is a generator: expected"),
        ({"relations": [["born in"]]}, ValueError, "Per-text relations must have length 2, got 1"),
        ({"adjacency_threshold": "high"}, TypeError, r"adjacency_threshold is 'high' \(str\): expected a number"),
        ({"adjacency_threshold": {"born in": 0.5}}, TypeError, "adjacency_threshold is a mapping: expected a number"),
        ({"adjacency_threshold": [0.5]}, ValueError, "adjacency_threshold must have length 2"),
        ({"adjacency_threshold": float("nan")}, ValueError, "adjacency_threshold is NaN"),
        ({"relation_threshold": [0.5, None]}, TypeError, r"relation_threshold\[1\] is None"),
        ({"relation_threshold": [0.5] * 3}, ValueError, "relation_threshold must have length 2"),
        ({"relation_threshold": float("nan")}, ValueError, "relation_threshold is NaN"),
        ({"relation_threshold": {"works for": "x"}}, TypeError, r"relation_threshold\['works for'\] is 'x'"),
        ({"relation_threshold": {"works": 0.5}}, ValueError, "relation_threshold has no value for .* 'works for'"),
        ({"relations": [], "adjacency_threshold": [0.5]}, ValueError, "adjacency_threshold must have length 2"),
        ({"relations": [], "relation_threshold": "high"}, TypeError, "relation_threshold is 'high'"),
        ({"texts": 5}, TypeError, "texts is a int: expected a list of strings"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_computed(
    options: dict[str, Any],
    error: type[Exception],
    message: str,
    model: RelexGLiNER,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(model.model, "forward", None)
    asked = {"texts": TEXTS[:2], "labels": LABELS, "relations": ["works for"], **options}
    with pytest.raises(error, match=message):
        model.inference(**asked)


def test_relations_that_were_asked_for_are_returned(model: RelexGLiNER):
    with pytest.raises(TypeError, match="return_relations"):
        model.predict_relations(TEXT, LABELS, RELATIONS, return_relations=False)


@pytest.mark.parametrize(("asked", "told"), [(RELATIONS, True), ([], False)])
def test_where_a_text_does_not_fit_the_thresholds_help_if_relations_are_looked_for(
    asked: list[str], told: bool, model: RelexGLiNER, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any) -> None:
        raise MemoryError("Unable to allocate 2.00 GiB for an array")

    monkeypatch.setattr(model.model, "forward", fail)
    with pytest.raises(MemoryError, match="does not fit into memory: ask for fewer labels") as raised:
        model.inference([TEXT], LABELS, asked)
    assert ("raise threshold or adjacency_threshold" in str(raised.value)) == told


def test_it_takes_no_vectors_of_labels(model: RelexGLiNER):
    for name in ("encode_labels", "predict_with_embeds", "batch_predict_with_embeds"):
        with pytest.raises(AttributeError, match="the model is no bi-encoder"):
            getattr(model, name)


# --- requests ---------------------------------------------------------------------------------------------------------


def test_label_sets_are_shared_by_texts_that_ask_for_the_same():
    plan = with_relations(plan_labels([["a"], ["a"], ["b"], ["a"]], 4), [["r"], ["r"], ["r"], []], 4)
    relation = LabelSet.read(["r"])
    wanted = [LabelSet(("a",), ("a",), relation), LabelSet(("b",), ("b",), relation), LabelSet(("a",), ("a",), None)]
    assert list(plan.sets) == wanted
    assert plan.set_of_text.tolist() == [0, 0, 1, 2]


def test_parts_of_a_request_have_their_own_thresholds():
    options = Options(
        relations=[["r"], [], ["s"]], adjacency_threshold=[0.1, 0.2, 0.3], relation_threshold=[0.4, 0.5, 0.6]
    )
    request = Request.read(["one", "two", "three"], ["a"], options)
    first, second = request.parts(2, 10**6)
    assert (first.options.adjacency_threshold, second.options.adjacency_threshold) == ([0.1, 0.2], [0.3])
    assert (first.options.relation_threshold, second.options.relation_threshold) == ([0.4, 0.5], [0.6])
    asked = [part.labels.sets[index].relations for part in (first, second) for index in part.labels.set_of_text]
    assert asked == [LabelSet.read(["r"]), None, LabelSet.read(["s"])]
