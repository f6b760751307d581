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
from gliner_fast.cpu.native import is_float32_on_cpu
from gliner_fast.kernels.pending_candidates import PendingCandidates, SpanCandidates
from gliner_fast.scoring.candidates import Candidates, pass_thresholds
from gliner_fast.scoring.pending_scores import PendingScores
from gliner_fast.scoring.probabilities import probabilities

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


def find_candidates(
    scored: Tensor | PendingScores | PendingCandidates | Candidates,
    word_counts: NDArray[np.int64],
    class_counts: NDArray[np.int64],
    max_width: int,
    selection: Selection,
) -> Candidates:
    """Picks the spans of a batch that may be entities.

    Args:
        scored: logits in flat blocks (W_b, K, C_b), as `kernels.span_reference` lays them out, or their scores; or the
            spans above `flat_thresholds`, found where they were scored. What is on its way is waited for here.
        word_counts: (B,) words of each text.
        class_counts: (B,) scored entity types of each text.
        max_width: K.
        selection: what may be an entity.

    Returns:
        The candidates, in the order of the logits; their scores are sigmoids in the logits' own precision, as float32.
    """
    if isinstance(scored, Candidates):
        candidates = scored
    elif isinstance(scored, PendingCandidates):
        candidates = _as_candidates(scored.wait(), len(word_counts))
    elif isinstance(scored, Tensor) and is_float32_on_cpu(scored):
        thresholds = flat_thresholds(selection, class_counts)
        likely = _rust.find_likely(scored.numpy(), word_counts, class_counts, max_width, thresholds)
        candidates = pass_thresholds(likely, class_counts, thresholds)
    else:
        coming = scored if isinstance(scored, PendingScores) else PendingScores.of(scored)
        thresholds = rounded(flat_thresholds(selection, class_counts), coming.dtype)
        scores = coming.wait().numpy()
        candidates = Candidates(*_rust.find_candidates(scores, word_counts, class_counts, max_width, thresholds))
    return only_allowed(candidates, selection)


def _as_candidates(found: SpanCandidates, texts: int) -> Candidates:
    """The candidates of some texts, found where they were scored and brought to the host."""
    text, start, width, class_ = (part.numpy() for part in (found.texts, found.starts, found.widths, found.types))
    offsets = np.searchsorted(text, np.arange(texts + 1))
    return Candidates(offsets, start, start + width + 1, class_, found.scores.float().numpy())


def resolve(
    candidates: Candidates,
    word_counts: NDArray[np.int64],
    nested: NDArray[np.bool_],
    multi_label: NDArray[np.bool_],
) -> Candidates:
    """Keeps the best candidates of each text that may stand together, in reading order.

    Args:
        candidates: of B texts.
        word_counts: (B,) words of each text.
        nested: (B,) True where entities may contain each other.
        multi_label: (B,) True where one span may have several labels.
    """
    kept, offsets = _rust.resolve(
        candidates.offsets, candidates.starts, candidates.ends, candidates.scores, word_counts, nested, multi_label
    )
    return Candidates(
        offsets, candidates.starts[kept], candidates.ends[kept], candidates.classes[kept], candidates.scores[kept]
    )


