"""Values of a labels column -> the labels that a row asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gliner_fast.errors import shown
from gliner_fast.jobs.block import Labels
from gliner_fast.jobs.records import BadRow, expect_whole_characters

_EXPECTED = "expected a list such as ['person', 'city'], a mapping of label to description, or 'person, city'"


def read_row_labels(value: Any, column: str) -> Labels:
    """Reads a row's own labels: a list, a mapping of label to description, or text: comma-separated, or either as JSON.

    Raises:
        BadRow: none of these, no label at all, or one that is empty.
    """
    labels = _parse(value) if isinstance(value, str) else value
    if isinstance(labels, Mapping):
        words, descriptions = list(labels), list(labels.values())
    else:
        words, descriptions = labels, []
    if not isinstance(words, list) or not all(isinstance(word, str) for word in [*words, *descriptions]):
        raise BadRow(f"{column!r} is {shown(value)}: {_EXPECTED}")
    if not words or not all(word.strip() for word in [*words, *descriptions]):
        raise BadRow(f"{column!r} is {shown(value)}, with {'an empty' if words else 'no'} label: {_EXPECTED}")
    expect_whole_characters([*words, *descriptions])
    if len(set(descriptions)) < len(descriptions):
        raise BadRow(f"{column!r} is {shown(value)}, with one description twice: each label needs its own")
    return labels  # type: ignore[no-any-return]  # checked above


def _parse(text: str) -> Any:
    if text.lstrip().startswith(("[", "{")):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return None
    return [word for word in map(str.strip, text.split(",")) if word]
