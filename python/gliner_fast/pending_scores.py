"""Scores of all spans on their way to the host, begun before the device is given other work."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
        scores = torch.sigmoid(logits).float()
        if not scores.is_cuda:
            return cls(logits.dtype, scores.cpu(), None)
        on_host = torch.empty(scores.shape, dtype=scores.dtype, pin_memory=True)
        on_host.copy_(scores, non_blocking=True)
        is_there = torch.cuda.Event()  # type: ignore[no-untyped-call]
        is_there.record(torch.cuda.current_stream(scores.device))
        return cls(logits.dtype, on_host, is_there)

    def wait(self) -> Tensor:
        """The scores, (S,) float32 on the host."""
        if self.is_there is not None:
            self.is_there.synchronize()
        return self.scores
