"""Subword cache and row assembly of gliner_fast._rust against the plain-Python reference."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gliner_fast import _rust
from tests.reference.examples import examples
from tests.reference.rows import make_row

CLASS_TOKEN, PAD = 900, 0
POOLINGS = ("first", "last", "mean", "max")
NO_IDS = np.zeros(0, np.int64)


def int64(values: Sequence[int]) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def ids_of(word: str) -> list[int]:
    """A tokenizer: none to four ids, by the word alone; now and then the class token."""
    seed = zlib.crc32(word.encode())
    return [CLASS_TOKEN if (seed + n) % 23 == 0 else 1 + (seed + n) % 800 for n in range(seed % 5)]


def look_up(cache: _rust.SubwordCache, texts: list[list[str]], tokenize: Callable[[str], list[int]] = ids_of):
    lookup = cache.look_up(_rust.Words.from_lists(texts))
    pieces = [tokenize(word) for word in lookup.missing]
    ids, counts = [one for own in pieces for one in own], [len(own) for own in pieces]
    return lookup.missing, lookup.complete(int64(ids), int64(counts))


@dataclass(frozen=True)
class Prompt:
    """The ids of each word of a prompt; some may have none."""

    words: list[list[int]]


def as_prompts(prompts: list[Prompt]) -> _rust.Prompts:
    flat = [[one for own in prompt.words for one in own] for prompt in prompts]
    shifts = [sum(1 for own in prompt.words if own) - len(prompt.words) for prompt in prompts]
    ids = [one for own in flat for one in own]
    return _rust.Prompts(int64(ids), np.cumsum([0, *map(len, flat)]), int64(shifts))


def layout(pooling: str = "first", *, max_subwords: int | None = None, corrected: bool = False, **special: list[int]):
    return _rust.RowLayout(
        prefix=int64(special.get("prefix", [101])),
        suffix=int64(special.get("suffix", [102])),
        pad_id=PAD,
        class_token_id=CLASS_TOKEN,
        max_subwords=max_subwords,
        pooling=pooling,
        corrected=corrected,
    )


WORDS = st.text("ab\x01é日", max_size=6)
TEXTS = st.lists(st.lists(WORDS, max_size=6), min_size=1, max_size=4)
# A prompt: class token, label, class token, label, separator; a label may have no id.
PROMPTS = st.lists(st.lists(st.integers(1, 800), max_size=3), max_size=3).map(
    lambda labels: Prompt([own for label in labels for own in ([CLASS_TOKEN], label)] + [[901]])
)
SPECIALS = st.lists(st.sampled_from([100, 101, CLASS_TOKEN]), max_size=2)


def check_rows(
    rows: _rust.Rows,
    texts: list[list[str]],
    prompts: list[Prompt],
    chosen: list[tuple[int, int]],
    *,
    padded: bool = True,
    **rules: object,
) -> None:
    """Compares each array of the rows with what the reference's words masks say."""
    expected = [
        make_row(prompts[prompt].words, [ids_of(word) for word in texts[text]], **rules) for text, prompt in chosen
    ]
    width = max((len(row.input_ids) for row in expected), default=0) if padded else 0
    filled = [row.input_ids + [PAD] * (width - len(row.input_ids)) for row in expected]
    if padded:
        assert rows.input_ids.shape == (len(chosen), width)
        assert rows.input_ids.tolist() == filled
    else:
        assert rows.input_ids.tolist() == [one for row in filled for one in row]
    begins = np.cumsum([0, *map(len, filled)]).tolist()
    assert rows.offsets.tolist() == begins
    assert rows.lengths.tolist() == [len(row.input_ids) for row in expected]
    assert rows.word_counts.tolist() == [len(texts[text]) for text, _ in chosen]

    firsts = np.cumsum([0, *rows.word_counts])
    pooled = [
        (begins[number] + place, firsts[number] + mark - 1)
        for number, row in enumerate(expected)
        for place, mark in enumerate(row.words_mask)
        if mark > 0
    ]
    assert list(zip(rows.pooled_positions, rows.pooled_words, strict=True)) == pooled
    classes = [
        begins[number] + place
        for number, row in enumerate(expected)
        for place, one in enumerate(row.input_ids)
        if one == CLASS_TOKEN
    ]
    assert rows.class_positions.tolist() == classes
    assert rows.class_counts.tolist() == [row.input_ids.count(CLASS_TOKEN) for row in expected]


