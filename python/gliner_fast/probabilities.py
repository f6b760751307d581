"""Logits -> probabilities, each the same whatever stands beside it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

_VECTORS = 64  # numbers; no CPU takes more at a time


def probabilities(logits: Tensor) -> Tensor:
    """Sigmoids in the logits' own precision, (N,) -> (N,).

    On a CPU torch computes vectors one way and what is left of a tensor behind them another, a rounding apart. Here
    others stand behind the last logit, so that none is left over (but where torch cuts 32,768 for several threads).
    """
    return F.pad(logits, (0, _VECTORS)).sigmoid_()[: len(logits)]
