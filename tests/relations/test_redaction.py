"""Relations of redacted texts: their ends are what stands in the new text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliner_fast.entity import Entity
from gliner_fast.redaction import Redaction, redact
from gliner_fast.relations.relation import Relation, end_of
from tests.reference.examples import examples
from tests.test_redaction import REDACTED, REDACTIONS, entity, find, texts_with_entities


def relate(entities: list[Entity], *found: tuple[int, str, int, float]) -> list[Relation]:
    """Relations from (head, relation, tail, score)."""
    return [
        {
            "head": end_of(entities[head], head),
            "tail": end_of(entities[tail], tail),
            "relation": relation,
            "score": score,
        }
        for head, relation, tail, score in found
    ]


def links(relations: list[Relation]) -> list[tuple[int, str, int, float]]:
    """What `relate` is given."""
    return [(one["head"]["entity_idx"], one["relation"], one["tail"]["entity_idx"], one["score"]) for one in relations]


def test_the_ends_of_relations_are_what_replaces_their_entities():
    text = "Ada met Bob in Rome"
    entities = find(text, ("Rome", "city"), ("Ada", "person"), ("Bob", "person"))  # in any order
    relations = relate(entities, (2, "was in", 0, 0.25), (1, "met", 2, 0.75), (1, "knows", 2, 0.5))
    given = json.dumps(relations)
    redacted = redact(text, entities, relations, template="{LABEL}{number}")
    assert redacted.text == "PERSON1 met PERSON2 in CITY1"
    ada = {"start": 0, "end": 7, "text": "PERSON1", "type": "person", "entity_idx": 0}
    bob = {"start": 12, "end": 19, "text": "PERSON2", "type": "person", "entity_idx": 1}
    rome = {"start": 23, "end": 28, "text": "CITY1", "type": "city", "entity_idx": 2}
    assert redacted.relations == [
        {"head": ada, "tail": bob, "relation": "met", "score": 0.75},
        {"head": ada, "tail": bob, "relation": "knows", "score": 0.5},
        {"head": bob, "tail": rome, "relation": "was in", "score": 0.25},
    ]
    assert json.dumps(relations) == given
    assert redact(text, entities).relations == []


# Entities as (start, end), relations between them, and those between what replaces them, of a text of 10 characters.
RELINKED: dict[str, tuple[list[tuple[int, int]], list[tuple[int, str, int, float]], list[tuple[int, str, int, float]]]]
RELINKED = {
    "none": ([(0, 3)], [], []),
    "both ends became one": ([(0, 6), (4, 6), (8, 9)], [(0, "in", 1, 0.9), (1, "in", 2, 0.5)], [(0, "in", 1, 0.5)]),
    "alike, the best score": ([(0, 6), (4, 6), (8, 9)], [(0, "in", 2, 0.5), (1, "in", 2, 0.9)], [(0, "in", 1, 0.9)]),
    "alike, the best first": ([(0, 6), (4, 6), (8, 9)], [(0, "in", 2, 0.9), (1, "in", 2, 0.5)], [(0, "in", 1, 0.9)]),
    "another way round": (
        [(0, 2), (3, 5)],
        [(0, "in", 1, 0.5), (1, "in", 0, 0.9)],
        [(0, "in", 1, 0.5), (1, "in", 0, 0.9)],
    ),
    "by head and then tail": (
        [(0, 3), (2, 4), (5, 6), (7, 8)],
        [(0, "b", 3, 0.5), (0, "a", 3, 0.5), (1, "b", 2, 0.5)],
        [(0, "b", 1, 0.5), (0, "b", 2, 0.5), (0, "a", 2, 0.5)],
    ),
    "touching": ([(0, 2), (2, 4)], [(0, "in", 1, 0.5)], [(0, "in", 1, 0.5)]),
}


@pytest.mark.parametrize("case", RELINKED)
@pytest.mark.parametrize("redaction", REDACTIONS, ids=repr)
def test_relations_follow_entities_that_become_one(redaction: Redaction, case: str):
    spans, given, expected = RELINKED[case]
    entities = [entity("abcdefghij", *span) for span in spans]
    assert links(redaction.apply("abcdefghij", entities, relate(entities, *given)).relations) == expected


@pytest.mark.parametrize("kept", [[0], [1, 0], []])
def test_a_relation_of_entities_that_are_not_there_is_named(kept: list[int]):
    entities = [entity("Ada Bob", 0, 3), entity("Ada Bob", 4, 7)]
    relations = relate(entities, (0, "met", 1, 0.5))
    with pytest.raises(ValueError, match=r"relations\[0\]\['(head|tail)'\] is entity \d at .*, which is not among the"):
        redact("Ada Bob", [entities[number] for number in kept], relations)


def test_an_entity_that_only_begins_as_an_end_does_is_another():
    entities = [entity("Ada Bob", 0, 3), entity("Ada Bob", 4, 7)]
    relations = relate([entity("Ada Bob", 0, 7), entities[1]], (0, "met", 1, 0.5))
    with pytest.raises(ValueError, match=r"relations\[0\]\['head'\] is entity 0 at 0\.\.7, which is not among the"):
        redact("Ada Bob", entities, relations)


def test_the_number_of_an_end_counts_from_the_first_entity():
    entities = [entity("Ada Bob", 0, 3), entity("Ada Bob", 4, 7)]
    (relation,) = relate(entities, (0, "met", 1, 0.5))
    relation["tail"]["entity_idx"] = -1
    with pytest.raises(ValueError, match=r"relations\[0\]\['tail'\] is entity -1 at 4\.\.7, which is not among the"):
        redact("Ada Bob", entities, [relation])


def test_vectors_do_not_leave_with_the_relations():
    entities = [entity("Ada Bob", 0, 3), entity("Ada Bob", 4, 7)]
    (found,) = relate(entities, (0, "met", 1, 0.5))
    with_vector: Any = found | {"vector": [1.0], "label_vector": [1.0]}
    assert set(redact("Ada Bob", entities, [with_vector]).relations[0]) == {"head", "tail", "relation", "score"}


@REDACTED
@examples
@given(example=texts_with_entities(), data=st.data())
def test_ends_of_relations_are_entities_of_the_new_text(
    redaction: Redaction, example: tuple[str, list[Entity]], data: st.DataObject
):
    text, entities = example
    numbers = st.integers(0, len(entities) - 1)
    found = data.draw(st.lists(st.tuples(numbers, st.sampled_from("xy"), numbers, st.just(0.5)))) if entities else []
    redacted = redaction.apply(text, entities, relate(entities, *found))
    for relation in redacted.relations:
        head, tail = relation["head"], relation["tail"]
        assert head["entity_idx"] != tail["entity_idx"]
        assert [end_of(redacted.entities[end["entity_idx"]], end["entity_idx"]) for end in (head, tail)] == [head, tail]

    def became(number: int) -> int:
        start = entities[number]["start"]
        return next(index for index, (first, end) in enumerate(redacted.ranges) if first <= start < end)

    told = {(became(head), name, became(tail)) for head, name, tail, _ in found}
    assert {link[:3] for link in links(redacted.relations)} == {(h, name, t) for h, name, t in told if h != t}
    ends = [link[0:3:2] for link in links(redacted.relations)]
    assert ends == sorted(ends)