@examples
@given(
    data=st.data(),
    texts=TEXTS,
    prompts=st.lists(PROMPTS, min_size=1, max_size=3),
    prefix=SPECIALS,
    suffix=SPECIALS,
    pooling=st.sampled_from(POOLINGS),
    corrected=st.booleans(),
)
def test_rows_are_those_of_the_reference_cut_at_every_length(
    data: st.DataObject,
    texts: list[list[str]],
    prompts: list[Prompt],
    prefix: list[int],
    suffix: list[int],
    pooling: str,
    corrected: bool,
):
    pairs = st.tuples(st.integers(0, len(texts) - 1), st.integers(0, len(prompts) - 1))
    chosen = data.draw(st.lists(pairs, max_size=5))
    _, subwords = look_up(_rust.SubwordCache(100), texts)
    longest = max(len(subwords_of) for subwords_of in map(flatten, texts)) + 20
    rules = {"prefix": prefix, "suffix": suffix, "pooling": pooling, "corrected": corrected}
    for max_subwords in [None, *range(len(prefix) + len(suffix), longest)]:
        for padded in (True, False):
            rows = subwords.assemble(
                int64([text for text, _ in chosen]),
                as_prompts(prompts),
                int64([prompt for _, prompt in chosen]),
                layout(max_subwords=max_subwords, **rules),
                padded=padded,
            )
            check_rows(rows, texts, prompts, chosen, padded=padded, max_subwords=max_subwords, **rules)


def flatten(words: list[str]) -> list[int]:
    return [one for word in words for one in ids_of(word)]


@examples
@given(TEXTS)
def test_counts_are_those_of_the_words(texts: list[list[str]]):
    missing, subwords = look_up(_rust.SubwordCache(100), texts)
    assert missing == list(dict.fromkeys(word for text in texts for word in text))
    assert subwords.word_counts.tolist() == [len(text) for text in texts]
    assert subwords.subword_counts.tolist() == [len(flatten(text)) for text in texts]


# --- numbering, by the examples of compat 4.4 -------------------------------------------------------------------------

TOKENIZER = {"a": [1], "\x01": [], "c": [3], "d": [4, 5]}


@pytest.mark.parametrize(("corrected", "pooled"), [(False, [0, 1, 2]), (True, [0, 2, 3])])
def test_a_word_without_ids_shifts_later_words_unless_corrected(corrected: bool, pooled: list[int]):
    _, subwords = look_up(_rust.SubwordCache(9), [["a", "\x01", "c", "d"]], TOKENIZER.__getitem__)
    prompt = as_prompts([Prompt([[CLASS_TOKEN], [7], [901]])])
    rows = subwords.assemble(int64([0]), prompt, int64([0]), layout(corrected=corrected))
    assert rows.input_ids.tolist() == [[101, CLASS_TOKEN, 7, 901, 1, 3, 4, 5, 102]]
    assert rows.pooled_positions.tolist() == [4, 5, 6]
    assert rows.pooled_words.tolist() == pooled


@pytest.mark.parametrize(("corrected", "positions", "pooled"), [(False, [4, 5], [0, 1]), (True, [3, 4, 5], [0, 1, 2])])
def test_a_label_without_ids_hides_the_first_word_unless_corrected(
    corrected: bool, positions: list[int], pooled: list[int]
):
    _, subwords = look_up(_rust.SubwordCache(9), [["a", "c", "d"]], TOKENIZER.__getitem__)
    prompt = as_prompts([Prompt([[CLASS_TOKEN], [], [901]])])
    rows = subwords.assemble(int64([0]), prompt, int64([0]), layout(corrected=corrected))
    assert rows.input_ids.tolist() == [[101, CLASS_TOKEN, 901, 1, 3, 4, 5, 102]]
    assert rows.pooled_positions.tolist() == positions
    assert rows.pooled_words.tolist() == pooled


def test_no_rows_and_no_texts_make_empty_arrays():
    _, subwords = look_up(_rust.SubwordCache(9), [])
    rows = subwords.assemble(NO_IDS, as_prompts([]), NO_IDS, layout())
    assert rows.input_ids.shape == (0, 0)
    assert rows.offsets.tolist() == [0]
    assert subwords.assemble(NO_IDS, as_prompts([]), NO_IDS, layout(), padded=False).input_ids.shape == (0,)
    for array in (rows.lengths, rows.word_counts, rows.pooled_positions, rows.class_positions, rows.class_counts):
        assert array.shape == (0,)
        assert array.dtype == np.int64


