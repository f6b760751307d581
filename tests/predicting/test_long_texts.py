"""Where the windows of long texts lie: each word owned by one, each span seen whole by its owner, none too full."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliner_fast import _rust
from gliner_fast.predicting.long_texts import cut_rows, fit_rows, words_of_rows
from tests.reference.examples import examples

# Most words and widest span -> words that windows share. The usual size; small ones; no room for half a window.
OVERLAPS = {(384, 12): 64, (384, 24): 96, (512, 12): 64, (100, 12): 50, (24, 3): 12, (24, 12): 12, (16, 12): 11,
            (12, 12): 11, (8, 12): 7, (2, 1): 1, (1, 12): 0, (1, 1): 0}  # fmt: skip


@pytest.mark.parametrize(("size", "width"), OVERLAPS)
def test_the_words_that_windows_share(size, width):
    rows = cut_rows(np.array([5 * size]), np.array([size]), width)
    assert set((rows.lasts[:-1] - rows.firsts[1:]).tolist()) == {OVERLAPS[size, width]}


@pytest.mark.parametrize(
    ("words", "windows"), [(0, 1), (1, 1), (384, 1), (385, 2), (704, 2), (705, 3), (1_000_000, 3125)]
)
def test_the_number_of_windows(words, windows):
    rows = cut_rows(np.array([words]), np.array([384]), 12)
    assert len(rows.texts) == windows
    assert rows.are_windows.tolist() == [windows > 1] * windows


@examples
@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(1, 60)), max_size=5),
    st.integers(1, 15),
)
def test_every_span_is_owned_once_and_by_a_window_that_sees_it_whole(texts, width):
    counts, sizes = (np.array([pair[at] for pair in texts], np.int64) for at in (0, 1))
    rows = cut_rows(counts, sizes, width)
    owners = [[] for _ in texts]
    for text, first, last, owned_first, owned_last, is_window in zip(
        rows.texts, rows.firsts, rows.lasts, rows.owned_firsts, rows.owned_lasts, rows.are_windows, strict=True
    ):
        count, size = texts[text]
        assert 0 <= first <= owned_first <= owned_last <= last <= count
        assert last - first <= size
        assert is_window == (count > size)
        owners[text] += range(owned_first, owned_last)
        # A span is cut off by the end of its text alone; a model that reads fewer words than K has no wider spans.
        assert last == count or owned_last - 1 + min(width, size) <= last
        if size >= 4 * width:  # words of context before it, wherever there is room for them
            assert first == 0 or owned_first - first >= width
    assert owners == [list(range(count)) for count, _ in texts]


def test_windows_by_subwords_see_the_widest_spans_whole_however_wide():
    offsets, rooms, chosen = np.array([0, 300]), np.array([150]), np.array([True])
    rows = cut_rows(np.array([300]), np.array([100]), 40)
    rows = fit_rows(rows, chosen, np.ones(300, np.int64), offsets, rooms, 100, 40, least=1)
    assert len(rows.texts) > 2
    assert (rows.owned_lasts[:-1] - 1 + 40 <= rows.lasts[:-1]).all()


@examples
@given(
    texts=st.lists(st.lists(st.sampled_from([0, 1, 1, 1, 2, 5, 20, 90]), max_size=200), min_size=1, max_size=4),
    room=st.integers(1, 120),
    most=st.integers(1, 100),
    width=st.integers(1, 15),
    least=st.sampled_from([1, 4]),
    data=st.data(),
)
def test_windows_by_subwords_own_every_word_once_and_are_as_full_as_may_be(texts, room, most, width, least, data):
    chosen = np.array([data.draw(st.booleans()) for _ in texts])
    counts = np.array([len(text) for text in texts], np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    lengths = np.array([length for text in texts for length in text], np.int64)
    before = cut_rows(counts, np.full(len(texts), most), width)
    rows = fit_rows(before, chosen, lengths, offsets, np.full(len(texts), room), most, width, least=least)
    owners = [[] for _ in texts]
    for text, first, last, owned_first, owned_last, is_window in zip(
        rows.texts, rows.firsts, rows.lasts, rows.owned_firsts, rows.owned_lasts, rows.are_windows, strict=True
    ):
        count = len(texts[text])
        owners[text] += range(owned_first, owned_last)
        assert is_window == (int((rows.texts == text).sum()) > 1)
        if not chosen[text]:
            continue
        assert 0 <= first <= owned_first <= owned_last <= last <= count
        assert owned_first < owned_last or count == 0
        subwords = sum(texts[text][first:last])
        assert subwords <= room or (first == owned_first and last - first <= least)
        assert last - first <= max(most, least)
        words = last - owned_first
        # Where there are words enough, a span is cut off by the end of its text alone; else spans of half a window are.
        seen_whole = width if words >= 2 * width else 1 + words - max(words - width + 1, words // 2, 1)
        assert last == count or owned_last - 1 + seen_whole <= last
        # Nothing that has room is left out: the next word would be one too many.
        assert last == count or last - first >= most or subwords + texts[text][last] > room or last - first == least
    assert owners == [list(range(count)) for count in counts]
    assert list(rows.texts) == sorted(rows.texts)
    others = ~chosen[before.texts]
    assert rows.firsts[~chosen[rows.texts]].tolist() == before.firsts[others].tolist()


def test_windows_have_their_words_in_whatever_order_these_come():
    text = "Ada met Grace in London today"
    starts, ends = np.array([8, 4, 0, 23, 14, 17]), np.array([13, 7, 3, 29, 16, 23])  # backwards, three and three
    words = _rust.Words.from_offsets([text], np.array([0, 6]), starts, ends)
    rows = cut_rows(np.array([6]), np.array([3]), 1)
    wanted = [words.to_lists()[0][first:last] for first, last in zip(rows.firsts, rows.lasts, strict=True)]
    assert wanted[0] == ["Grace", "met", "Ada"]
    assert words_of_rows([text], words, rows).to_lists() == wanted
