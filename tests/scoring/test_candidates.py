"""`find_candidates` of gliner_fast._rust against nested loops."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gliner_fast import _rust
from tests.reference.candidates import find_candidates
from tests.reference.examples import examples

# Few values, so that scores often equal their threshold, and those at which comparisons go wrong.
SCORES = st.one_of(
    st.sampled_from([0.0, 0.25, 0.3, 0.5, 1.0, float("nan"), float("inf"), float("-inf")]), st.floats(width=32)
)


def draw_block(data: st.DataObject, max_width: int) -> NDArray[np.float32]:
    shape = (data.draw(st.integers(0, 4)), max_width, data.draw(st.integers(0, 3)))
    cells = data.draw(st.lists(SCORES, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    return np.array(cells, np.float32).reshape(shape)


@examples
@given(st.data(), st.integers(1, 4), st.integers(0, 4))
def test_candidates_are_those_of_the_loops(data: st.DataObject, max_width: int, texts: int):
    blocks = [draw_block(data, max_width) for _ in range(texts)]
    thresholds = [
        np.array(data.draw(st.lists(SCORES, min_size=classes, max_size=classes)), np.float32)
        for classes in (block.shape[2] for block in blocks)
    ]
    offsets, starts, ends, classes, scores = _rust.find_candidates(
        np.concatenate([np.zeros(0, np.float32), *(block.ravel() for block in blocks)]),
        np.array([len(block) for block in blocks], np.int64),
        np.array([block.shape[2] for block in blocks], np.int64),
        max_width,
        np.concatenate([np.zeros(0, np.float32), *thresholds]),
    )
    expected = find_candidates(blocks, thresholds)
    assert offsets.tolist() == np.cumsum([0, *map(len, expected)]).tolist()
    found = list(zip(starts.tolist(), ends.tolist(), classes.tolist(), scores.tolist(), strict=True))
    assert found == [candidate for own in expected for candidate in own]
    assert [array.dtype for array in (starts, ends, classes, scores)] == [np.int64] * 3 + [np.float32]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), max_size=4), st.integers(1, 13), st.integers(0, 99))
def test_many_scores_at_once(shapes: list[tuple[int, int]], max_width: int, seed: int):
    generator = np.random.default_rng(seed)
    values = np.array([0.0, 0.25, 0.3, 0.5, 0.75, 1.0, np.nan, np.inf, -np.inf, -0.5], np.float32)
    blocks = [generator.choice(values, (words, max_width, classes)) for words, classes in shapes]
    thresholds = [generator.choice(values, classes) for _, classes in shapes]
    offsets, *columns = _rust.find_candidates(
        np.concatenate([np.zeros(0, np.float32), *(block.ravel() for block in blocks)]),
        np.array([words for words, _ in shapes], np.int64),
        np.array([classes for _, classes in shapes], np.int64),
        max_width,
        np.concatenate([np.zeros(0, np.float32), *thresholds]),
    )
    expected = find_candidates(blocks, thresholds)
    assert offsets.tolist() == np.cumsum([0, *map(len, expected)]).tolist()
    found = list(zip(*(column.tolist() for column in columns), strict=True))
    assert found == [candidate for own in expected for candidate in own]


def test_a_score_equal_to_its_threshold_in_float32_is_left_out():
    scores = np.array([0.3, np.nextafter(np.float32(0.3), np.float32(1))] * 5, np.float32)  # more than are met at once
    thresholds = np.full(10, 0.3, np.float32)
    *_, classes, _ = _rust.find_candidates(scores, np.array([1]), np.array([10]), 1, thresholds)
    assert classes.tolist() == [1, 3, 5, 7, 9]


@pytest.mark.parametrize("threshold", [1e-38, 1e-7, 0.01, 0.5, 0.99, 1 - 1e-5, 1 - 2**-22])
def test_a_logit_is_likely_wherever_rounding_may_let_its_probability_pass(threshold: float):
    bound = np.float32(threshold)
    exact = np.log(np.float64(bound) / (1 - np.float64(bound)))
    reach = 1e-5 + 1e-5 * abs(exact) + 1e-6 / (1 - np.float64(bound))
    logits = np.linspace(exact - reach, exact + reach, 4001).astype(np.float32)
    *_, likely, found, _ = _rust.find_likely(
        logits, np.array([1]), np.array([len(logits)]), 1, np.full(len(logits), bound)
    )
    assert found.tolist() == [*logits[likely], *[0.0] * 64]  # the room that `scoring.probabilities` needs
    one = np.float32(1)
    with np.errstate(over="ignore"):
        ways = [torch.sigmoid(torch.from_numpy(logits)).numpy(), one / (one + np.exp(-logits))]
    for probabilities in ways:
        assert set(np.flatnonzero(probabilities > bound)) <= set(likely.tolist())
    passes = [
        _rust.find_likely(logit, np.array([1]), np.array([1]), 1, np.full(1, bound))[-1]
        for logit in logits[::20].reshape(-1, 1)
        if logit[0] >= exact
    ]
    sure = logits[::20][logits[::20] >= exact][passes]
    assert (torch.sigmoid(torch.from_numpy(sure)).numpy() > bound).all()
    assert (sure > -81).all()  # where some take the smallest probabilities for 0


def test_where_the_smallest_numbers_are_taken_for_0_they_are_not_above_0():
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU takes no number for 0")
    try:
        scores = np.array([0, 1e-40, 1e-37] * 4, np.float32)
        *_, classes, _ = _rust.find_candidates(scores, np.array([1]), np.array([12]), 1, np.zeros(12, np.float32))
    finally:
        torch.set_flush_denormal(False)
    assert classes.tolist() == [2, 5, 8, 11]


@pytest.mark.parametrize("find", [_rust.find_candidates, _rust.find_likely], ids=["scores", "logits"])
@pytest.mark.parametrize(
    ("scores", "words", "classes", "max_width", "thresholds", "message"),
    [
        (5, [1], [2], 3, 2, r"scores has 5 values, but .* add up to 6"),
        (7, [1], [2], 3, 2, r"scores has 7 values, but .* add up to 6"),
        (6, [1], [2], 3, 1, "thresholds has 1 values, but class_counts add up to 2"),
        (6, [1], [2], 3, 3, "thresholds has 3 values, but class_counts add up to 2"),
        (6, [1, 1], [2], 3, 2, "word_counts has 2 values and class_counts has 1"),
        (6, [1], [2, 1], 3, 3, "word_counts has 1 values and class_counts has 2"),
        (0, [-1], [2], 3, 2, r"word_counts\[0\] is -1"),
        (0, [0, 0], [0, -4], 3, 0, r"class_counts\[1\] is -4"),
        (0, [], [], 0, 0, "max_width is 0: the widest span has at least 1 word"),
        (0, [], [], -(2**80), 0, "max_width is -1208925819614629174706176"),
        (0, [2**40], [2**40], 2**40, 0, "add up to 1329227995784915872903807060280344576"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    find: Callable[..., object],
    scores: int,
    words: list[int],
    classes: list[int],
    max_width: int,
    thresholds: int,
    message: str,
):
    with pytest.raises(ValueError, match=message):
        find(
            np.zeros(scores, np.float32),
            np.array(words, np.int64),
            np.array(classes, np.int64),
            max_width,
            np.zeros(thresholds, np.float32),
        )
