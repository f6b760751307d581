"""What is asked: texts, their labels and the options, checked at the door."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gliner_fast.labels import (
    LabelPlan,
    Labels,
    Relations,
    Threshold,
    expect_one_per_text,
    label_thresholds,
    plan_labels,
    plan_thresholds,
    with_relations,
)

if TYPE_CHECKING:
    from torch import Tensor

OnLong = Literal["truncate", "window", "error"]
_THRESHOLDS = ("threshold", "adjacency_threshold", "relation_threshold")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `GLiNER.inference`, which describes them; a sequence has one value for each text."""

    flat_ner: bool | Sequence[bool] = True
    threshold: Threshold = 0.5
    multi_label: bool | Sequence[bool] = False
    batch_size: int | None = None
    input_spans: Sequence[Sequence[Mapping[str, int]]] | None = None
    return_class_probs: bool = False
    return_vectors: bool = False
    return_label_vectors: bool = False
    label_vectors: Tensor | None = None
    """Of a bi-encoder: (labels, D), one for each label of one list for all texts, instead of encoding them."""
    relations: Relations = ()
    """Of a relex model, as are the two thresholds: the relation types for all texts, or each text's own."""
    adjacency_threshold: float | Sequence[float] | None = None
    relation_threshold: Threshold | None = None
    return_relations: bool = True
    """Without it relations are read by the model, but not looked for."""
    on_long: OnLong = "truncate"
    must_read_all: bool = False
    """With "window": windows become as small as they must, and a text with a word that none has room for is an error.

    Else a text that would need windows below twice the widest span is read in part, with a warning.
    """

    leave_out_unfit: bool = False
    """A text that does not fit into memory, where nearly all others do, is no error: it has `NotRead` for entities."""

    def __post_init__(self) -> None:
        for name in ("flat_ner", "input_spans", *_THRESHOLDS, "multi_label", "relations"):
            value = getattr(self, name)
            if (convert := getattr(value, "tolist", getattr(value, "to_list", None))) is not None:
                object.__setattr__(self, name, convert())  # an array, a column, a tensor
            elif isinstance(value, Iterator):
                raise TypeError(f"{name} is a {type(value).__name__}: expected one value, or a list with one a text")
        for name in ("flat_ner", "multi_label"):
            value = getattr(self, name)
            if isinstance(value, Sequence) and not all(isinstance(own, (int, np.bool_, np.integer)) for own in value):
                raise TypeError(f"{name} is {value!r:.80}: expected True or False, or a list with one of them a text")
        if self.input_spans is not None and not isinstance(self.input_spans, Sequence):
            raise TypeError(
                f"input_spans is a {type(self.input_spans).__name__}: expected a list, of a list of spans for each text"
            )
        if self.on_long not in get_args(OnLong):
            raise ValueError(f"on_long is {self.on_long!r}: expected one of {', '.join(get_args(OnLong))}")
        if self.batch_size is not None:
            expect_count("batch_size", self.batch_size, "a whole number of at least 1, or None")


def _one_vector_a_label(vectors: Any, labels: Any, plan: LabelPlan) -> Tensor:
    """One vector for each distinct label, from one for each label as they were given.

    Raises:
        TypeError: no tensor (labels, width).
        ValueError: another number of rows, or labels of each text's own.
    """
    import torch  # here alone: jobs on Ray read requests before torch is needed

    if not isinstance(vectors, torch.Tensor) or vectors.dim() != 2:
        is_tensor = isinstance(vectors, torch.Tensor)
        given = f"a tensor of the shape {tuple(vectors.shape)}" if is_tensor else f"a {type(vectors).__name__}"
        raise TypeError(f"labels_embeds is {given}: expected a tensor (labels, hidden_size)")
    if len(plan.sets) != 1:
        raise ValueError("labels_embeds go with one list of labels for all texts, not with labels of each text's own")
    names = plan.sets[0].names
    given_names = [labels] if isinstance(labels, str) else list(labels)
    if len(vectors) == len(given_names) > len(names):  # a label that comes again counts once
        return vectors[[given_names.index(name) for name in names]]
    if len(vectors) != len(names):
        raise ValueError(f"labels_embeds has {len(vectors)} rows for {len(names)} labels: expected one for each")
    return vectors