# --- the cache --------------------------------------------------------------------------------------------------------


@examples
@given(st.lists(TEXTS, min_size=1, max_size=8), st.integers(0, 9))
def test_what_is_forgotten_never_changes_an_answer(batches: list[list[list[str]]], capacity: int):
    cache = _rust.SubwordCache(capacity)
    prompts, rules = [Prompt([[901]])], {"pooling": "mean", "corrected": False, "max_subwords": None}
    for texts in batches:
        missing, subwords = look_up(cache, texts)
        assert set(missing) <= {word for text in texts for word in text}
        assert len(missing) == len(set(missing))
        assert len(cache) <= capacity
        rows = subwords.assemble(np.arange(len(texts)), as_prompts(prompts), int64([0] * len(texts)), layout("mean"))
        check_rows(rows, texts, prompts, [(text, 0) for text in range(len(texts))], prefix=[101], suffix=[102], **rules)


def test_a_known_word_is_not_asked_for_again():
    cache = _rust.SubwordCache(100)
    assert look_up(cache, [["a", "bb", "a"]])[0] == ["a", "bb"]
    assert look_up(cache, [["bb", "c"], ["a"]])[0] == ["c"]
    assert len(cache) == 3
    cache.clear()
    assert len(cache) == 0
    assert look_up(cache, [["a"]])[0] == ["a"]
    cache = _rust.SubwordCache(1)
    look_up(cache, [["a"]])
    assert look_up(cache, [["a"]])[0] == []


def test_a_word_in_use_outlives_words_that_are_not():
    cache = _rust.SubwordCache(20)
    look_up(cache, [["kept"]])
    for number in range(200):
        missing, _ = look_up(cache, [["kept", f"passing {number}"]])
        assert missing == [f"passing {number}"]


def test_forgetting_during_a_lookup_is_harmless():
    cache = _rust.SubwordCache(2)
    words = _rust.Words.from_lists([["aaa", "bb", "aaa", "c"]])
    look_up(cache, [["aaa"]])
    lookup = cache.look_up(words)
    assert lookup.missing == ["bb", "c"]
    cache.clear()
    look_up(cache, [[str(number) for number in range(50)]])
    first, second = (lookup.complete(int64([5, 6, 7]), int64([2, 1])) for _ in range(2))
    for subwords in (first, second):
        rows = subwords.assemble(int64([0]), as_prompts([Prompt([])]), int64([0]), layout(prefix=[], suffix=[]))
        assert rows.input_ids.tolist() == [[*ids_of("aaa"), 5, 6, *ids_of("aaa"), 7]]


def test_a_long_word_is_never_remembered():
    cache = _rust.SubwordCache(100)
    for text in (["x" * 256], ["x" * 257], ["é" * 129], ["x" * 2**20]):
        look_up(cache, [text])
    assert len(cache) == 1
    for word, count in (("a", 1024), ("b", 1025)):  # nor one of many ids
        look_up(cache, [[word]], lambda _, count=count: [5] * count)
    assert len(cache) == 2


@pytest.mark.parametrize(("digits", "ids"), [(200, 1), (3, 50)], ids=["letters", "ids"])
def test_long_words_fill_the_cache_before_it_has_as_many_as_it_may(digits: int, ids: int):
    cache = _rust.SubwordCache(100)
    for number in range(100):
        look_up(cache, [[f"{number:0{digits}}"]], lambda _: [5] * ids)
        if number > 0:
            assert look_up(cache, [[f"{number - 1:0{digits}}"]])[0] == []  # what came lately is there
    assert 2 <= len(cache) <= 100 * 64 // 200 + 1


def test_threads_share_one_cache_and_get_their_own_answers():
    cache = _rust.SubwordCache(50)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        generator = np.random.default_rng(seed)
        try:
            for _ in range(200):
                texts = [[f"{number:b}"] * 2 for number in generator.integers(0, 200, 20)]
                _, subwords = look_up(cache, texts)
                assert subwords.subword_counts.tolist() == [len(flatten(text)) for text in texts]
                if seed == 0:
                    cache.clear()
        except BaseException as failure:  # noqa: BLE001  # told by the main thread
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(cache) <= 50


