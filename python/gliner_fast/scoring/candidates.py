"""Spans that may become entities, text after text."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from gliner_fast.scoring.probabilities import to_probabilities

# What `_rust.find_likely` and `_rust.find_spans` return.
_Ints = NDArray[np.int64]
LikelySpans = tuple[_Ints, _Ints, _Ints, _Ints, NDArray[np.float32], bool]


class Candidates(NamedTuple):
    """Spans of a batch that score above their threshold, text after text.

    Attributes:
        offsets: (B+1,) text b owns offsets[b]:offsets[b+1].
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
        """(S,) the text that each span is in."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def take(self, kept: NDArray[np.bool_]) -> Candidates:
        """Some of them, of the same texts; `kept` is (S,)."""
        return Candidates(
            np.concatenate([[0], np.cumsum(kept)])[self.offsets].astype(np.int64),
            self.starts[kept],
            self.ends[kept],
            self.classes[kept],
            self.scores[kept],
        )


def pass_thresholds(
    likely: LikelySpans, class_counts: NDArray[np.int64], thresholds: NDArray[np.float32]
) -> Candidates:
    """The likely spans whose probabilities, computed as torch does, pass their thresholds.

    Args:
        likely: as `_rust.find_likely` and `_rust.find_spans` return them; their logits are overwritten.
        class_counts: (B,) entity types of each text.
        thresholds: (T,) the probability that each type of each text must pass.
    """
    offsets, starts, ends, classes, padded, all_pass = likely
    to_probabilities(torch.from_numpy(padded))
    candidates = Candidates(offsets, starts, ends, classes, padded[: len(starts)])
    if all_pass:
        return candidates
    first_types = np.cumsum(class_counts) - class_counts  # (B,)
    return candidates.take(candidates.scores > thresholds[first_types[candidates.texts] + classes])
