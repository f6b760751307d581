"""What the user gets back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import NotRequired, TypedDict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Entity(TypedDict):
    """One entity of a text, a plain dict with `gliner`'s keys in `gliner`'s order (compat section 1.3).

    `text[start:end] == entity["text"]` holds for every entity.
    """

    start: int
    """First character, in Unicode code points."""
    end: int
    """One past the last character, in Unicode code points."""
    text: str
    """That slice of the text as it was given."""
    label: str
    """The label as it was given; the key, where labels came with descriptions."""
    score: float
    """Sigmoid of the span's logit, in [0, 1]."""
    class_probs: NotRequired[dict[str, float]]
    """Up to five labels with their scores, best first; only with `return_class_probs=True`, and of span models."""
    vector: NotRequired[NDArray[np.float32]]
    """Span representation, (D,); only with `return_vectors=True`."""
    label_vector: NotRequired[NDArray[np.float32]]
    """Prompt representation that the span was scored against, (D,); only with `return_label_vectors=True`."""
