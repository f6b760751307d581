"""Logits -> probabilities, each the same whatever stands beside it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

_VECTORS = 64  # numbers; no CPU takes more at a time. As many zeros stand behind what `_rust.find_likely` gives.
_ONE_THREAD = 32_768  # numbers that torch does not part among threads


def probabilities(logits: Tensor) -> Tensor:
    """Sigmoids in the logits' own precision, (N,) -> (N,)."""
    padded = F.pad(logits, (0, _VECTORS))
    to_probabilities(padded)
    return padded[: len(logits)]


def to_probabilities(padded: Tensor) -> None:
    """Overwrites logits with their sigmoids; the last 64 numbers are no logits.

    On a CPU torch computes vectors one way and what is left of a tensor behind them, or of a thread's share, another, a
    rounding apart. Here nothing is left but what is no logit.
    """
    if len(padded) <= _ONE_THREAD:  # to split takes longer than to compute the few of a text
        padded.sigmoid_()
        return
    for part in padded.split(_ONE_THREAD):  # type: ignore[no-untyped-call]
        part.sigmoid_()
