"""Tags of words -> spans: IOB1, IOB2 (BIO), BIOES and BILOU by one rule, as conlleval reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gliner_fast.annotated.example import Span

_TAG = re.compile(r"([BIESLU])-(.+)", re.DOTALL)
_BEGINS = frozenset("BSU")
_ENDS = frozenset("ESLU")


def is_tag(tag: str) -> bool:
    """Whether a tag has a meaning: O, or a letter of B I E S L U, "-" and a label."""
    return tag == "O" or _TAG.fullmatch(tag) is not None


def spans_of_tags(tags: Sequence[str]) -> tuple[Span, ...]:
    """The spans that tags stand for; each must be one by `is_tag`.

    A span begins at B, S or U, and at any other letter that does not go on with the label of an open span, as IOB1 has
    it. It ends before such a word or O, and behind E, L, S or U.
    """
    spans: list[Span] = []
    open_label: str | None = None
    for word, tag in enumerate(tags):
        match = _TAG.fullmatch(tag)
        if match is None:  # O
            open_label = None
            continue
        letter, label = match.groups()
        if open_label == label and letter not in _BEGINS:
            start, _, _ = spans.pop()
        else:
            start = word
        spans.append((start, word + 1, label))
        open_label = None if letter in _ENDS else label
    return tuple(spans)
