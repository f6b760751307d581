"""Annotated sentences -> the threshold, and the threshold of each label, at which micro F1 is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gliner_fast.annotated.example import Example
from gliner_fast.errors import count
from gliner_fast.evaluation.results import AskedLabels, score_for
from gliner_fast.evaluation.scored_examples import LabelThresholds, ScoredExamples
from gliner_fast.evaluation.scores import Score, micro

if TYPE_CHECKING:
    from gliner_fast.model import GLiNER

GRID = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Thresholds that are tried: 0.05, 0.1, ... 0.95."""

_USUAL = 0.5
_MOST_ROUNDS = 3


@dataclass(frozen=True)
class Choice:
    """Chosen thresholds, and micro scores at them.

    Attributes:
        threshold: for all labels, or for each.
        same: on the sentences that it was chosen by, which flatters it.
        held_out: on sentences that it was not chosen by: each half with what the other half chooses.
    """

    threshold: LabelThresholds
    same: Score
    held_out: Score

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        threshold = dict(self.threshold) if isinstance(self.threshold, Mapping) else self.threshold
        return {"threshold": threshold, "same": self.same.to_dict(), "held_out": self.held_out.to_dict()}


@dataclass(frozen=True)
class Calibration:
    """What some annotated sentences say about thresholds.

    Attributes:
        usual: the default, 0.5, for comparison.
        overall: the best one for all labels.
        per_label: the best one for each.
    """

    usual: Choice
    overall: Choice
    per_label: Choice

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "objective": "micro F1",
            "usual": self.usual.to_dict(),
            "overall": self.overall.to_dict(),
            "per_label": self.per_label.to_dict(),
        }

    def labels_file(self, descriptions: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """What `--labels-file` reads: labels with their thresholds, and with their descriptions if they have any."""
        assert isinstance(self.per_label.threshold, Mapping), "calibrate makes a mapping"
        return {
            label: ({"description": descriptions[label]} if label in descriptions else {}) | {"threshold": value}
            for label, value in self.per_label.threshold.items()
        }


@dataclass(frozen=True)
class _Objective:
    """Micro scores of scored sentences at any threshold."""

    scored: ScoredExamples
    flat_ner: bool
    multi_label: bool

    def __call__(self, threshold: LabelThresholds) -> Score:
        return micro(self.scored.scores_at(threshold, flat_ner=self.flat_ner, multi_label=self.multi_label).values())

    def half(self, which: int) -> _Objective:
        """Every other sentence, from the first or the second on: files are often sorted."""
        chosen = np.arange(len(self.scored.word_counts)) % 2 == which
        return _Objective(self.scored.part(chosen), self.flat_ner, self.multi_label)


def calibrate(
    model: GLiNER,
    examples: Sequence[Example],
    labels: AskedLabels | None = None,
    *,
    flat_ner: bool = True,
    multi_label: bool = False,
    min_entities: int = 10,
) -> Calibration:
    """Chooses thresholds by micro F1, and says what they are worth on sentences that did not choose them.

    The overall threshold is the best of `GRID`. From there one label after another, the commonest first, takes the
    value of `GRID` that is best while the others stay, until none moves any more, three rounds at most.

    Args:
        model: the model.
        examples: annotated sentences, two at least; the more the better.
        labels: as for `evaluate`.
        flat_ner: as for `evaluate`; thresholds hold for the way of decoding that they were chosen for.
        multi_label: likewise.
        min_entities: labels that are annotated less often keep the overall threshold.

    Raises:
        ValueError: fewer than two sentences.
    """
    if len(examples) < 2:
        raise ValueError(
            f"{count('annotated sentence', len(examples))}: calibration takes two at least, better some hundreds"
        )
    scored = score_for(model, examples, labels, floor=GRID[0])
    return choose_thresholds(scored, flat_ner=flat_ner, multi_label=multi_label, min_entities=min_entities)


def choose_thresholds(scored: ScoredExamples, *, flat_ner: bool, multi_label: bool, min_entities: int) -> Calibration:
    """Chooses thresholds for sentences that are scored already; see `calibrate`."""
    whole = _Objective(scored, flat_ner, multi_label)
    halves = [whole.half(0), whole.half(1)]
    crossed = [(chooser, judge) for chooser, judge in zip(halves, reversed(halves), strict=True)]
    overall = _best_overall(whole)
    overall_of_half = [_best_overall(chooser) for chooser in halves]
    per_label = _best_per_label(whole, overall, min_entities)
    per_label_of_half = [
        _best_per_label(chooser, start, min_entities / 2)
        for chooser, start in zip(halves, overall_of_half, strict=True)
    ]
    usual = whole(_USUAL)
    return Calibration(
        Choice(_USUAL, usual, usual),
        Choice(
            overall, whole(overall), micro(judge(t) for (_, judge), t in zip(crossed, overall_of_half, strict=True))
        ),
        Choice(
            per_label,
            whole(per_label),
            micro(judge(t) for (_, judge), t in zip(crossed, per_label_of_half, strict=True)),
        ),
    )


def _best_overall(objective: _Objective) -> float:
    """The value of the grid with the best micro F1; of equal ones the nearest to 0.5."""
    return max(GRID, key=lambda threshold: (objective(threshold).f1, -abs(threshold - _USUAL)))


def _best_per_label(objective: _Objective, start: float, min_entities: float) -> dict[str, float]:
    """The thresholds that coordinate ascent on micro F1 reaches from one threshold for all."""
    scored = objective.scored
    gold = dict(zip(scored.labels, scored.gold.sum(0).tolist(), strict=True))
    asked = [label for label, is_asked in zip(scored.labels, scored.asked.tolist(), strict=True) if is_asked]
    chosen = dict.fromkeys(asked, start)
    best = objective(chosen).f1
    movable = sorted((label for label in asked if gold[label] >= min_entities), key=lambda label: -gold[label])
    for _ in range(_MOST_ROUNDS):
        before = best
        for label in movable:
            for threshold in GRID:
                f1 = objective(chosen | {label: threshold}).f1
                if f1 > best:  # a tie moves nothing
                    best, chosen = f1, chosen | {label: threshold}
        if best == before:
            break
    return chosen
