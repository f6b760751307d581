"""Exact-match scores in the plainest way: sets of entities, text by text."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from collections.abc import Set as AbstractSet

from gliner_fast.evaluation.scores import Score, micro


def score_sets(gold: Sequence[AbstractSet[Hashable]], predicted: Sequence[AbstractSet[Hashable]]) -> Score:
    """The micro score of some texts, each with the set of its entities."""
    if len(gold) != len(predicted):
        raise ValueError(f"annotation of {len(gold)} texts, and predictions of {len(predicted)}")
    return micro(
        Score(len(wanted), len(found), len(wanted & found)) for wanted, found in zip(gold, predicted, strict=True)
    )
