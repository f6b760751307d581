"""Candidates that the Rust kernel finds on the CPU, against a filter over all logits in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gliner_fast.cpu.native_candidates import native_candidates
from gliner_fast.kernels.span_reference import span_candidates_reference
from gliner_fast.scoring.candidates import Candidates
from tests.kernels.spans import EXTREME_LOGITS, LONG, PASSES_OF_EXTREME, SHAPES, Batch, constant_logits, random_batch

# Sums of single precision differ from those of double by less, in scores.
ROUNDING = 1e-5


def find(batch: Batch, thresholds: Tensor) -> Candidates:
    return native_candidates(*batch.tensors, **batch.shape, thresholds=thresholds)


def rows(found: Candidates) -> list[tuple[int, ...]]:
    """Text, start, end and class of each."""
    parts = (found.texts, found.starts, found.ends, found.classes)
    assert all(part.dtype == np.int64 for part in parts)
    return list(zip(*(part.tolist() for part in parts), strict=True))


def assert_candidates(ours: Candidates, batch: Batch, thresholds: Tensor) -> None:
    """All that pass their threshold and nothing else, but for scores that rounding puts on the other side."""

    def exact(gap: float) -> dict[tuple[int, ...], float]:
        found = span_candidates_reference(*batch.double, **batch.shape, thresholds=thresholds.double() + gap)
        parts = (found.texts, found.starts, found.starts + found.widths + 1, found.types, found.scores)
        return {tuple(row): score for *row, score in zip(*(part.tolist() for part in parts), strict=True)}

    surely, perhaps = exact(ROUNDING), exact(-ROUNDING)
    found = rows(ours)
    assert found == sorted(found)
    assert surely.keys() <= set(found) <= perhaps.keys()
    assert ours.scores.dtype == np.float32
    assert ours.scores.tolist() == pytest.approx([perhaps[row] for row in found], abs=ROUNDING)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_shape(shape):
    batch = random_batch(*shape)
    thresholds = torch.linspace(0.4, 0.8, len(batch.tensors[2]))
    assert_candidates(find(batch, thresholds), batch, thresholds)


@pytest.mark.parametrize("types", [*range(12), 25, 26, 99])
@pytest.mark.parametrize("hidden", [1, 7, 8, 255, 257, 520])
def test_every_number_of_types_and_every_length_of_a_row(types: int, hidden: int):
    # Tiles are of 1 to 5 types and 1 to 6 spans; rows are summed 256 numbers at a time, by 8 or fewer at the end.
    batch = random_batch([3, 19], [types, 2], 12, hidden)
    thresholds = torch.linspace(0.3, 0.7, types + 2)
    ours = find(batch, thresholds)
    assert len(ours.scores) > 0
    assert_candidates(ours, batch, thresholds)


@pytest.mark.parametrize("max_width", [*range(1, 15), 384, 2**62])
def test_every_width(max_width: int):
    batch = random_batch([1, 2, 30], [1, 5, 3], min(max_width, 30), 16)
    ours = find(Batch(batch.tensors, {**batch.shape, "max_width": max_width}), torch.full((9,), 0.5))
    assert_candidates(ours, batch, torch.full((9,), 0.5))


def test_a_text_of_10_000_words():
    batch = random_batch(*LONG)
    thresholds = torch.full((3,), 0.5)
    ours = find(batch, thresholds)
    assert len(ours.scores) > 1_000
    assert ours.starts.max() > 9_900
    assert_candidates(ours, batch, thresholds)


@settings(max_examples=40)
@given(
    texts=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 12)), max_size=4),
    max_width=st.integers(1, 17),
    hidden=st.integers(1, 40),
    threshold=st.floats(-0.1, 1.1),
)
def test_any_small_batch(texts: list[tuple[int, int]], max_width: int, hidden: int, threshold: float):
    batch = random_batch([w for w, _ in texts], [c for _, c in texts], max_width, hidden)
    thresholds = torch.full((len(batch.tensors[2]),), threshold)
    assert_candidates(find(batch, thresholds), batch, thresholds)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_text_s_candidates_depend_on_nothing_but_the_text(threads: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    word_counts, class_counts = [40, 1, 0, 300, 13], [5, 7, 2, 25, 1]
    batch = random_batch(word_counts, class_counts, 12, 1536)  # worth several threads
    thresholds = torch.full((sum(class_counts),), 0.7)
    found = find(batch, thresholds)
    assert len(set(found.texts.tolist())) == 4
    word = type_ = 0
    for text, (words, classes) in enumerate(zip(word_counts, class_counts, strict=True)):
        own_words, own_types = slice(word, word + words), slice(type_, type_ + classes)
        own = [part[rows] for part, rows in zip(batch.tensors, [own_words] * 2 + [own_types] * 2, strict=True)]
        shape = {"word_counts": [words], "class_counts": [classes], "max_width": 12}
        alone = native_candidates(*own, **shape, thresholds=thresholds[own_types])
        mine = found.texts == text
        for name in ("starts", "ends", "classes", "scores"):
            np.testing.assert_array_equal(getattr(found, name)[mine], getattr(alone, name))
        word, type_ = word + words, type_ + classes


@pytest.mark.parametrize(("threshold", "found"), PASSES_OF_EXTREME)
def test_logits_and_thresholds_that_are_not_finite(threshold: float, found: list[int]):
    ours = find(constant_logits(EXTREME_LOGITS), torch.full((6,), threshold))
    assert ours.classes.tolist() == found


@pytest.mark.parametrize("hidden", [3, 8, 11])
@pytest.mark.parametrize("place", ["u", "v", "g"])
def test_a_number_that_is_none_makes_no_candidate(place: str, hidden: int):
    batch = random_batch([6], [2], 3, hidden)
    batch.tensors["uvg".index(place)][1, hidden - 1] = math.nan
    thresholds = torch.full((2,), 0.05)
    ours = find(batch, thresholds)
    assert len(ours.scores) > 5
    assert_candidates(ours, batch, thresholds)
    reads = {"u": lambda row: row[1], "v": lambda row: row[2] - 1, "g": lambda row: row[3]}[place]
    assert all(reads(row) != 1 for row in rows(ours))


def test_rows_that_stand_apart_are_read():
    batch = random_batch([9], [3], 4, 32)
    u, v, g, c = batch.tensors
    wide = torch.cat([u, v], dim=1)
    apart = Batch((wide[:, :32], wide[:, 32:], g, c), batch.shape)
    thresholds = torch.full((3,), 0.5)
    assert rows(find(apart, thresholds)) == rows(find(batch, thresholds)) != []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_16_bits_are_scored_in_float32(dtype: torch.dtype):
    batch = random_batch([5, 2], [3, 1], 4, 8, dtype=dtype)
    u, v, g, c = (factor.float() for factor in batch.tensors)
    wide = Batch((u, v, g, c), batch.shape)
    thresholds = torch.full((4,), 0.4)
    found, expected = find(batch, thresholds), find(wide, thresholds)
    assert len(expected.scores) > 5
    for ours, of_float32 in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, of_float32)


def test_another_dtype_is_refused():
    dtype = torch.float64
    batch = random_batch([2], [1], 2, 8, dtype=dtype)
    with pytest.raises(TypeError, match=f"u is {dtype} on cpu: expected fp32, bf16 or fp16 on the CPU"):
        find(batch, torch.full((1,), 0.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"word_counts": [2, 1]}, "word_counts has 2 values and class_counts has 1"),
        ({"word_counts": [3]}, "u has 16 values: expected 24, a row for each word or class"),
        ({"word_counts": [-1]}, r"word_counts\[0\] is -1: expected 0 or more"),
        ({"word_counts": [2**62]}, "u has 16 values: expected 36893488147419103232"),
        ({"class_counts": [2]}, "thresholds has 1 values, but class_counts add up to 2"),
        ({"max_width": 0}, "max_width is 0: the widest span has at least 1 word"),
    ],
    ids=str,
)
def test_shapes_that_do_not_fit_are_told(change: dict[str, object], message: str):
    batch = random_batch([2], [1], 2, 8)
    with pytest.raises(ValueError, match=message):
        find(Batch(batch.tensors, {**batch.shape, **change}), torch.full((1,), 0.5))


def test_rows_of_nothing_are_told():
    nothing = torch.zeros(2**40, 0)
    with pytest.raises(ValueError, match="u, v and g have no columns"):
        native_candidates(
            nothing, nothing, torch.zeros(1, 0), torch.zeros(1), word_counts=[2**40], class_counts=[1], max_width=12,
            thresholds=torch.full((1,), 0.5),
        )  # fmt: skip


@pytest.mark.parametrize(("name", "at"), [("v", 1), ("g", 2)])
def test_rows_of_another_length_are_told(name: str, at: int):
    batch = random_batch([2], [1], 2, 8)
    tensors = list(batch.tensors)
    tensors[at] = tensors[at][:, :5]
    with pytest.raises(ValueError, match=f"{name} has 5 columns and u has 8"):
        find(Batch(tuple(tensors), batch.shape), torch.full((1,), 0.5))
