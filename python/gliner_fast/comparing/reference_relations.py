"""What the installed `gliner` answers where relations are asked for, and what it scores before it decides."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gliner_fast.comparing.reference_candidates import (
    is_break_down,
    labels_of_text,
    read_by_reference,
    run_reference,
)
from gliner_fast.errors import reason_of

if TYPE_CHECKING:
    from gliner_fast.entity import Entity
    from gliner_fast.relations.relation import Relation

Ends = tuple[int, int]
"""Start and end of an entity."""
RelationKey = tuple[Ends, Ends, Any]
"""Head, tail and name: what makes two relations the same one."""
_SECONDS_OF_SILENCE = 5


@dataclass(frozen=True)
class LinkedAnswers:
    """Answers to texts.

    Attributes:
        entities: of each text.
        relations: of each text.
        failed: indices of texts that have no answer: both are empty there.
    """

    entities: Sequence[Sequence[Entity]]
    relations: Sequence[Sequence[Relation]]
    failed: tuple[int, ...] = ()


@dataclass(frozen=True)
class ScoredRelation:
    """A relation between two candidate entities that the reference scored."""

    key: RelationKey
    score: float


def ask_for_relations(
    reference: Any, texts: Sequence[str], labels: Any, relations: Any, tell: Callable[[str], None], **options: Any
) -> LinkedAnswers:
    """What a loaded `gliner` model finds in each text alone.

    Alone, since beside texts with more labels token-level models relate what no label of the text marks; and since
    attention breaks down where no span is a candidate, and takes the whole batch with it.
    """
    entities: list[list[Entity]] = []
    linked: list[list[Relation]] = []
    failed: list[int] = []
    told = time.monotonic()
    for index, text in enumerate(texts):
        asked = labels_of_text(labels, index), labels_of_text(relations, index)
        try:
            ((own,), (own_relations,)) = reference.inference([text], *asked, **options)
        except (AttributeError, RuntimeError) as error:
            if not is_break_down(reference, error):
                raise
            if not failed:
                tell(f"gliner failed on text {index}: {reason_of(error)}")
            own, own_relations = [], []
            failed.append(index)
        entities.append(own)
        linked.append(own_relations)
        if time.monotonic() - told > _SECONDS_OF_SILENCE:
            told = time.monotonic()
            tell(f"gliner: {index + 1:,} of {len(texts):,} texts")
    return LinkedAnswers(entities, linked, tuple(failed))


def find_reference_relations(
    reference: Any,
    text: str,
    labels: Any,
    relations: Any,
    *,
    threshold: float,
    adjacency_threshold: float,
    between: Collection[Ends],
) -> list[ScoredRelation]:
    """Returns what a loaded `gliner` model scores of one text before it decides, in its order.

    Args:
        reference: the model.
        text: one.
        labels: entity types.
        relations: kinds of relations.
        threshold: spans that score above it may be ends of relations, whether or not they survive as entities.
        adjacency_threshold: of their pairs, those whose link scores above it are scored. A model without links scores
            all pairs.
        between: which ends are of interest; of a random model nearly all spans may be some.
    """
    read = read_by_reference(reference, text, labels, relations) if relations else None
    if read is None:
        return []
    prepared, batch = read
    output = run_reference(reference, batch, threshold=threshold, adjacency_threshold=adjacency_threshold)
    if output is None:
        return []
    names = batch["rel_id_to_classes"]
    names = names[0] if isinstance(names, list) else names
    starts, ends = prepared["start_token_map"][0], prepared["end_token_map"][0]
    spans = [(starts[first], ends[last]) for first, last in output.entity_spans[0].tolist()]
    is_asked = np.array([span in between for span in spans], bool)  # (E,)
    pairs = output.rel_idx[0].cpu().numpy()  # (P, 2)
    chosen = np.flatnonzero(output.rel_mask[0].cpu().numpy())
    chosen = chosen[is_asked[pairs[chosen]].all(1)]
    scores = output.rel_logits[0].sigmoid().float().cpu().numpy()[chosen]  # (N, C)
    return [
        ScoredRelation((spans[head], spans[tail], names[class_ + 1]), score)
        for (head, tail), of_pair in zip(pairs[chosen].tolist(), scores.tolist(), strict=True)
        for class_, score in enumerate(of_pair)
        if class_ + 1 in names  # gliner counts from 1
    ]


def ends_of(entities: Sequence[Entity]) -> set[Ends]:
    """Where entities stand."""
    return {(entity["start"], entity["end"]) for entity in entities}


def key_of(relation: Relation) -> RelationKey:
    """What makes it the same as another."""
    head, tail = relation["head"], relation["tail"]
    return (head["start"], head["end"]), (tail["start"], tail["end"]), relation["relation"]