def test_a_word_that_is_asked_for_again_counts_once():
    cache = _rust.SubwordCache(8)
    look_up(cache, [["a", "b", "c", "d"]])  # a whole generation, which then is the old one
    look_up(cache, [["a"]])
    assert len(cache) == 4
    lookup = cache.look_up(_rust.Words.from_lists([["e"]]))
    for _ in range(2):  # as another thread may have met the word meanwhile
        lookup.complete(int64([5]), int64([1]))
    assert len(cache) == 5


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [-1, 2**80])
def test_an_absurd_capacity_is_refused(capacity: int):
    with pytest.raises(ValueError, match=f"capacity is {capacity}"):
        _rust.SubwordCache(capacity)


@pytest.mark.parametrize(
    ("ids", "counts", "message"),
    [
        ([1], [1], "counts has 1 values for 2 missing words"),
        ([1, 2, 3], [1, 1, 1], "counts has 3 values for 2 missing words"),
        ([1, 2], [1, 2], "ids has 2 values, but counts add up to 3"),
        ([1, 2, 3], [1, 1], "ids has 3 values, but counts add up to 2"),
        ([1, 2], [3, -1], r"counts\[1\] is -1"),
        ([], [2**63 - 1, 2**63 - 1], "counts add up to 18446744073709551614"),
        ([-1, 2], [1, 1], r"ids\[0\] is -1: a subword id lies within 0\.\.4294967296"),
        ([1, 2**32], [1, 1], r"ids\[1\] is 4294967296"),
    ],
)
def test_ids_that_do_not_fit_the_missing_words_are_refused(ids: list[int], counts: list[int], message: str):
    lookup = _rust.SubwordCache(10).look_up(_rust.Words.from_lists([["a", "b", "a"]]))
    with pytest.raises(ValueError, match=message):
        lookup.complete(int64(ids), int64(counts))


@pytest.mark.parametrize(
    ("ids", "offsets", "shifts", "message"),
    [
        ([1, 2], [0, 1], [0], "offsets ends at 1, but 2 values were given"),
        ([1, 2], [0, 2], [0, 0], "shifts has 2 values for 1 prompts"),
        ([1, 2], [0, 1, 2], [0], "shifts has 1 values for 2 prompts"),
        ([1, 2], [0, 2], [1], r"shifts\[0\] is 1: .* at most 0"),
        ([1, 2], [0, 2, 1, 2], [0, 0, 0], r"offsets\[2\] is 1, below 2"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(ids: list[int], offsets: list[int], shifts: list[int], message: str):
    with pytest.raises(ValueError, match=message):
        _rust.Prompts(int64(ids), int64(offsets), int64(shifts))


def test_a_layout_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="max_subwords is 1, but prefix and suffix alone take 2"):
        layout(max_subwords=1)
    with pytest.raises(ValueError, match="max_subwords is -5"):
        layout(max_subwords=-5)
    with pytest.raises(ValueError, match="pooling is \"average\": expected 'first', 'last', 'mean' or 'max'"):
        layout("average")


@pytest.mark.parametrize(
    ("rows", "prompt_of_row", "message"),
    [
        ([0, 1], [0, 0], r"rows\[1\] is 1, but there are 1 texts"),
        ([-1], [0], r"rows\[0\] is -1"),
        ([0], [2], r"prompt_of_row\[0\] is 2, but there are 1 prompts"),
        ([0], [-1], r"prompt_of_row\[0\] is -1"),
        ([0], [0, 0], "prompt_of_row has 2 values for 1 rows"),
        ([0, 0], [0], "prompt_of_row has 1 values for 2 rows"),
    ],
)
def test_rows_that_do_not_exist_are_refused(rows: list[int], prompt_of_row: list[int], message: str):
    _, subwords = look_up(_rust.SubwordCache(10), [["a"]])
    with pytest.raises(ValueError, match=message):
        subwords.assemble(int64(rows), as_prompts([Prompt([[1]])]), int64(prompt_of_row), layout())


def test_rows_that_no_memory_holds_are_refused():
    assert len(ids_of("e")) == 4
    text = ["e"] * 2**20  # with as many empty rows beside it, 2**42 cells
    _, subwords = look_up(_rust.SubwordCache(10), [text, []])
    rows = np.ones(2**20, np.int64)
    rows[0] = 0
    with pytest.raises(ValueError, match="do not fit into memory: use smaller batches or set max_subwords"):
        subwords.assemble(rows, as_prompts([Prompt([])]), np.zeros(2**20, np.int64), layout())


def test_an_array_of_another_dtype_is_a_type_error():
    with pytest.raises(TypeError, match="from=int32, to=int64"):
        _rust.Prompts(np.zeros(0, np.int32), np.zeros(1, np.int64), NO_IDS)
