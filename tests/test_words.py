"""The splitter of gliner_fast._rust against the regular expression, on this interpreter's Unicode tables."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliner_fast import _rust
from gliner_fast.words import split_words as split_into_words
from gliner_fast.words import unicode_ranges, word_span_finder
from tests.reference.examples import examples
from tests.reference.words import WORD, replace_surrogates, split_words

SPLITTER = _rust.WordSplitter(unicode_ranges(r"\w"), unicode_ranges(r"\s"))

# Texts and their words (compat 4.1).
CASES = {
    "": [],
    " \t\n\u3000": [],
    "Hello, World! U.S.A.": ["Hello", ",", "World", "!", "U", ".", "S", ".", "A", "."],
    "state-of-the-art foo_bar -x- a--b x-_y": [
        "state-of-the-art", "foo_bar", "-", "x", "-", "a", "-", "-", "b", "x-_y",
    ],
    "3.14 don't e-mail@x.com C++": ["3", ".", "14", "don", "'", "t", "e-mail", "@", "x", ".", "com", "C", "+", "+"],
    "_a_-b": ["_a_-b"],
    "a-": ["a", "-"],
    "a-é": ["a-é"],
    "e\u0301a": ["e", "\u0301", "a"],
    "क्षि": ["क", "\u094d", "ष", "\u093f"],
    "①② x²": ["①②", "x²"],
    "日本語テキスト。": ["日本語テキスト", "。"],
    "👩\u200d🚀!": ["👩", "\u200d", "🚀", "!"],
    "y\u2009z\x1cw": ["y", "z", "w"],
    "a\x00b": ["a", "\x00", "b"],
}  # fmt: skip

# Characters at which splitters go wrong, and any others, lone surrogates included.
CHARACTERS = st.one_of(
    st.sampled_from("aZ09_- .,'é\u0301\u200d\u2009\x1c\u00ad日本क्षि①²👩🚀\ud800\udfff\ufffd\u2028\x85\xa0"),
    st.characters(exclude_categories=()),
)
TEXTS = st.text(CHARACTERS, max_size=60)


def as_triples(words: _rust.Words) -> list[list[tuple[str, int, int]]]:
    starts, ends, offsets = words.starts.tolist(), words.ends.tolist(), words.text_offsets.tolist()
    places = list(zip(starts, ends, strict=True))
    return [
        [(word, *place) for word, place in zip(own, places[first:last], strict=True)]
        for own, first, last in zip(words.to_lists(), offsets, offsets[1:], strict=False)
    ]


def expected(texts: list[str], max_words: int | None = None) -> list[list[tuple[str, int, int]]]:
    return [split_words(replace_surrogates(text))[:max_words] for text in texts]


@pytest.mark.parametrize("text", CASES, ids=ascii)
def test_known_texts_split_as_gliner_splits_them(text: str):
    assert SPLITTER.split([text]).to_lists() == [CASES[text]]


@pytest.mark.parametrize("context", ["{}", "a{}b", "{}-{}", "a-{}_"])
def test_every_code_point_splits_as_the_expression_splits_it(context: str):
    text = " ".join(context.replace("{}", chr(code_point)) for code_point in range(0x110000))
    words = SPLITTER.split([text])
    spans = np.array([match.span() for match in WORD.finditer(text)])
    np.testing.assert_array_equal(words.starts, spans[:, 0])
    np.testing.assert_array_equal(words.ends, spans[:, 1])
    assert words.to_lists() == [WORD.findall(replace_surrogates(text))]


@examples
@given(st.lists(TEXTS, max_size=5))
def test_any_texts_split_as_the_expression_splits_them(texts: list[str]):
    words = SPLITTER.split(texts)
    assert as_triples(words) == expected(texts)
    assert len(words) == len(texts)
    assert words.total_counts.tolist() == [len(split_words(text)) for text in texts]


@examples
@given(TEXTS)
def test_offsets_slice_the_original_text_even_with_surrogates(text: str):
    words = SPLITTER.split([text])
    slices = [text[start:end] for start, end in zip(words.starts, words.ends, strict=True)]
    assert slices == [word for word, _, _ in split_words(text)]


@examples
@given(st.lists(TEXTS, max_size=4), st.integers(0, 8))
def test_max_words_cuts_each_text_and_tells_what_it_had(texts: list[str], max_words: int):
    words = SPLITTER.split(texts, max_words)
    assert as_triples(words) == expected(texts, max_words)
    assert words.total_counts.tolist() == [len(split_words(text)) for text in texts]


def test_max_words_cuts_what_a_user_s_splitter_gives_and_tells_what_there_was():
    split = split_into_words(["a bc d", "e"], 2, lambda text: [(m[0].upper(), *m.span()) for m in WORD.finditer(text)])
    assert as_triples(split.words) == [[("a", 0, 1), ("bc", 2, 4)], [("e", 0, 1)]]
    assert split.read.to_lists() == [["A", "BC"], ["E"]]
    assert split.read_texts == ["A BC", "E"]
    assert split.total_counts.tolist() == [3, 1]


@examples
@given(st.data(), st.lists(TEXTS, max_size=4))
def test_words_of_another_splitter_are_slices_of_their_text(data: st.DataObject, texts: list[str]):
    rows: list[tuple[str, int, int]] = []
    counts = []
    for text in texts:
        edges = st.integers(0, len(text))
        own = data.draw(st.lists(st.tuples(edges, edges).map(sorted), max_size=4))
        rows += [(replace_surrogates(text[start:end]), start, end) for start, end in own]
        counts.append(len(own))
    offsets = np.cumsum([0, *counts])
    starts, ends = (np.array([row[column] for row in rows], np.int64) for column in (1, 2))
    words = _rust.Words.from_offsets(texts, offsets, starts, ends)
    assert [triple for own in as_triples(words) for triple in own] == rows
    assert words.text_offsets.tolist() == offsets.tolist()
    assert words.total_counts.tolist() == counts


@examples
@given(st.lists(st.lists(TEXTS, max_size=4), max_size=4))
def test_presplit_words_lie_as_if_joined_by_blanks(texts: list[list[str]]):
    words = _rust.Words.from_lists(texts)
    assert words.to_lists() == [[replace_surrogates(word) for word in own] for own in texts]
    for own, triples in zip(texts, as_triples(words), strict=True):
        joined = " ".join(own)
        assert [joined[start:end] for _, start, end in triples] == own


def test_a_word_of_a_megabyte_is_one_word():
    for character in ("x", "é", "日"):
        text = f"{character * 2**20} end"
        words = SPLITTER.split([text])
        assert words.ends.tolist() == [2**20, 2**20 + 4]
        assert words.to_lists() == [text.split()]


def test_a_million_texts_are_split_in_one_call():
    words = SPLITTER.split(["a b"] * 10**6)
    assert len(words) == 10**6
    assert words.text_offsets[-1] == 2 * 10**6


@pytest.mark.parametrize("text", ["Ada lived.", "Zoë lived.", "我在Google上班", "a \U0001f600 b", "\ud800 x"])
def test_a_text_takes_no_more_memory_once_it_was_read(text: str):
    text = text * 50  # not one that the interpreter keeps
    before = sys.getsizeof(text)
    SPLITTER.split([text], 5)
    assert sys.getsizeof(text) == before


def test_a_subclass_of_str_is_read_as_the_string_it_is():
    class Text(str):
        __slots__ = ()

        def encode(self, *args: object) -> bytes:  # noqa: ARG002  # must not be asked
            return b"something else"

        def isascii(self) -> bool:  # nor this
            return True

    assert SPLITTER.split([Text("a \ud800")]).to_lists() == [["a", "\ufffd"]]


def test_a_list_that_says_it_is_longer_is_read_to_its_end():
    class Long(list):
        __slots__ = ()

        def __len__(self) -> int:
            return 2**62

    assert SPLITTER.split(Long(["a b"])).to_lists() == [["a", "b"]]
    assert _rust.Words.from_lists(Long([["a", "b"]])).to_lists() == [["a", "b"]]


def test_the_splitter_follows_the_tables_that_it_is_given():
    only_a = np.array([[ord("a"), ord("a") + 1]], np.uint32)
    only_z = np.array([[ord("z"), ord("z") + 1]], np.uint32)
    assert _rust.WordSplitter(only_a, only_z).split(["aaz a-ab a_a_"]).to_lists() == [
        ["aa", " ", "a-a", "b", " ", "a_a", "_"]
    ]


EMPTY = np.zeros((0, 2), np.uint32)


def test_ranges_may_touch_or_be_empty_and_end_with_the_last_character():
    ranges = np.array([[0, 3], [3, 3], [3, ord("b")], [0x10FFFF, 0x110000]], np.uint32)
    assert _rust.WordSplitter(ranges, EMPTY).split(["a\U0010ffffba"]).to_lists() == [["a\U0010ffff", "b", "a"]]


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ([[5, 4]], r"word_ranges\[0\] is 5\.\.4"),
        ([[5, 9], [8, 12]], r"word_ranges\[1\] is 8\.\.12 after a range that ends at 9"),
        ([[0, 0x110001]], r"up to 1114112"),
    ],
)
def test_tables_out_of_order_are_refused(ranges: list[list[int]], message: str):
    with pytest.raises(ValueError, match=message):
        _rust.WordSplitter(np.array(ranges, np.uint32), EMPTY)


def test_tables_of_another_shape_or_dtype_are_refused():
    with pytest.raises(ValueError, match=r"word_ranges has shape \[2, 3\]: expected \(N, 2\)"):
        _rust.WordSplitter(np.zeros((2, 3), np.uint32), EMPTY)
    with pytest.raises(ValueError, match="space_ranges is not C-contiguous"):
        _rust.WordSplitter(EMPTY, np.zeros((2, 4), np.uint32)[:, ::2])
    with pytest.raises(TypeError, match="from=int64, to=uint32"):
        _rust.WordSplitter(np.zeros((0, 2), np.int64), EMPTY)


def test_what_is_no_list_of_texts_is_refused():
    with pytest.raises(TypeError, match="texts is a str: put it into a list"):
        SPLITTER.split("a text")
    with pytest.raises(TypeError, match=r"texts\[1\] is of <class 'int'>: expected a str"):
        SPLITTER.split(["a", 3])
    with pytest.raises(TypeError, match="not iterable"):
        SPLITTER.split(3)
    with pytest.raises(TypeError, match=r"texts\[0\] is a str"):
        _rust.Words.from_lists(["a text"])
    with pytest.raises(TypeError, match=r"texts\[0\]\[1\] is of <class 'NoneType'>"):
        _rust.Words.from_lists([["a", None]])
    with pytest.raises(TypeError, match="texts is a str: expected a list of words for each text"):
        _rust.Words.from_lists("")


@pytest.mark.parametrize("max_words", [-1, -(2**80), 2**80])
def test_absurd_limits_are_refused(max_words: int):
    with pytest.raises(ValueError, match=f"max_words is {max_words}"):
        SPLITTER.split(["a"], max_words)


@pytest.mark.parametrize(
    ("offsets", "starts", "ends", "message"),
    [
        ([0, 1], [0], [4], r"word 0 is 0\.\.4, which is not within text 0 of 3 code points"),
        ([0, 1], [-1], [2], r"word 0 is -1\.\.2"),
        ([0, 1], [2], [1], r"word 0 is 2\.\.1"),
        ([0, 1], [0, 1], [1], "starts has 2 values and ends has 1"),
        ([0, 1], [0], [1, 2], "starts has 1 values and ends has 2"),
        ([0, 2], [0], [1], "text_offsets ends at 2, but 1 values were given"),
        ([0, 0, 1], [0], [1], "text_offsets has 3 values for 1 texts"),
        ([0], [], [], "text_offsets has 1 values for 1 texts"),
        ([1, 1], [0], [1], r"text_offsets\[0\] is 1"),
        ([], [], [], "text_offsets is empty"),
        ([0, -1], [], [], r"text_offsets\[1\] is -1, below 0"),
    ],
)
def test_offsets_that_do_not_fit_are_refused(offsets: list[int], starts: list[int], ends: list[int], message: str):
    arrays = (np.array(values, np.int64) for values in (offsets, starts, ends))
    with pytest.raises(ValueError, match=message):
        _rust.Words.from_offsets(["dé日"], *arrays)


def test_a_span_has_all_words_that_stand_at_its_ends():
    find = word_span_finder([0, 0, 3, 6, 6], [2, 2, 5, 8, 8])  # the first two, and the last two, at one place
    spans = [(0, 2), (3, 5), (0, 5), (3, 8), (6, 8), (0, 8)]
    assert [find(*span) for span in spans] == [(0, 2), (2, 3), (0, 3), (2, 5), (3, 5), (0, 5)]
    assert [find(*span) for span in ((1, 2), (0, 3), (2, 5))] == [None] * 3
