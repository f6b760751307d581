"""Scores of all spans on their way to the host, begun before the device is given other work."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gliner_fast.kernels.pending_candidates import start_copy


@dataclass(frozen=True)
class PendingScores:
    """Probabilities of all spans, in the dense layout.

    Attributes:
        dtype: of the logits, in which scores are compared with thresholds.
        scores: (S,) float32 on the host; not to be read before `wait`.
        is_there: happens once the scores have come; None where they have.
    """

    dtype: torch.dtype
    scores: Tensor
    is_there: torch.cuda.Event | None

    @classmethod
    def of(cls, logits: Tensor) -> PendingScores:
        """Starts the way of some logits' sigmoids, (S,), taken in the logits' own precision; waits for nothing."""
        return cls(logits.dtype, *start_copy(torch.sigmoid(logits).float()))

    def wait(self) -> Tensor:
        """The scores, (S,) float32 on the host."""
        if self.is_there is not None:
            self.is_there.synchronize()
        return self.scores
