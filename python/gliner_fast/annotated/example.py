"""One annotated sentence, and the error that says where a data file is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Span = tuple[int, int, str]
"""(first word, one past the last word, label)."""
Relation = tuple[int, int, str]
"""(which of the spans is the head, which the tail, relation)."""


class DataError(ValueError):
    """Annotated data cannot be used; the message begins with the file and the line."""


Report = Callable[[DataError], None]
"""Takes what is wrong with a record, which is then left out; or raises it."""


@dataclass(frozen=True)
class Example:
    """An annotated sentence. The readers have checked it: words are not empty, spans lie within them."""

    words: tuple[str, ...]
    spans: tuple[Span, ...]
    labels: tuple[str, ...] | None = None
    """`ner_labels`: the entity types that this example is annotated with; None where nobody said."""
    negatives: tuple[str, ...] | None = None
    """`ner_negatives`: entity types that it is known to have none of; None where nobody said."""
    relations: tuple[Relation, ...] = ()
    """Between the spans: for models that find relations alone."""
    relation_labels: tuple[str, ...] | None = None
    """`rel_labels`: the relations that this example is annotated with; None where nobody said."""
