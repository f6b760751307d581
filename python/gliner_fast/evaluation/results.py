"""A model and an annotated data set -> its exact-match scores at one or more thresholds."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gliner_fast.annotated.example import Example
from gliner_fast.annotated.examples import examples_from_records, labels_of
from gliner_fast.evaluation.scored_examples import LabelThresholds, ScoredExamples, score_examples
from gliner_fast.evaluation.scores import Score, macro_f1, micro
from gliner_fast.labels import LabelSet, plan_thresholds

if TYPE_CHECKING:
    from gliner_fast.model import GLiNER

AskedLabels = Sequence[str] | Mapping[str, str]
"""Labels for all examples, or a mapping of label to description."""


@dataclass(frozen=True)
class Result:
    """The scores at one threshold.

    Attributes:
        threshold: for all labels, or for each.
        labels: the score of each label that is asked for or annotated.
        relations: that of each relation, likewise; None where relations were not scored.
    """

    threshold: LabelThresholds
    labels: Mapping[str, Score]
    relations: Mapping[str, Score] | None = None

    @property
    def micro(self) -> Score:
        """Of all entities together: what is meant where F1 is said without more."""
        return micro(self.labels.values())

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; rates in percent."""
        threshold = dict(self.threshold) if isinstance(self.threshold, Mapping) else self.threshold
        told = {"threshold": threshold, **_to_dict(self.labels, "labels")}
        return told if self.relations is None else {**told, "relations": _to_dict(self.relations, "kinds")}


def _to_dict(scores: Mapping[str, Score], name: str) -> dict[str, Any]:
    """Scores together, and each under a name of all."""
    return {
        **micro(scores.values()).to_dict(),
        "macro_f1": round(100 * macro_f1(scores), 3),
        name: {label: score.to_dict() for label, score in scores.items()},
    }


@dataclass(frozen=True)
class Evaluation:
    """What was asked of a data set, and the scores.

    Attributes:
        name: of the data set.
        examples: how many.
        cut: how many were longer than the model reads; what is annotated behind the cut is missed.
        asked: labels that were asked for.
        ignored: labels left out of the question and of the annotation.
        flat_ner: no two entities shared a word.
        multi_label: one span could have several labels.
        results: one for each threshold.
        asked_relations: relations that were asked for; None where relations were not scored.
        adjacency_threshold: of the links between entities; None for the threshold of entities, or 0.5 for a mapping.
        relation_threshold: of relations, likewise.
    """

    name: str
    examples: int
    cut: int
    asked: tuple[str, ...]
    ignored: tuple[str, ...]
    flat_ner: bool
    multi_label: bool
    results: tuple[Result, ...]
    asked_relations: tuple[str, ...] | None = None
    adjacency_threshold: float | None = None
    relation_threshold: LabelThresholds | None = None

    @property
    def f1(self) -> float:
        """Micro F1 at the first threshold, in [0, 1]."""
        return self.results[0].micro.f1

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        relations: dict[str, Any] = {}
        if self.asked_relations is not None:
            relations = {
                "asked_relations": list(self.asked_relations),
                "adjacency_threshold": self.adjacency_threshold,
                "relation_threshold": self.relation_threshold,
            }
        return {
            "set": self.name,
            "examples": self.examples,
            "cut": self.cut,
            "asked": list(self.asked),
            **relations,
            "ignored": list(self.ignored),
            "flat_ner": self.flat_ner,
            "multi_label": self.multi_label,
            "results": [result.to_dict() for result in self.results],
        }


