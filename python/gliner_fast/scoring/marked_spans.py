"""Marks of words -> candidates: what token-level models find (compat section 6.5)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gliner_fast import _rust
from gliner_fast.cpu.native import is_float32_on_cpu
from gliner_fast.decode import Selection, are_allowed, exact_thresholds, flat_thresholds, rounded
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
    edges, insides = flat_thresholds(selection, class_counts), exact_thresholds(selection, class_counts)
    if isinstance(scored, Tensor) and is_float32_on_cpu(scored):
        scores = probabilities(scored)
    else:
        coming = scored if isinstance(scored, PendingScores) else PendingScores.of(scored)
        edges = rounded(edges, coming.dtype)  # `insides` are compared in float64, as the package does it
        scores = coming.wait()
    offsets, starts, ends, classes, *lowest = _rust.find_marked_spans(
        scores.numpy(), word_counts, class_counts, edges, insides
    )
    found = MarkedSpans(Candidates(offsets, starts, ends, classes, np.minimum(*lowest)), *lowest)
    if selection.allowed_spans is None:
        return found
    allowed = are_allowed(found.candidates, selection.allowed_spans)
    return MarkedSpans(found.candidates.take(allowed), found.edges[allowed], found.insides[allowed])
