"""Word vectors -> vectors of chosen spans, of token-level models that have a layer for them (compat section 3.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_fast.scorer import ProjectionMLP


class MarkedSpanVectors(nn.Module):
    """Representations of the spans that a token-level model marks: types rate them, or relations link them."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.start = ProjectionMLP(width, 4 * width, dropout)
        self.end = ProjectionMLP(width, 4 * width, dropout)
        self.joint = nn.Linear(2 * width, 4 * width)
        self.out = nn.Linear(4 * width, width)

    def forward(self, words: Tensor, starts: Tensor, last_words: Tensor) -> Tensor:
        """(N, D) packed words, first and last word of each span, (S,) each -> (S, D)."""
        ends = torch.cat([self.start(words[starts]), self.end(words[last_words])], dim=-1)  # (S, 2D)
        vectors: Tensor = self.out(F.relu(self.joint(F.relu(ends))))
        return vectors
