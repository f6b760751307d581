"""Long texts -> windows of words that overlap, each span owned by exactly one of them.

A window sees every span that it owns whole, with words on both sides, so the candidates of all windows of a text,
owned ones alone, are those of the text, and the decoder resolves them together as it does those of a short text.
A token-level model knows no widest span: of its spans those of more than half of what windows share may be cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gliner_fast import _rust

# Words of context that a window shares with the next one: half of them lie on either side of where ownership changes.
_OVERLAP = 64


@dataclass(frozen=True)
class Rows:
    """What the network reads: whole texts, and windows of those that are too long.

    Attributes:
        texts: (R,) the text of each row; ascending, windows of a text in reading order.
        firsts: (R,) its first word, counted in the text.
        lasts: (R,) one past its last word.
        owned_firsts: (R,) it owns the spans that start at this word
        owned_lasts: (R,) or later, and before this one.
        are_windows: (R,) True for rows that are a part of their text.
    """

    texts: NDArray[np.int64]
    firsts: NDArray[np.int64]
    lasts: NDArray[np.int64]
    owned_firsts: NDArray[np.int64]
    owned_lasts: NDArray[np.int64]
    are_windows: NDArray[np.bool_]


def cut_rows(word_counts: NDArray[np.int64], sizes: NDArray[np.int64], max_width: int) -> Rows:
    """Cuts texts into windows.

    Consecutive windows share max(64, 4 * max_width) words, but at most half a window, and never so few that a span
    could lie whole in neither of them. In the middle of what they share ownership changes: a span that starts before
    belongs to the left one. Where a window's words are so few that the longest spans from there would pass its end,
    ownership changes as many words earlier.

    Args:
        word_counts: words of each text, (T,).
        sizes: most words of a window of each text, (T,), at least 1.
        max_width: K, words of the widest span.
    """
    count = len(word_counts)
    if (word_counts <= sizes).all():  # nearly always, and a text alone would feel the arithmetic
        nothing = np.zeros(count, np.int64)
        return Rows(np.arange(count), nothing, word_counts, nothing, word_counts, np.zeros(count, np.bool_))
    widest = np.minimum(max_width, sizes)
    overlaps = np.maximum(np.minimum(sizes // 2, max(_OVERLAP, 4 * max_width)), widest - 1)
    steps = sizes - overlaps  # at least 1
    owner_changes = np.minimum(overlaps // 2, overlaps - (widest - 1))  # words after the start of the right window
    window_counts = 1 + np.maximum(0, -((sizes - word_counts) // steps))  # 1 + ceil((words - size) / step)
    texts = np.repeat(np.arange(count), window_counts)  # (R,)
    numbers = np.arange(len(texts)) - np.repeat(np.cumsum(window_counts) - window_counts, window_counts)
    firsts = numbers * steps[texts]
    owned_firsts = np.where(numbers > 0, firsts + owner_changes[texts], 0)
    is_last = numbers == window_counts[texts] - 1
    return Rows(
        texts,
        firsts,
        np.minimum(firsts + sizes[texts], word_counts[texts]),
        owned_firsts,
        np.where(is_last, word_counts[texts], firsts + (steps + owner_changes)[texts]),
        window_counts[texts] > 1,
    )


def fit_rows(
    rows: Rows, chosen: NDArray[np.bool_], word_lengths: NDArray[np.int64], word_offsets: NDArray[np.int64],
    rooms: NDArray[np.int64], most: int, max_width: int, *, least: int,
) -> Rows:  # fmt: skip
    """Cuts some texts into windows by their subwords instead, so that each window is about as full as it may be.

    Args:
        rows: of all texts.
        chosen: the texts to be cut anew, (T,).
        word_lengths: subwords of each word, text after text, (W,).
        word_offsets: where each text's words begin, and where the last one's end, (T + 1,).
        rooms: most subwords of a window of each text, (T,), at least 1 where it is chosen.
        most: words of a window.
        max_width: K, words of the widest span.
        least: fewest words from the first that a window owns to its end, however many subwords they have; at least 1.
    """
    kept = ~chosen[rows.texts]
    parts = [[column[kept] for column in (rows.texts, rows.firsts, rows.lasts, rows.owned_firsts, rows.owned_lasts)]]
    for text in np.flatnonzero(chosen).tolist():
        lengths = word_lengths[word_offsets[text] : word_offsets[text + 1]]
        windows = np.array(list(_fit_windows(lengths, int(rooms[text]), most, max_width, least)), np.int64)  # (V, 4)
        parts.append([np.full(len(windows), text), *windows.T])
    texts, firsts, lasts, owned_firsts, owned_lasts = map(np.concatenate, zip(*parts, strict=True))
    order = np.argsort(texts, kind="stable")
    texts = texts[order]
    are_windows = np.bincount(texts, minlength=len(chosen))[texts] > 1
    return Rows(texts, firsts[order], lasts[order], owned_firsts[order], owned_lasts[order], are_windows)


def _fit_windows(
    lengths: NDArray[np.int64], room: int, most: int, max_width: int, least: int
) -> Iterator[tuple[int, int, int, int]]:
    """First word, end, first owned word and their end of the windows of a text whose words have so many subwords.

    What it owns lies among words of context: in front of it up to an eighth of the room, behind it the words of the
    widest span, and more where there are many. A window of few words owns half of them all the same, so that dense
    lines do not make one for each word; spans wider than the other half may lie whole in none there.
    """
    count = len(lengths)
    ends = np.concatenate([[0], np.cumsum(lengths)])  # subwords in front of each word, (n + 1,)
    margin = max(_OVERLAP, 4 * max_width) // 2
    owned = 0
    if not count:
        yield 0, 0, 0, 0
    while owned < count:
        before = int(np.searchsorted(ends, ends[owned] - room // 8, "left"))
        first = max(0, owned - margin, before)
        last = _last_fitting(ends, first, room, most)
        if last < min(owned + max(max_width, least), count):  # no room to spare
            first, last = owned, _last_fitting(ends, owned, room, most)
        last = min(max(last, owned + least), count)
        words = last - owned
        behind = min(margin, max(max_width - 1, words // 4))
        owned_end = count if last == count else owned + max(words - behind, words // 2, 1)
        yield first, last, owned, owned_end
        owned = owned_end


def _last_fitting(ends: NDArray[np.int64], first: int, room: int, most: int) -> int:
    """One past the last of the words from `first` on that have room."""
    return min(int(np.searchsorted(ends, ends[first] + room, "right")) - 1, first + most)


def words_of_rows(texts: Sequence[str], words: _rust.Words, rows: Rows) -> _rust.Words:
    """The words of each row, as if its part of the text were a text of its own.

    They are never split again: another splitter need not find the same words in a part of a text.
    """
    if not rows.are_windows.any():
        return words
    counts = rows.lasts - rows.firsts
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)  # (R + 1,)
    firsts = words.text_offsets[rows.texts] + rows.firsts
    chosen = np.arange(offsets[-1]) + np.repeat(firsts - offsets[:-1], counts)  # (W,)
    starts, ends = words.starts[chosen], words.ends[chosen]
    parts = [texts[text] for text in rows.texts.tolist()]
    for row in np.flatnonzero(rows.are_windows).tolist():
        own = slice(offsets[row], offsets[row + 1])
        # Minimum and maximum: a user's splitter may give words in any order.
        begin, end = int(starts[own].min()), int(ends[own].max())
        parts[row] = parts[row][begin:end]
        starts[own] -= begin
        ends[own] -= begin
    return _rust.Words.from_offsets(parts, offsets, starts, ends)
