"""Marks of words -> candidates: what token-level models find (compat section 6.5)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gliner_fast import _rust
from gliner_fast.cpu.native import is_float32_on_cpu
from gliner_fast.decode import (
    Selection,
    are_allowed,
    exact_thresholds,
    flat_thresholds,
    mark_thresholds,
    rounded,
)
from gliner_fast.scoring.candidates import Candidates
from gliner_fast.scoring.pending_scores import PendingScores
from gliner_fast.scoring.probabilities import probabilities


class MarkedSpans(NamedTuple):
    """Spans of a batch that are marked, and how surely.

    A span's score is the lowest of all its marks. At a threshold it is found where `edges` pass it, in the precision of
    the scores, and `insides` reach it, in float64.

    Attributes:
        candidates: the spans; by start, type and end in each text.
        edges: (S,) float32, the lower of the scores of start and end.
        insides: (S,) float32, the lowest score of being inside of all its words.
    """

    candidates: Candidates
    edges: NDArray[np.float32]
    insides: NDArray[np.float32]


def find_marked_spans(
    scored: Tensor | PendingScores,
    word_counts: NDArray[np.int64],
    class_counts: NDArray[np.int64],
    selection: Selection,
) -> MarkedSpans:
    """Picks the spans of a batch that may be entities: any start with any end of its type, all words between inside.

    Unlike the package, a word whose mark is NaN is inside nothing.

    Args:
        scored: logits in flat blocks (W_b, C_b, 3), as `TokenScorer` lays them out, or their scores; what is on its
            way is waited for here.
        word_counts: (B,) words of each text.
        class_counts: (B,) scored entity types of each text.
        selection: what may be an entity.
    """
    scores, dtype = _on_host(scored)
    edges = rounded(flat_thresholds(selection, class_counts), dtype)
    insides = exact_thresholds(selection, class_counts)  # compared in float64, as the package does it
    return _find(scores, word_counts, class_counts, edges, insides, selection)


def find_spans_to_score(
    scored: Tensor | PendingScores,
    word_counts: NDArray[np.int64],
    class_counts: NDArray[np.int64],
    selection: Selection,
) -> MarkedSpans:
    """Picks the spans that are marked, of a model that scores them by their vectors; arguments as above.

    As the package does it there, words inside must pass the threshold, too, in the precision of the scores; and an
    entity token without a label marks spans that others may rate.
    """
    scores, dtype = _on_host(scored)
    edges = rounded(mark_thresholds(selection, class_counts), dtype)
    insides = np.nextafter(edges, np.float32(np.inf)).astype(np.float64)  # to reach that is to pass the threshold
    return _find(scores, word_counts, class_counts, edges, insides, selection)


def _on_host(scored: Tensor | PendingScores) -> tuple[Tensor, torch.dtype]:
    """Scores in float32 on the host, and the precision that they are compared in."""
    if isinstance(scored, Tensor) and is_float32_on_cpu(scored):
        return probabilities(scored), torch.float32
    coming = scored if isinstance(scored, PendingScores) else PendingScores.of(scored)
    return coming.wait(), coming.dtype


def _find(
    scores: Tensor,
    word_counts: NDArray[np.int64],
    class_counts: NDArray[np.int64],
    edges: NDArray[np.float32],
    insides: NDArray[np.float64],
    selection: Selection,
) -> MarkedSpans:
    offsets, starts, ends, classes, *lowest = _rust.find_marked_spans(
        scores.numpy(), word_counts, class_counts, edges, insides
    )
    found = MarkedSpans(Candidates(offsets, starts, ends, classes, np.minimum(*lowest)), *lowest)
    if selection.allowed_spans is None:
        return found
    allowed = are_allowed(found.candidates, selection.allowed_spans)
    return MarkedSpans(found.candidates.take(allowed), found.edges[allowed], found.insides[allowed])