def evaluate(
    model: GLiNER,
    examples: Sequence[Example],
    labels: AskedLabels | None = None,
    *,
    thresholds: Sequence[LabelThresholds] = (0.5,),
    flat_ner: bool = True,
    multi_label: bool = False,
    ignored: Collection[str] = (),
    name: str = "data",
) -> Evaluation:
    """Scores a model on annotated sentences, at several thresholds in one pass.

    An entity counts as found where label, first and last word agree; equal ones of a sentence count once. What is
    annotated with a label that is not asked for, or behind the words that the model reads, counts as missed. A word
    outside all entities (O) is no type and is never asked for. A catch-all type such as "else" is a type like others,
    unless it is ignored: then it is neither asked for nor missed.

    Args:
        model: the model.
        examples: the sentences.
        labels: what each is asked for; None for an example's own `labels`, or, where it has none, all labels that
            occur in the data.
        thresholds: entities score above it; one for all labels, or a mapping of label to threshold.
        flat_ner: no two entities share a word.
        multi_label: one span may have several labels.
        ignored: labels to leave out of the question and of the annotation.
        name: of the data set, for the report.

    Raises:
        ValueError: no threshold, or a mapping that lacks a label.
    """
    ignored = [ignored] if isinstance(ignored, str) else ignored
    scored = score_for(model, examples, labels, floor=lowest(thresholds), ignored=ignored)
    return Evaluation(
        name,
        len(examples),
        int(scored.cut.sum()),
        tuple(label for label, is_asked in zip(scored.labels, scored.asked.tolist(), strict=True) if is_asked),
        tuple(ignored),
        flat_ner,
        multi_label,
        tuple(
            Result(threshold, scored.scores_at(threshold, flat_ner=flat_ner, multi_label=multi_label))
            for threshold in thresholds
        ),
    )


def score_for(
    model: GLiNER,
    examples: Sequence[Example],
    labels: AskedLabels | None,
    *,
    floor: float,
    ignored: Collection[str] = (),
) -> ScoredExamples:
    """Scores all spans once; arguments are those of `evaluate`."""
    kept = [
        Example(example.words, tuple(span for span in example.spans if span[2] not in ignored)) for example in examples
    ]
    return score_examples(model, kept, label_sets_for(examples, labels, ignored), floor=floor)


def label_sets_for(
    examples: Sequence[Example], labels: AskedLabels | None, ignored: Collection[str] = ()
) -> list[LabelSet]:
    """What each example is asked for; arguments are those of `evaluate`."""
    every = labels_of(examples) if labels is None else labels
    sets: dict[tuple[str, ...] | None, LabelSet] = {}
    label_sets = []
    for example in examples:
        own = example.labels if labels is None else None
        if own not in sets:
            sets[own] = _label_set(every if own is None else own, ignored)
        label_sets.append(sets[own])
    return label_sets


def lowest(thresholds: Iterable[LabelThresholds]) -> float:
    """The least of all thresholds.

    Raises:
        TypeError: one is no number.
        ValueError: there is none, or it is NaN.
    """
    read = [plan_thresholds(given, text_count=1) for given in thresholds]
    values = [value for own in read for value in (own.values() if isinstance(own, Mapping) else np.ravel(own))]
    if not values:
        raise ValueError("thresholds is empty: give at least one, such as [0.5]")
    return min(values)


def _label_set(labels: AskedLabels, ignored: Collection[str]) -> LabelSet:
    if isinstance(labels, str):  # one label, and not its letters
        labels = [labels]
    if isinstance(labels, Mapping):
        return LabelSet.read({label: words for label, words in labels.items() if label not in ignored})
    return LabelSet.read([label for label in labels if label not in ignored])


def evaluate_like_gliner(
    model: GLiNER,
    test_data: Iterable[Any],
    flat_ner: bool = False,
    multi_label: bool = False,
    threshold: float = 0.5,
    entity_types: AskedLabels | None = None,
) -> tuple[str, float]:
    r"""What `GLiNER.evaluate` returns (compat section 7.5).

    Returns:
        The text "P: 12.34%\tR: 5.00%\tF1: 7.12%\n", and F1 in [0, 1] as a numpy float64.
    """
    examples = examples_from_records(test_data, "test_data", splitter=model.data_processor.custom_splitter)
    (result,) = evaluate(
        model, examples, entity_types, thresholds=[threshold], flat_ner=flat_ner, multi_label=multi_label
    ).results
    return score_line(result.micro, "entity", stacklevel=4)


def score_line(score: Score, what: str, *, stacklevel: int) -> tuple[str, float]:
    """A line for people, and F1, as `gliner` has them; warns where nothing is predicted or annotated."""
    for done, number in (("predicted", score.predicted), ("annotated", score.gold)):
        if number == 0:
            warnings.warn(f"no {what} is {done}: what is divided by their number is 0", stacklevel=stacklevel)
    return f"P: {score.precision:.2%}\tR: {score.recall:.2%}\tF1: {score.f1:.2%}\n", np.float64(score.f1)
