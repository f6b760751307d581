"""What the installed `gliner` scores of a text before it decides, by which differences are judged."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliner_fast.config import TOKEN_LEVEL

_NO_LINK = 2.0  # a probability that none has

Key = tuple[int, int, Any]
"""Start, end and label: what makes two entities the same one."""


@dataclass(frozen=True)
class Candidate:
    """A span and label that the reference scored above the threshold less the tolerance.

    Attributes:
        start: character.
        end: one past the last.
        label: what it is rated as.
        score: its probability.
        marks: of a model that scores the spans that it marks, the lowest mark of each label that may mark the span. It
            comes once for each whose mark passes the threshold, too.
    """

    start: int
    end: int
    label: Any
    score: float
    marks: tuple[float, ...] = (math.inf,)

    @property
    def lowest(self) -> float:
        """What passes the thresholds that the candidate passes."""
        return min(self.score, max(self.marks))

    @property
    def key(self) -> Key:
        """What makes it the same as an entity."""
        return self.start, self.end, self.label


def find_reference_candidates(
    reference: Any, text: str, labels: Any, *, floor: float, relations: Any = ()
) -> list[Candidate]:
    """Returns every span and label of one text that a loaded `gliner` model scores above `floor`.

    Taken from the logits: `inference` returns only what survives, and even nested decoding drops crossing spans.
    A model of relations reads `relations` beside the labels.
    """
    read = read_by_reference(reference, text, labels, relations)
    if read is None:
        return []
    prepared, batch = read
    names = prepared["label_names"]
    names = names[0] if names and isinstance(names[0], list) else names
    starts, ends = prepared["start_token_map"][0], prepared["end_token_map"][0]
    if represents_spans(reference):
        output = run_reference(reference, batch, threshold=floor)
        return [
            Candidate(starts[first], ends[last], names[label], score, own_marks)
            for first, last, label, score, own_marks in _represented(output, floor)
            if label < len(names)
        ]
    output = run_reference(reference, batch)
    if output is None:  # no span is above gliner's own threshold
        output = run_reference(reference, batch, threshold=floor, adjacency_threshold=_NO_LINK)
    if output is None:
        return []
    scores = output[0][0].sigmoid().float().cpu().numpy()  # (W, K, C), or (W, C, 3)
    words = int(batch["text_lengths"].reshape(-1)[0])
    if reference.config.span_mode == TOKEN_LEVEL:
        return [
            Candidate(starts[first], ends[last], names[label], score)
            for first, last, label, score in _marked(scores[:words, : len(names)], floor)
        ]
    return [
        Candidate(starts[word], ends[word + width], names[label], float(scores[word, width, label]))
        for word, width, label in np.argwhere(scores > floor).tolist()
        if word + width < words and label < len(names)
    ]


def read_by_reference(reference: Any, text: str, labels: Any, relations: Any) -> tuple[dict[str, Any], Any] | None:
    """One text as a loaded `gliner` model prepares it, and its batch; None where nothing is read or asked for."""
    prepared = reference.prepare_batch([text], labels, **({"relations": relations} if relations else {}))
    if not prepared["valid_texts"] or not prepared["entity_types"]:
        return None
    asked = {"relation_types": prepared["relation_types"]} if relations else {}
    return prepared, reference.collate_batch(prepared["input_x"], prepared["entity_types"], **asked)


def run_reference(reference: Any, batch: Any, **thresholds: float) -> Any | None:
    """What a loaded `gliner` model computes of a batch; None where one of relations breaks down.

    Some of these do where no span passes the threshold.
    """
    try:
        return reference.run_batch(batch, **thresholds)
    except (AttributeError, RuntimeError) as error:
        if not is_break_down(reference, error):
            raise
        return None


def is_break_down(reference: Any, error: Exception) -> bool:
    """Whether an error of a loaded `gliner` model may be that of attention among no spans."""
    import torch

    has_relations = getattr(reference.config, "relations_layer", None) is not None
    return has_relations and not isinstance(error, torch.OutOfMemoryError)


def _marked(scores: NDArray[np.float32], floor: float) -> Iterator[tuple[int, int, int, float]]:
    """First word, last word, label and score of each span whose marks all score above `floor`; scores are (W, C, 3)."""
    is_marked = scores > floor
    for first, label in np.argwhere(is_marked[:, :, 0]).tolist():
        inside = is_marked[first:, label, 2]
        behind = first + (len(inside) if inside.all() else int(inside.argmin()))
        for last in (first + np.flatnonzero(is_marked[first:behind, label, 1])).tolist():
            lowest = scores[first : last + 1, label, 2].min()
            yield first, last, label, float(min(lowest, scores[first, label, 0], scores[last, label, 1]))


def represents_spans(reference: Any) -> bool:
    """Whether a loaded `gliner` model scores the spans that it marks.

    Such a model is asked for one text at a time: beside longer texts it may mark padding, and break down.
    """
    config = reference.config
    has_relations = getattr(config, "relations_layer", None) is not None
    return config.span_mode == TOKEN_LEVEL and bool(getattr(config, "represent_spans", False)) and not has_relations


def _represented(output: Any, floor: float) -> Iterator[tuple[int, int, int, float, tuple[float, ...]]]:
    """First word, last word, label, score and marks of each span and label that score above `floor`, each once."""
    marks, scores = (own[0].sigmoid().float().cpu().numpy() for own in (output.logits, output.span_logits))
    spans = output.span_idx[0][output.span_mask[0]].tolist()
    place = {(first, last): at for at, (first, last) in enumerate(spans)}
    for (first, last), at in place.items():
        edges = np.minimum(marks[first, :, 0], marks[last, :, 1])  # (C,)
        lowest = np.minimum(edges, marks[first : last + 1, :, 2].min(0))  # (C,)
        for label in np.flatnonzero(scores[at] > floor).tolist():
            yield first, last, label, float(scores[at, label]), tuple(lowest.tolist())


def labels_of_text(labels: Any, index: int) -> Any:
    """Returns the labels, or relations, that one text is asked for: its own row where they are per text."""
    return labels[index] if are_per_text(labels) else labels


def are_per_text(labels: Any) -> bool:
    """Whether labels are each text's own."""
    return isinstance(labels, list) and bool(labels) and isinstance(labels[0], (list, Mapping))
