"""Relations of long texts: each window tells of some, and the text keeps those between its entities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gliner_fast.predicting.describing import Findings
from gliner_fast.predicting.linking import FoundRelations, describe_relations
from gliner_fast.scoring.candidates import Candidates

if TYPE_CHECKING:
    from gliner_fast.entity import Entity
    from gliner_fast.predicting.preparing import Prepared
    from gliner_fast.relations.relation import Relation


@dataclass(frozen=True)
class WindowRelations:
    """Relations that windows of long texts found, between spans of which not all become entities of the text.

    Attributes:
        texts: (F,) places in `Prepared.texts`.
        ends: (F, 4) first word and one past the last of head and tail, counted in the text.
        found: the others; `rows`, `heads` and `tails` are of no use.
    """

    texts: NDArray[np.int64]
    ends: NDArray[np.int64]
    found: FoundRelations


def of_windows(
    prepared: Prepared, rows: NDArray[np.int64], found: FoundRelations, entities: Candidates
) -> WindowRelations:
    """The relations that windows are to tell: of two spans that several windows see, one of these tells.

    It is the one that owns the head, or else the tail, or else the first.

    Args:
        prepared: the texts.
        rows: (B,) of the batch.
        found: by the batch's windows, each for itself.
        entities: the spans that `found` is of.
    """
    all_rows = prepared.rows
    own_rows = rows[found.rows]  # (F,)
    shift = all_rows.firsts[own_rows]
    head_starts, head_ends = entities.starts[found.heads] + shift, entities.ends[found.heads] + shift
    tail_starts, tail_ends = entities.starts[found.tails] + shift, entities.ends[found.tails] + shift
    firsts, lasts = np.minimum(head_starts, tail_starts), np.maximum(head_ends, tail_ends)
    texts = all_rows.texts[own_rows]
    tellers = np.array(
        [
            _teller(prepared, text, head, tail, first, last)
            for text, head, tail, first, last in zip(
                *(values.tolist() for values in (texts, head_starts, tail_starts, firsts, lasts)), strict=True
            )
        ],
        np.int64,
    )
    tells = tellers == own_rows
    ends = np.stack([head_starts, head_ends, tail_starts, tail_ends], axis=1)
    return WindowRelations(texts[tells], ends[tells], found.take(tells))


def _teller(prepared: Prepared, text: int, head: int, tail: int, first: int, last: int) -> int:
    """The row that tells of spans that start at two words, all between `first` and `last` being theirs."""
    rows = prepared.rows
    begin, end = np.searchsorted(rows.texts, [text, text + 1])
    for word in (head, tail):
        owner = begin + int(np.searchsorted(rows.owned_lasts[begin:end], word, "right"))
        if rows.firsts[owner] <= first and last <= rows.lasts[owner]:
            return int(owner)
    return int(begin + np.searchsorted(rows.lasts[begin:end], last, "left"))


def link_windows(
    prepared: Prepared, parts: Sequence[WindowRelations], kept: Findings, entities: list[Entity]
) -> tuple[NDArray[np.int64], list[Relation]]:
    """The relations of long texts between what became their entities, with the text of each.

    Args:
        prepared: the texts.
        parts: what windows tell.
        kept: the entities of long texts, by text, in reading order.
        entities: these, described.
    """
    parts = [part for part in parts if len(part.texts)]
    if not parts:
        return np.zeros(0, np.int64), []
    texts, ends = np.concatenate([part.texts for part in parts]), np.concatenate([part.ends for part in parts])
    number_of = {
        key: number
        for number, key in reversed(
            list(enumerate(zip(kept.texts.tolist(), kept.starts.tolist(), kept.ends.tolist(), strict=True)))
        )
    }
    heads, tails = (
        np.array([number_of.get((text, *pair), -1) for text, pair in zip(texts.tolist(), own.tolist(), strict=True)])
        for own in (ends[:, :2], ends[:, 2:])
    )
    found = FoundRelations(
        texts,
        heads,
        tails,
        np.concatenate([part.found.classes for part in parts]),
        np.concatenate([part.found.scores for part in parts]),
        {name: np.concatenate([p.found.vectors[name] for p in parts]) for name in parts[0].found.vectors},
    )
    chosen = np.flatnonzero((heads >= 0) & (tails >= 0))
    columns = (found.classes, *ends.T[::-1], texts)  # the last is looked at first
    chosen = chosen[np.lexsort([column[chosen] for column in columns])]
    found = found.take(chosen)
    firsts = np.searchsorted(kept.texts, found.rows)
    return found.rows, describe_relations(prepared, found.rows, firsts, found, entities)
