"""Span scores -> candidates -> entities (compat section 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gliner_fast import _rust

_TOP_CLASSES = 5


@dataclass(frozen=True)
class Selection:
    """How the candidates of each text of a batch are chosen.

    Attributes:
        thresholds: for each text one threshold, or one for each of its labels.
        nested: (B,) True where entities may contain each other.
        multi_label: (B,) True where one span may have several labels.
        label_counts: labels of each text; entity tokens beyond them rate nothing (Q3).
        allowed_spans: for each text the (start, end) word spans, end exclusive, that may be entities; None for all.
    """

    thresholds: Sequence[float | Sequence[float]]
    nested: NDArray[np.bool_]
    multi_label: NDArray[np.bool_]
    label_counts: Sequence[int]
    allowed_spans: Sequence[set[tuple[int, int]] | None] | None = None


@dataclass(frozen=True)
class Decoded:
    """The entities of a batch, text after text, each text's in reading order.

    Attributes:
        offsets: (B+1,) text b owns entities offsets[b]:offsets[b+1].
        starts: (S,) first word of each.
        ends: (S,) one past its last word.
        classes: (S,) index into its text's labels.
        scores: (S,) float32.
    """

    offsets: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    classes: NDArray[np.int64]
    scores: NDArray[np.float32]

    @property
    def texts(self) -> NDArray[np.int64]:
        """(S,) the text that each entity is in."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


def decode(
    logits: Tensor,
    word_counts: NDArray[np.int64],
    class_counts: NDArray[np.int64],
    max_width: int,
    selection: Selection,
) -> tuple[Decoded, NDArray[np.float32]]:
    """Picks the entities of a batch.

    Args:
        logits: flat blocks (W_b, K, C_b), as `kernels.span_scores` lays them out.
        word_counts: (B,) words of each text.
        class_counts: (B,) scored entity types of each text.
        max_width: K.
        selection: what may be an entity, and which may stand together.

    Returns:
        The entities, and all scores, flat as the logits: sigmoids in the logits' own precision, as float32.
    """
    scores = torch.sigmoid(logits).float().cpu().numpy()
    thresholds = _flat_thresholds(selection, class_counts, logits.dtype)
    offsets, starts, ends, classes, found = _rust.find_candidates(
        scores, word_counts, class_counts, max_width, thresholds
    )
    if selection.allowed_spans is not None:
        allowed = _allowed(selection.allowed_spans, offsets, starts, ends)
        offsets = np.concatenate([[0], np.cumsum(allowed)])[offsets].astype(np.int64)
        starts, ends, classes, found = starts[allowed], ends[allowed], classes[allowed], found[allowed]
    kept, kept_offsets = _rust.resolve(
        offsets, starts, ends, found, word_counts, selection.nested, selection.multi_label
    )
    return Decoded(kept_offsets, starts[kept], ends[kept], classes[kept], found[kept]), scores


def _flat_thresholds(selection: Selection, class_counts: NDArray[np.int64], dtype: torch.dtype) -> NDArray[np.float32]:
    """One threshold for each scored entity type of each text; infinite where the type has no label."""
    flat = np.full(int(class_counts.sum()), np.inf, np.float32)
    at = 0
    for threshold, scored, labels in zip(
        selection.thresholds, class_counts.tolist(), selection.label_counts, strict=True
    ):
        used = min(scored, labels)
        flat[at : at + used] = threshold if isinstance(threshold, float) else threshold[:used]
        at += scored
    # Scores are compared in their own precision, as the package does it: 0.3 in bf16 is not 0.3 in float32.
    return torch.from_numpy(flat).to(dtype).float().numpy()


def _allowed(
    spans: Sequence[set[tuple[int, int]] | None],
    offsets: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """(candidates,) True where the text has no list of spans, or the span is on it."""
    allowed = np.ones(len(starts), np.bool_)
    for text, own in enumerate(spans):
        if own is not None:
            at = slice(offsets[text], offsets[text + 1])
            allowed[at] = [pair in own for pair in zip(starts[at].tolist(), ends[at].tolist(), strict=True)]
    return allowed


def class_probabilities(
    scores: NDArray[np.float32],
    decoded: Decoded,
    word_counts: NDArray[np.int64],
    class_counts: NDArray[np.int64],
    max_width: int,
    names: Sequence[Sequence[Any]],
) -> list[Mapping[Any, float]]:
    """For each entity its best labels with their scores, best first, ties by label order (compat section 6.3).

    Args:
        scores: flat scores, from `decode`.
        decoded: the entities.
        word_counts: (B,).
        class_counts: (B,).
        max_width: K.
        names: the labels of each text.
    """
    blocks = np.concatenate([[0], np.cumsum(word_counts * max_width * class_counts)])
    best: list[Mapping[Any, float]] = []
    widths = decoded.ends - decoded.starts - 1
    for text, start, width in zip(decoded.texts.tolist(), decoded.starts.tolist(), widths.tolist(), strict=True):
        classes = int(class_counts[text])
        first = blocks[text] + (start * max_width + width) * classes
        own = scores[first : first + min(classes, len(names[text]))]
        order = np.argsort(-own, kind="stable")[:_TOP_CLASSES]
        best.append({names[text][index]: float(own[index]) for index in order.tolist()})
    return best
