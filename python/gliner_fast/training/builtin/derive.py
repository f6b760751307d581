"""Annotated files -> the same with labels that follow from their words: a country is a place whose name says so."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from gliner_fast.annotated.example import Example
from gliner_fast.annotated.examples import read_examples, rename_labels
from gliner_fast.annotated.writers import write_examples

# Names of today's and of former countries, as English texts write them, lower-case.
COUNTRIES = frozenset(Path(__file__).with_name("countries.txt").read_text(encoding="utf-8").splitlines())
_UNIVERSITY = re.compile(r"univers|college|institute of technology|polytechnic", re.IGNORECASE)


def _is_country(words: Sequence[str]) -> bool:
    name = " ".join(words).lower()
    return name.removeprefix("the ") in COUNTRIES


def _is_university(words: Sequence[str]) -> bool:
    return _UNIVERSITY.search(" ".join(words)) is not None


# Labels that mean something else than they say outside their own file.
_RENAMED = {"stackoverflow": {"language": "programming language", "library": "software library", "value": "code value"}}

# (a label that a file marks in full, a narrower one, when it holds): so the narrower one is marked in full as well.
_RULES: list[tuple[str, str, Callable[[Sequence[str]], bool]]] = [
    ("geopolitical entity", "country", _is_country),
    ("educational institution", "university", _is_university),
]


def derive(example: Example) -> Example:
    """An example with the narrower labels of its spans beside those that it has."""
    more = [
        (start, end, narrower)
        for start, end, label in example.spans
        for wide, narrower, holds in _RULES
        if label == wide and holds(example.words[start:end])
    ]
    return replace(example, spans=(*example.spans, *more))


def write_derived(source: Path, target: Path) -> None:
    """Reads a file of examples, derives, and writes it in GLiNER's format, last words included."""
    examples = read_examples(source)
    renamed = _RENAMED.get(source.name.partition(".")[0])
    if renamed is not None:
        examples = rename_labels(examples, renamed)
    write_examples(list(map(derive, examples)), target, "gliner")
