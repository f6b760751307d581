"""Places for words of `gliner`'s that have none there, so that its answers can be compared (compat section 4.1)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gliner_fast.model import GLiNER
    from gliner_fast.words import WordTriples


@contextmanager
def words_have_places(reference: Any, ours: GLiNER) -> Iterator[None]:
    """Inside, a loaded `gliner` model gives words whose place it does not know ours.

    It reads the same words as before; where a library changes some, they have the start -1 or None there, and its
    entities with them.
    """
    splitter = ours.data_processor.custom_splitter
    processor = getattr(reference, "data_processor", None)
    if splitter is None or processor is None:
        yield
        return
    own = processor.words_splitter
    processor.words_splitter = _Placed(own, splitter)
    try:
        yield
    finally:
        processor.words_splitter = own


class _Placed:
    def __init__(self, reference: WordTriples, ours: WordTriples) -> None:
        self._reference, self._ours = reference, ours

    def __call__(self, text: str) -> list[tuple[str, int, int]]:
        triples = list(self._reference(text))
        if all(start is not None and start >= 0 for _, start, _ in triples):
            return triples
        placed = list(self._ours(text))
        return placed if [word for word, _, _ in placed] == [word for word, _, _ in triples] else triples
