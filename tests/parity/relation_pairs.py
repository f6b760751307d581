"""The comparison of what ours and gliner answer where relations are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

from gliner_fast.comparing.reference_candidates import find_reference_candidates, labels_of_text
from gliner_fast.comparing.verification import TOLERANCE, compare
from tests.parity.pairs import Pair

_ENDS = ("start", "end", "text", "type", "entity_idx")
_VECTORS = ("vector", "label_vector", "head_relation_vector", "tail_relation_vector")
_OF_TEXTS = ("threshold", "adjacency_threshold", "relation_threshold", "flat_ner", "multi_label")


def check_relations(both: Pair, texts: list[str], labels: Any, relations: Any, **options: Any) -> tuple[int, int]:
    """Asserts that both find the same entities and relations, and returns how many of each.

    gliner reads one text at a time: beside others its answers depend on their labels (compat section 9). Texts on which
    it breaks down are not compared, but may have no relations with ours. Rounding may tip a score over a threshold; so
    what one found and the other did not has to be found with thresholds moved by the tolerance.
    """
    entities, found = both.ours.inference(texts, labels, relations, **options)
    assert len(entities) == len(found) == len(texts)
    counts = [0, 0]
    for index, text in enumerate(texts):
        own = _of_text(options, index)
        asked = relations[index] if relations and isinstance(relations[0], list) else relations
        own_labels = labels_of_text(labels, index)
        try:
            their_entities, theirs = both.reference.inference([text], own_labels, asked, **own)
        except (AttributeError, RuntimeError):  # attention among no candidates
            assert not found[index]
            continue
        _check_entities(both, text, own_labels, asked, entities[index], their_entities[0], own)
        _check_relations(entities[index], found[index], theirs[0])
        differing = _keys(found[index]) ^ _keys(theirs[0])
        if differing:
            base = own.get("threshold", 0.5)
            moved = {
                name: (base if own.get(name) is None else own[name]) - TOLERANCE
                for name in ("adjacency_threshold", "relation_threshold")
            }
            mine = _keys(both.ours.inference([text], own_labels, asked, **(own | moved))[1][0])
            their = _keys(both.reference.inference([text], own_labels, asked, **(own | moved))[1][0])
            assert differing <= mine & their, f"{text!r} with {options}: {differing}"
        counts[0] += len(their_entities[0])
        counts[1] += len(theirs[0])
    return counts[0], counts[1]


def _of_text(options: dict[str, Any], index: int) -> dict[str, Any]:
    """Options of one text; those with one value a text have this one's."""
    own = {
        name: value[index] if name in _OF_TEXTS and isinstance(value, list) else value
        for name, value in options.items()
    }
    if own.get("input_spans") is not None:
        own["input_spans"] = [own["input_spans"][index]]
    return own


def _check_entities(
    both: Pair, text: str, labels: Any, relations: Any, mine: list[Any], theirs: list[Any], own: dict[str, Any]
) -> None:
    settings = {name: own[name] for name in ("threshold", "flat_ner", "multi_label") if name in own}

    def candidates(_: int) -> Any:
        floor = own.get("threshold", 0.5) - TOLERANCE
        return find_reference_candidates(both.reference, text, labels, floor=floor, relations=relations)

    report = compare([mine], [theirs], candidates, **settings)
    assert report.ok, f"{text!r}\n{report}"


def _keys(relations: list[Any]) -> set[Any]:
    return {_key(relation) for relation in relations}


def _key(relation: Any) -> Any:
    ends = [relation[end][name] for end in ("head", "tail") for name in ("start", "end")]
    return (*ends, relation["relation"])


def _check_relations(entities: list[Any], mine: list[Any], theirs: list[Any]) -> None:
    """Asserts that the same relations come in the same order and form."""
    for relation in mine:
        for end in (relation["head"], relation["tail"]):
            entity = entities[end["entity_idx"]]
            assert [end[name] for name in _ENDS[:3]] == [entity[name] for name in _ENDS[:3]]
            assert end["type"] == entity["label"]
    common = _keys(mine) & _keys(theirs)
    for ours, their in zip(
        (relation for relation in mine if _key(relation) in common),
        (relation for relation in theirs if _key(relation) in common),
        strict=True,
    ):
        assert type(ours) is dict
        assert list(ours) == list(their)
        assert _key(ours) == _key(their)
        assert {name: type(value) for name, value in ours.items()} == {n: type(value) for n, value in their.items()}
        assert abs(ours["score"] - their["score"]) <= TOLERANCE
        for end in ("head", "tail"):
            assert list(ours[end]) == list(their[end]) == list(_ENDS)
            assert ours[end]["text"] == their[end]["text"]
        for name in _VECTORS:
            if name in their:
                assert ours[name].dtype == their[name].dtype == np.float32
                assert ours[name].shape == their[name].shape
                assert np.abs(ours[name] - their[name]).max() <= TOLERANCE * max(1.0, np.abs(their[name]).max())
