"""Exact-match scores: an entity counts as found where label, first and last word agree (compat section 7.5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add


@dataclass(frozen=True)
class Score:
    """Counts of entities and what follows of them; scores add up to micro averages.

    Attributes:
        gold: annotated entities.
        predicted: predicted entities.
        hits: those that are both.
    """

    gold: int = 0
    predicted: int = 0
    hits: int = 0

    def __add__(self, other: Score) -> Score:
        return Score(self.gold + other.gold, self.predicted + other.predicted, self.hits + other.hits)

    @property
    def precision(self) -> float:
        """Share of the predicted entities that are annotated, in [0, 1]; 0 where none is predicted."""
        return self.hits / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of the annotated entities that are predicted, in [0, 1]; 0 where none is annotated."""
        return self.hits / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, in [0, 1]; 0 where nothing is predicted and nothing annotated."""
        return 2 * self.hits / (self.gold + self.predicted) if self.gold + self.predicted else 0.0

    def to_dict(self) -> dict[str, float]:
        """Counts, and the rates in percent, ready for JSON."""
        rates = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {name: round(100 * rate, 3) for name, rate in rates.items()} | {
            "gold": self.gold,
            "predicted": self.predicted,
            "hits": self.hits,
        }


def micro(scores: Iterable[Score]) -> Score:
    """All counts together."""
    return reduce(add, scores, Score())


def macro_f1(scores: Mapping[str, Score]) -> float:
    """The mean F1 of the labels that are annotated or predicted at all, in [0, 1]; 0 where there are none."""
    met = [score.f1 for score in scores.values() if score.gold or score.predicted]
    return sum(met) / len(met) if met else 0.0