def _with_relation_thresholds(options: Options, plan: LabelPlan, count: int) -> Options:
    """Both thresholds of relations, checked; one left out is the entities', or 0.5 where labels have their own.

    Raises:
        TypeError: an adjacency threshold for each of something else than texts.
        ValueError: as for thresholds of entities.
    """
    default = 0.5 if isinstance(options.threshold, Mapping) else options.threshold
    adjacency, relation = (
        default if threshold is None else plan_thresholds(threshold, count, name)
        for name, threshold in (
            ("adjacency_threshold", options.adjacency_threshold),
            ("relation_threshold", options.relation_threshold),
        )
    )
    if isinstance(adjacency, Mapping):
        raise TypeError("adjacency_threshold is a mapping: expected a number, or a list with one a text")
    if isinstance(relation, Mapping):
        for own in plan.sets:
            if own.relations is not None:
                label_thresholds(own.relations.names, relation, "relation_threshold")
    return replace(options, adjacency_threshold=adjacency, relation_threshold=relation)


def of_places(value: Any, places: NDArray[np.int64]) -> list[Any]:
    """An option's value for each of some texts, by their places: its own from a sequence, or the one for all."""
    if not isinstance(value, Sequence):
        return [value] * len(places)
    return [value[place] for place in places.tolist()]


def expect_count(name: str, value: object, expected: str = "a whole number of at least 1") -> None:
    """Raises ValueError for what cannot be a number of things."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} is {value!r}: expected {expected}")


@dataclass(frozen=True)
class Request:
    """Texts and what is asked of them; per-text options have one entry for each text."""

    texts: Sequence[Any]
    """Anything; what is not a string, or is blank, has no entities (Q9)."""
    labels: LabelPlan
    options: Options
    first_text: int = 0
    """Number of the first of them in all that the user gave, for messages."""

    @classmethod
    def read(cls, texts: Sequence[Any], labels: Labels, options: Options, *, first_text: int = 0) -> Request:
        """Reads labels and thresholds in every accepted form.

        Raises:
            TypeError: labels or thresholds of a wrong type.
            ValueError: per-text values for another number of texts; a threshold of NaN.
        """
        count = len(texts)
        for name in ("flat_ner", "multi_label", "input_spans"):
            values = getattr(options, name)
            if isinstance(values, Sequence):
                expect_one_per_text(name, values, count)
        plan = plan_labels(labels, count)
        if options.label_vectors is not None:
            options = replace(options, label_vectors=_one_vector_a_label(options.label_vectors, labels, plan))
        options = replace(options, threshold=plan_thresholds(options.threshold, count))
        if isinstance(options.threshold, Mapping):
            for own in plan.sets:
                label_thresholds(own.names, options.threshold)  # one without a value is told now
        if options.relations:
            plan = with_relations(plan, options.relations, count)
        if options.relations or (options.adjacency_threshold, options.relation_threshold) != (None, None):
            options = _with_relation_thresholds(options, plan, count)
        return cls(texts, plan, options, first_text)

    def parts(self, most_texts: int, most_characters: int, *, halvings: int = 0) -> Iterator[Request]:
        """Cuts it into smaller ones, in order; a text of more characters makes one of its own.

        Args:
            most_texts: most texts of any.
            most_characters: most characters of any.
            halvings: how often both are halved for the first; each of the next may have twice as much.
        """
        first = characters = 0
        for place, text in enumerate(self.texts):
            length = len(text) if isinstance(text, str) else 0
            is_full = place - first == max(1, most_texts >> halvings)
            if place > first and (is_full or characters + length > most_characters >> halvings):
                yield self._part(first, place)
                first, characters, halvings = place, 0, max(0, halvings - 1)
            characters += length
        yield self._part(first, len(self.texts))

    def _part(self, first: int, last: int) -> Request:
        if last - first == len(self.texts):
            return self
        values = {
            name: getattr(self.options, name) for name in (*_THRESHOLDS, "flat_ner", "multi_label", "input_spans")
        }
        cut: dict[str, Any] = {name: value[first:last] for name, value in values.items() if isinstance(value, Sequence)}
        # Not all sets: what is prepared of a part would grow with the whole.
        used, sets = np.unique(self.labels.set_of_text[first:last], return_inverse=True)
        labels = LabelPlan(tuple(self.labels.sets[number] for number in used.tolist()), sets.reshape(-1))
        return Request(self.texts[first:last], labels, replace(self.options, **cut), self.first_text + first)
