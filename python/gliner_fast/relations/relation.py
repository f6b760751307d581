"""What the user gets back of a relex model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from typing_extensions import NotRequired, TypedDict

from gliner_fast.entity import Entity

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class RelationEnd(TypedDict):
    """One of the two entities of a relation."""

    start: int
    """First character, in Unicode code points."""
    end: int
    """One past the last character."""
    text: str
    """That slice of the text."""
    type: str
    """The entity's label."""
    entity_idx: int
    """Which of its text's entities it is."""


class Relation(TypedDict):
    """One relation of a text, a plain dict with `gliner`'s keys in `gliner`'s order (compat section 1.5)."""

    head: RelationEnd
    tail: RelationEnd
    relation: str
    """The relation as it was given."""
    score: float
    """Sigmoid of the logit, in [0, 1]."""
    vector: NotRequired[NDArray[np.float32]]
    """Of the pair, (D,); only with `return_vectors=True`, and of models without a `triples_layer`."""
    label_vector: NotRequired[NDArray[np.float32]]
    """Of the relation, (D,); only with `return_label_vectors=True`."""
    head_relation_vector: NotRequired[NDArray[np.float32]]
    """Of the head, (D,); only with `return_vectors=True`, and of models with a `triples_layer`."""
    tail_relation_vector: NotRequired[NDArray[np.float32]]
    """Of the tail, (D,), as that of the head."""


class LinkedEntities(list[Entity]):
    """A text's entities as a plain list has them, with the relations between them.

    A list made of some of them has no relations: those name their ends by the places of entities here (`entity_idx`).

    Attributes:
        relations: of the text.
    """

    relations: list[Relation]

    def __init__(self, entities: list[Entity], relations: list[Relation]) -> None:
        super().__init__(entities)
        self.relations = relations


def relations_of(entities: Sequence[Entity]) -> list[Relation]:
    """The relations between a text's entities; none where none were asked for."""
    return entities.relations if isinstance(entities, LinkedEntities) else []


def end_of(entity: Entity, number: int) -> RelationEnd:
    """An entity as an end of a relation; `number` tells which of its text's entities it is."""
    return {
        "start": entity["start"],
        "end": entity["end"],
        "text": entity["text"],
        "type": entity["label"],
        "entity_idx": number,
    }
