"""Lone surrogates: halves of characters, which Python's strings and JSON's escapes can hold, and UTF-8 cannot."""

from __future__ import annotations

import re

_LONE = re.compile("[\ud800-\udfff]")


def without_surrogates(text: str) -> str:
    """The text with U+FFFD for each, as the default splitter reads it: no tokenizer takes them, and few libraries."""
    return _LONE.sub("\ufffd", text)


def has_surrogates(text: str) -> bool:
    """Whether UTF-8 cannot hold a text."""
    return not text.isascii() and _LONE.search(text) is not None
