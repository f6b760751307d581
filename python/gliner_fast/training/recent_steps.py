"""What a run knows of the steps since its last line of progress."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from gliner_fast.training.errors import TrainingError


class RecentSteps:
    """Steps that nothing was told of yet."""

    def __init__(self) -> None:
        self.steps: list[Tensor] = []
        self.words = 0
        self.restart()

    def restart(self) -> None:
        """Begins to count the seconds here."""
        self._began = time.perf_counter()

    def pace(self) -> float:
        """Words a second, in this process."""
        return self.words / (time.perf_counter() - self._began)

    def mean_loss(self, done: int) -> float:
        """Mean loss of the steps, of which the last is number `done`.

        Raises:
            TrainingError: a loss or a gradient is not finite.
        """
        steps: list[tuple[float, float]] = torch.stack(self.steps).tolist()
        for step, values in enumerate(steps, start=done - len(steps) + 1):
            for name, value in zip(("loss", "gradient"), values, strict=True):
                if not math.isfinite(value):
                    raise TrainingError(
                        f"the {name} of step {step:,} is {value}: lower the learning rates, or raise warmup; with fp16 "
                        "try bf16 or fp32. Checkpoints of earlier steps are sound"
                    )
        return sum(loss for loss, _ in steps) / len(steps)
