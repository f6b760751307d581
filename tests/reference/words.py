"""Text -> words: the expression of gliner's WhitespaceTokenSplitter itself."""

import re

WORD = re.compile(r"\w+(?:[-_]\w+)*|\S")


def split_words(text: str) -> list[tuple[str, int, int]]:
    """Words with their offsets in code points."""
    return [(match.group(), match.start(), match.end()) for match in WORD.finditer(text)]


def replace_surrogates(text: str) -> str:
    """The text with U+FFFD for each lone surrogate, as Rust's strings cannot hold those."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)
