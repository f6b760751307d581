"""What the user asks for: labels in every accepted form -> label sets, and thresholds for them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from gliner_fast.errors import shown

Labels = str | Sequence[str] | Mapping[str, str] | list[list[str]] | list[dict[str, str]]
Threshold = float | Sequence[float] | Mapping[str, float]
Relations = str | Sequence[str] | list[list[str]]


@dataclass(frozen=True)
class LabelSet:
    """The entity types asked of a text, in prompt order, which is class order."""

    prompts: tuple[str, ...]
    """What the model reads: the label, or its description."""
    names: tuple[Any, ...]
    """What is reported: the label as it was given."""
    relations: LabelSet | None = None
    """The relation types asked for beside them, of a relex model; None for none."""

    @classmethod
    def read(cls, labels: str | Sequence[Any] | Mapping[str, str]) -> LabelSet:
        """Reads one label set; duplicates keep their first place (compat section 1.3, Q20).

        Raises:
            TypeError: not a string, sequence or mapping; an unhashable label; a description that is no string.
            ValueError: two labels with one description.
        """
        if isinstance(labels, Mapping):
            if not all(isinstance(word, str) for pair in labels.items() for word in pair):
                raise TypeError("Label description mappings must contain only string keys and values")
            if len(set(labels.values())) != len(labels):
                raise ValueError("Label descriptions must be unique within each label set")
            return cls(tuple(labels.values()), tuple(labels))
        try:
            names = tuple(dict.fromkeys([labels] if isinstance(labels, str) else labels))
        except TypeError as error:
            raise TypeError(
                f"labels is {shown(labels)}: expected strings such as ['person'], a mapping of label to "
                "description, or, for labels of each text's own, a list of lists or of mappings"
            ) from error
        return cls(tuple(map(str, names)), names)


@dataclass(frozen=True)
class LabelPlan:
    """Which label set each text is asked for."""

    sets: tuple[LabelSet, ...]
    """The distinct label sets."""
    set_of_text: NDArray[np.int64]
    """(texts,), index into `sets`."""


def plan_labels(labels: Labels, text_count: int) -> LabelPlan:
    """Reads shared or per-text labels for `text_count` texts (compat section 1.3).

    Only a list whose elements are lists or mappings holds labels of each text's own.

    Raises:
        TypeError: per-text labels mixed with shared ones, or labels of another type.
        ValueError: per-text labels for another number of texts.
    """
    if not (isinstance(labels, list) and any(isinstance(own, (list, Mapping)) for own in labels)):
        return LabelPlan((LabelSet.read(labels),), np.zeros(text_count, np.int64))
    if len(labels) != text_count:
        raise ValueError(f"Per-text labels must have length {text_count}, got {len(labels)}")
    if not all(isinstance(own, (list, Mapping)) for own in labels):
        raise TypeError("Per-text labels must contain only lists or label description mappings")
    place: dict[LabelSet, int] = {}
    set_of_text = [place.setdefault(LabelSet.read(own), len(place)) for own in labels]
    return LabelPlan(tuple(place), np.array(set_of_text, np.int64))


def with_relations(plan: LabelPlan, relations: Relations, text_count: int) -> LabelPlan:
    """A plan with relation types for all texts, or, of a list whose first element is a list, with each text's own.

    Raises:
        TypeError: relations of another type.
        ValueError: per-text relations for another number of texts.
    """
    if not (isinstance(relations, Sequence) and relations and isinstance(relations[0], list)):
        own = _read_relations(relations)
        return LabelPlan(tuple(replace(labels, relations=own) for labels in plan.sets), plan.set_of_text)
    if len(relations) != text_count:
        raise ValueError(f"Per-text relations must have length {text_count}, got {len(relations)}")
    place: dict[LabelSet, int] = {}
    set_of_text = []
    for of_text, index in zip(relations, plan.set_of_text.tolist(), strict=True):
        labels = replace(plan.sets[index], relations=_read_relations(of_text))
        set_of_text.append(place.setdefault(labels, len(place)))
    return LabelPlan(tuple(place), np.array(set_of_text, np.int64))


def expect_relations(
    relations: Sequence[str] | None,
    adjacency_threshold: float | None,
    relation_threshold: float | Mapping[str, float] | None,
) -> None:
    """Checks relations for all texts, None for none, and the thresholds that go with them.

    Raises:
        TypeError: relations that are no strings, or thresholds that are no numbers.
        ValueError: no relation, or an empty one; thresholds without relations, of NaN, or not of every relation.
    """
    thresholds = {"adjacency_threshold": adjacency_threshold, "relation_threshold": relation_threshold}
    if relations is None:
        for name, threshold in thresholds.items():
            if threshold is not None:
                raise ValueError(
                    f"{name} is given without relations: name some, such as ['works for'], or leave it out"
                )
        return
    if isinstance(relations, (bytes, Mapping)) or not all(isinstance(relation, str) for relation in relations):
        raise TypeError(f"relations is {shown(relations)}: expected strings such as ['works for']")
    if not len(relations):  # an array has no truth of its own
        raise ValueError("relations is empty: name at least one kind, such as ['works for'], or leave it out")
    if not all(relation.strip() for relation in relations):
        raise ValueError(f"relations is {relations!r}, with an empty one: the model looks for what it says")
    for name, threshold in thresholds.items():
        if isinstance(threshold, Mapping) and name == "relation_threshold":
            plan_thresholds(threshold, 0, name)
            label_thresholds(tuple(relations), threshold, name)
        elif threshold is not None:
            _read_threshold(threshold, name)


def _read_relations(relations: Any) -> LabelSet | None:
    """The relation types asked of a text; None for none."""
    expected = "expected strings such as ['works for'], or, for relations of each text's own, a list of lists"
    if isinstance(relations, (bytes, Mapping)) or not isinstance(relations, (str, Sequence)):
        raise TypeError(f"relations is {shown(relations)}: {expected}")
    if any(relation is None or isinstance(relation, (bytes, list, tuple, set, Mapping)) for relation in relations):
        raise TypeError(f"relations is {shown(relations)}: {expected}")
    asked = LabelSet.read(relations)
    return asked if asked.names else None


def plan_thresholds(
    threshold: Threshold, text_count: int, name: str = "threshold"
) -> list[float] | Mapping[str, float] | float:
    """Checks a threshold: one for all, one per text (a sequence), or one per label (a mapping).

    Raises:
        TypeError: a value that is not a number.
        ValueError: NaN, or a sequence whose length is not the number of texts.
    """
    if isinstance(threshold, Mapping):
        return {label: _read_threshold(value, f"{name}[{label!r}]") for label, value in threshold.items()}
    if not isinstance(threshold, (Sequence, np.ndarray)) or isinstance(threshold, (str, bytes)):
        return _read_threshold(threshold, name)
    expect_one_per_text(name, threshold, text_count)
    return [_read_threshold(value, f"{name}[{index}]") for index, value in enumerate(threshold)]


def label_thresholds(names: tuple[Any, ...], threshold: Mapping[str, float], option: str = "threshold") -> list[float]:
    """One threshold for each label, or relation, of a set.

    Raises:
        ValueError: a label without a threshold; a label may never fall back to a value that nobody chose.
    """
    missing = [name for name in names if name not in threshold]
    if missing:
        of_what, example = "label", {"person": 0.5, "city": 0.3}
        if option == "relation_threshold":
            of_what, example = "relation", {"works for": 0.5, "born in": 0.3}
        raise ValueError(
            f"{option} has no value for the {of_what} {missing[0]!r}: a mapping must name every {of_what}, "
            f"such as {example}"
        )
    return [float(threshold[name]) for name in names]


def expect_one_per_text(name: str, values: Sequence[Any], text_count: int) -> None:
    """Raises ValueError where a per-text option does not have one value for each text (Q8)."""
    if len(values) != text_count:
        raise ValueError(f"{name} must have length {text_count}, one value for each text, got {len(values)}")


def _read_threshold(value: object, place: str) -> float:
    if not isinstance(value, (float, int, SupportsFloat)):  # a string is none; asking for a protocol takes time
        raise TypeError(f"{place} is {shown(value)}: expected a number such as 0.5")
    number = float(value)
    if math.isnan(number):
        raise ValueError(f"{place} is NaN, which no score can pass: expected a number such as 0.5")
    return number
