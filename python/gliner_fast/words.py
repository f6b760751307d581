"""Texts -> words, with the running interpreter's own Unicode tables (compat section 4.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gliner_fast import _rust

WordTriples = Callable[[str], Iterable[tuple[str, int, int]]]
NO_LIMIT = 2**62  # more words, or subwords, than any text has
LONGEST_WORD = 2**14  # characters
ENDLESS_WORD = (
    f"has a word of more than {LONGEST_WORD:,} characters, which is not read: the time and memory that a model takes "
    "grow with the square of a word's subwords, to which this model's tokenizer sets no limit. Break it up, or leave "
    "it out"
)


class WordsSplitter:
    """A callable that yields the words of its `splitter`, for which another may be assigned, as in `gliner`."""

    def __init__(self, splitter: WordTriples) -> None:
        """Takes what yields (word, start, end) for a text."""
        self.splitter = splitter

    def __call__(self, text: str) -> Iterator[tuple[str, int, int]]:
        """(word, start, end) in code points."""
        yield from self.splitter(text)


def unicode_ranges(pattern: str) -> NDArray[np.uint32]:
    r"""Code points that `pattern`, such as r"\w", matches on this interpreter, as half-open ranges, (N, 2).

    Asking the regular-expression engine itself makes the table right by construction: Python's `\w` is not that of
    other engines, and it changes with the interpreter's Unicode version.
    """
    every_code_point = np.arange(0x110000, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    spans = [match.span() for match in re.finditer(f"{pattern}+", every_code_point)]
    return np.array(spans, np.uint32).reshape(-1, 2)


@lru_cache(maxsize=1)
def whitespace_splitter() -> _rust.WordSplitter:
    r"""The default splitter, `\w+(?:[-_]\w+)*|\S` (compat section 4.1)."""
    return _rust.WordSplitter(unicode_ranges(r"\w"), unicode_ranges(r"\s"))


@dataclass(frozen=True)
class SplitTexts:
    """The words of B texts.

    Attributes:
        words: where they stand.
        read: what the model reads, word for word: the same, unless a user's splitter gives others, say lower case.
        read_texts: the texts that `read` counts in.
        total_counts: how many words each text had before the cut, (B,).
    """

    words: _rust.Words
    read: _rust.Words
    read_texts: Sequence[str]
    total_counts: NDArray[np.int64]


def split_words(texts: Sequence[str], max_words: int = NO_LIMIT, splitter: WordTriples | None = None) -> SplitTexts:
    """Splits texts into words, of which at most `max_words` a text are kept.

    Args:
        texts: B texts.
        max_words: longest text in words.
        splitter: the user's own, a callable that yields (word, start, end) in code points; None for the default.
    """
    if splitter is None:
        words = whitespace_splitter().split(texts, max_words)
        return SplitTexts(words, words, texts, words.total_counts)
    triples = [list(splitter(text)) for text in texts]
    total_counts = np.array([len(own) for own in triples], np.int64)
    triples = [own[:max_words] for own in triples]
    words = words_from_offsets(texts, [[(start, end) for _, start, end in own] for own in triples])
    lists = [[word for word, _, _ in own] for own in triples]
    return SplitTexts(words, _rust.Words.from_lists(lists), [" ".join(own) for own in lists], total_counts)


def word_span_finder(starts: Sequence[int], ends: Sequence[int]) -> Callable[[int, int], tuple[int, int] | None]:
    """What finds the words of character spans of one text.

    Args:
        starts: where each word of the text begins, in code points.
        ends: where each ends.

    Returns:
        A function of a span's first character and one past its last: the first word and one past the last; None where
        the span does not begin and end with a word.
    """
    # Several words may stand at one place, as the parts of a contraction do: a span has all of them.
    first_at = {start: word for word, start in reversed([*enumerate(starts)])}
    last_at = {end: word for word, end in enumerate(ends)}

    def find(start: int, end: int) -> tuple[int, int] | None:
        first, last = first_at.get(start), last_at.get(end)
        return None if first is None or last is None else (first, last + 1)

    return find


def words_from_offsets(texts: Sequence[str], offsets: Sequence[Sequence[tuple[int, int]]]) -> _rust.Words:
    """Words given by their code point offsets, one list of (start, end) a text."""
    text_offsets = np.concatenate([[0], np.cumsum([len(own) for own in offsets], dtype=np.int64)]).astype(np.int64)
    flat = np.array([pair for own in offsets for pair in own], np.int64).reshape(-1, 2)
    starts, ends = np.ascontiguousarray(flat[:, 0]), np.ascontiguousarray(flat[:, 1])
    return _rust.Words.from_offsets(texts, text_offsets, starts, ends)
