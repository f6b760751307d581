"""What can go wrong with a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gliner_fast.config import GLiNERConfig


class TrainingError(ValueError):
    """A run cannot begin or go on; the message says why and what to do."""


def expect_trainable(settings: GLiNERConfig) -> None:
    """Refuses a model that would be trained in part.

    Raises:
        TrainingError: it finds relations, too, or scores the spans that it marks.
    """
    if settings.is_relex:
        raise TrainingError(
            f"the model finds relations (relations_layer is {settings.relations_layer!r}), and such models are run "
            "here, but not trained: train it with gliner, and load what that saves"
        )
    if settings.scores_marked_spans:
        raise TrainingError(
            "the model scores the spans that it marks (represent_spans), and such models are run here, but not "
            "trained: train it with gliner, and load what that saves"
        )