def flat_thresholds(selection: Selection, class_counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """One threshold for each scored entity type of each text, (T,); infinite where the type has no label."""
    return _flatten(selection, class_counts, np.float32)


def exact_thresholds(selection: Selection, class_counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The same in float64, not rounded."""
    return _flatten(selection, class_counts, np.float64)


def mark_thresholds(selection: Selection, class_counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """As `flat_thresholds`; but an entity token without a label has its text's threshold, where that is one for all."""
    flat = flat_thresholds(selection, class_counts)
    at = 0
    for threshold, scored, labels in zip(
        selection.thresholds, class_counts.tolist(), selection.label_counts, strict=True
    ):
        if scored > labels and isinstance(threshold, float):
            flat[at + labels : at + scored] = threshold
        at += scored
    return flat


def _flatten(selection: Selection, class_counts: NDArray[np.int64], dtype: type[np.floating[Any]]) -> NDArray[Any]:
    counts = class_counts.tolist()
    thresholds = selection.thresholds
    first = thresholds[0] if counts else 0.0
    if isinstance(first, float) and thresholds.count(first) == len(counts) and counts == selection.label_counts:
        flat = np.empty(sum(counts), dtype)  # nearly always, and a small batch would feel the loop
        flat.fill(first)
        return flat
    flat = np.full(sum(counts), np.inf, dtype)
    at = 0
    for threshold, scored, labels in zip(selection.thresholds, counts, selection.label_counts, strict=True):
        used = min(scored, labels)
        flat[at : at + used] = threshold if isinstance(threshold, float) else threshold[:used]
        at += scored
    return flat


def rounded(thresholds: NDArray[np.float32], dtype: torch.dtype) -> NDArray[np.float32]:
    """Thresholds as scores of a dtype are compared with them, as in the package: 0.3 in bf16 is not 0.3 in float32."""
    return torch.from_numpy(thresholds).to(dtype).float().numpy()


def flat_allowed_spans(
    selection: Selection, word_counts: NDArray[np.int64], max_width: int
) -> NDArray[np.bool_] | None:
    """(N, K) True for the spans that may be entities, by first word of the batch and width; None where all may be."""
    if selection.allowed_spans is None:
        return None
    flat = np.zeros((int(word_counts.sum()), max_width), np.bool_)
    first = 0
    for words, spans in zip(word_counts.tolist(), selection.allowed_spans, strict=True):
        own = flat[first : first + words]
        if spans is None:
            own[:] = True
        else:
            fitting = [(start, end - start - 1) for start, end in spans if start < end <= min(words, start + max_width)]
            starts, widths = np.array(fitting, np.int64).reshape(-1, 2).T
            own[starts, widths] = True
        first += words
    return flat


def only_allowed(candidates: Candidates, selection: Selection) -> Candidates:
    """Those whose span is on their text's list, or all where there are no lists."""
    if selection.allowed_spans is None:
        return candidates
    return candidates.take(are_allowed(candidates, selection.allowed_spans))


def are_allowed(candidates: Candidates, spans: Sequence[set[tuple[int, int]] | None]) -> NDArray[np.bool_]:
    """(S,) False for candidates whose span is not on its text's list, where the text has one."""
    offsets, starts, ends = candidates.offsets, candidates.starts, candidates.ends
    allowed = np.ones(len(starts), np.bool_)
    for text, own in enumerate(spans):
        if own is not None:
            at = slice(offsets[text], offsets[text + 1])
            allowed[at] = [pair in own for pair in zip(starts[at].tolist(), ends[at].tolist(), strict=True)]
    return allowed


def class_probabilities(
    scored: Tensor | PendingScores,
    decoded: Candidates,
    word_counts: NDArray[np.int64],
    class_counts: NDArray[np.int64],
    max_width: int,
    names: Sequence[Sequence[Any]],
) -> list[Mapping[Any, float]]:
    """For each entity its best labels with their scores, best first, ties by label order (compat section 6.3).

    Args:
        scored: logits or scores of all spans, as for `find_candidates`.
        decoded: the entities.
        word_counts: (B,).
        class_counts: (B,).
        max_width: K.
        names: the labels of each text.
    """
    blocks = np.concatenate([[0], np.cumsum(word_counts * max_width * class_counts)])
    texts, widths = decoded.texts, decoded.ends - decoded.starts - 1
    firsts = blocks[texts] + (decoded.starts * max_width + widths) * class_counts[texts]  # (S,)
    places = [
        np.arange(first, first + min(class_counts[text], len(names[text])))
        for text, first in zip(texts.tolist(), firsts.tolist(), strict=True)
    ]
    index = torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *places]))
    if isinstance(scored, PendingScores):
        scores = scored.wait()[index].numpy()
    else:
        scores = probabilities(scored[index.to(scored.device)]).float().cpu().numpy()
    best: list[Mapping[Any, float]] = []
    end = 0
    for text, own_places in zip(texts.tolist(), places, strict=True):
        own, end = scores[end : end + len(own_places)], end + len(own_places)
        order = np.argsort(-own, kind="stable")[:_TOP_CLASSES]
        best.append({names[text][index]: float(own[index]) for index in order.tolist()})
    return best
