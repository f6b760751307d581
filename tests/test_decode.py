"""Candidates of dense scores, and the same ones found on a device."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gliner_fast import _rust
from gliner_fast.decode import Selection, class_probabilities, find_candidates, flat_allowed_spans, flat_thresholds
from gliner_fast.kernels.pending_candidates import PendingCandidates, SpanCandidates
from gliner_fast.scoring.candidates import Candidates
from gliner_fast.scoring.pending_scores import PendingScores

WORD_COUNTS, CLASS_COUNTS, MAX_WIDTH = np.array([3, 1, 0, 4]), np.array([2, 3, 1, 2]), 2


def select(**changes: object) -> Selection:
    texts = len(WORD_COUNTS)
    choices = {
        "thresholds": [0.5, [0.3, 0.6, 0.9], 0.5, 0.4],
        "nested": np.zeros(texts, np.bool_),
        "multi_label": np.zeros(texts, np.bool_),
        "label_counts": [2, 3, 1, 1],  # the last text has an entity token more than labels
    }
    return Selection(**choices | changes)


def draw_logits() -> torch.Tensor:
    """Logits of all spans, those past the end -inf."""
    generator = torch.Generator().manual_seed(0)
    blocks = []
    for words, classes in zip(WORD_COUNTS.tolist(), CLASS_COUNTS.tolist(), strict=True):
        past = torch.arange(words)[:, None] + torch.arange(MAX_WIDTH) >= words
        block = torch.randn(words, MAX_WIDTH, classes, generator=generator)
        blocks.append(block.masked_fill(past[:, :, None], -math.inf).flatten())
    return torch.cat(blocks)


class Arrival:
    """Stands in for the event that a device records, and counts who waits for it."""

    def __init__(self) -> None:
        self.waits = 0

    def synchronize(self) -> None:
        self.waits += 1


def found_on_a_device(
    logits: torch.Tensor, selection: Selection, arrival: Arrival | None = None, dtype: torch.dtype = torch.float32
) -> PendingCandidates:
    """What a device finds: the same comparison, as the table that it sends, in no order."""
    scores = torch.sigmoid(logits)
    thresholds = flat_thresholds(selection, CLASS_COUNTS)
    offsets, starts, ends, classes, values = map(
        torch.from_numpy,
        _rust.find_candidates(scores.numpy(), WORD_COUNTS, CLASS_COUNTS, MAX_WIDTH, thresholds),
    )
    texts = torch.repeat_interleave(offsets.diff())
    own_places = torch.arange(len(texts))  # stand for the places in the dense layout, whose order is the same

    def read(places: torch.Tensor, sent: torch.Tensor) -> SpanCandidates:
        order = places.argsort()
        own = places[order]
        assert own.tolist() == own_places.tolist()
        return SpanCandidates(texts[own], starts[own], (ends - starts - 1)[own], classes[own], sent[order].to(dtype))

    room = -(-len(texts) // 16) * 16 + 16
    table = torch.full((2 + room + room // 2,), -1)
    table[0] = len(texts)
    shuffled = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0))
    table[2 : 2 + len(texts)] = own_places[shuffled]
    table[2 + room :].view(torch.float32)[: len(texts)] = values[shuffled]
    return PendingCandidates(
        lambda room: pytest.fail(f"there was room, yet {room} are asked for"), read, table, arrival
    )


def assert_equal(ours: Candidates, wanted: Candidates) -> None:
    for name in Candidates._fields:
        mine, their = getattr(ours, name), getattr(wanted, name)
        np.testing.assert_array_equal(mine, their, err_msg=name)
        assert mine.dtype == their.dtype


@pytest.mark.parametrize(
    "selection",
    [
        select(),
        select(thresholds=[1.0] * 4),
        select(allowed_spans=[{(0, 1), (1, 3)}, None, set(), {(0, 2), (3, 4)}]),
    ],
    ids=["all", "none", "allowed"],
)
def test_candidates_from_a_device_are_those_of_the_scores(selection: Selection):
    logits = draw_logits()
    wanted = find_candidates(logits, WORD_COUNTS, CLASS_COUNTS, MAX_WIDTH, selection)
    ours = find_candidates(found_on_a_device(logits, selection), WORD_COUNTS, CLASS_COUNTS, MAX_WIDTH, selection)
    assert_equal(ours, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_scores_on_their_way_are_waited_for_and_give_the_same(dtype: torch.dtype):
    logits, arrival = draw_logits().to(dtype), Arrival()
    coming = replace(PendingScores.of(logits), is_there=arrival)
    wanted = find_candidates(logits, WORD_COUNTS, CLASS_COUNTS, MAX_WIDTH, select())
    assert arrival.waits == 0
    assert_equal(find_candidates(coming, WORD_COUNTS, CLASS_COUNTS, MAX_WIDTH, select()), wanted)
    assert arrival.waits == 1
    names = [[f"{text}.{label}" for label in range(count)] for text, count in enumerate([2, 5, 1, 1])]
    best = [
        class_probabilities(scored, wanted, WORD_COUNTS, CLASS_COUNTS, MAX_WIDTH, names) for scored in (coming, logits)
    ]
    assert best[0] == best[1]
    assert any(best[0])


def test_class_probabilities_are_those_of_the_five_best_labels_and_of_equals_the_first():
    logits = torch.tensor([1.0, 3.0, 0.0, 1.0, 2.0, 1.0, 3.0])  # of one word and seven labels
    span = Candidates(*(np.array(own) for own in ([0, 1], [0], [1], [1])), scores=np.ones(1, np.float32))
    (best,) = class_probabilities(logits, span, np.array([1]), np.array([7]), 1, ["abcdefg"])
    assert list(best) == ["b", "g", "e", "a", "d"]
    assert list(best.values()) == torch.sigmoid(logits[[1, 6, 4, 0, 3]]).tolist()


@given(
    counts=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 5)), min_size=1, max_size=4),
    max_width=st.integers(1, 6),
    pool=st.lists(st.just(0.0) | st.floats(2.0**-60, 1, width=32), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_candidates_of_logits_are_those_of_their_sigmoids(counts, max_width, pool, seed):
    generator = np.random.default_rng(seed)
    word_counts, class_counts = (np.array(own) for own in zip(*counts, strict=True))
    thresholds = [generator.choice(pool, classes).tolist() for _, classes in counts]
    # Most logits lie a few roundings about those of the thresholds.
    near = torch.logit(torch.tensor(pool)).numpy()
    size = int((word_counts * class_counts).sum()) * max_width
    near = (near[:, None] + np.arange(-3, 4) * np.spacing(near)[:, None]).ravel()
    logits = torch.from_numpy(generator.choice([*near, 9.0, -9.0, np.nan, np.inf, -np.inf], size).astype(np.float32))
    texts = len(counts)
    selection = Selection(thresholds, np.zeros(texts, np.bool_), np.zeros(texts, np.bool_), class_counts.tolist())
    ours = find_candidates(logits, word_counts, class_counts, max_width, selection)
    # torch's sigmoid is a rounding off, or two, here and there, by where a number lies in memory.
    flat, exact = flat_thresholds(selection, class_counts), torch.sigmoid(logits.double()).float().numpy()
    for sign, are_those in ((3, "needed"), (-3, "allowed")):
        limits = np.maximum(flat + sign * np.spacing(flat), 0)
        wanted = Candidates(*_rust.find_candidates(exact, word_counts, class_counts, max_width, limits))
        needed, found = (ours, wanted) if are_those == "allowed" else (wanted, ours)
        assert as_rows(needed) <= as_rows(found), are_those
    texts, starts, classes = ours.texts, ours.starts, ours.classes
    blocks = np.cumsum(word_counts * class_counts * max_width) - word_counts * class_counts * max_width
    places = blocks[texts] + (starts * max_width + ours.ends - starts - 1) * class_counts[texts] + classes
    np.testing.assert_allclose(ours.scores, exact[places], rtol=3e-7)
    assert (ours.scores > flat[(np.cumsum(class_counts) - class_counts)[texts] + classes]).all()


def as_rows(candidates: Candidates) -> set[tuple[int, ...]]:
    """Text, start, end and class of each."""
    columns = (candidates.texts, candidates.starts, candidates.ends, candidates.classes)
    return set(zip(*(column.tolist() for column in columns), strict=True))


def test_candidates_are_waited_for_once():
    arrival = Arrival()
    found = found_on_a_device(draw_logits(), select(), arrival)
    candidates = find_candidates(found, WORD_COUNTS, CLASS_COUNTS, MAX_WIDTH, select())
    assert arrival.waits == 1
    assert len(candidates.starts) > 3


def test_scores_of_half_precision_come_as_float32():
    exact, half = (
        find_candidates(
            found_on_a_device(draw_logits(), select(), dtype=dtype), WORD_COUNTS, CLASS_COUNTS, MAX_WIDTH, select()
        ).scores
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert half.dtype == np.float32
    np.testing.assert_array_equal(half, torch.from_numpy(exact).bfloat16().float().numpy())


def test_allowed_spans_stand_at_their_first_word_and_width():
    beyond = {(4, 6), (0, 4), (5, 9), (3, 3)}  # past the text, wider than K, outside, empty
    asked = select(allowed_spans=[{(0, 1), (2, 5)} | beyond, None, set()])
    flat = flat_allowed_spans(asked, np.array([5, 2, 1]), 3)
    expected = np.zeros((8, 3), np.bool_)
    expected[0, 0] = expected[2, 2] = True
    expected[5:7] = True
    assert flat.tolist() == expected.tolist()
    assert flat_allowed_spans(select(), np.array([5]), 3) is None


def test_a_type_without_a_label_has_an_infinite_threshold():
    wanted = np.array([0.5, 0.5, 0.3, 0.6, 0.9, 0.5, 0.4, math.inf], np.float32)
    np.testing.assert_array_equal(flat_thresholds(select(), CLASS_COUNTS), wanted)
    np.testing.assert_array_equal(flat_thresholds(select(thresholds=[0.5] * 4), CLASS_COUNTS), [0.5] * 7 + [math.inf])


@pytest.mark.parametrize("last", [0.5, 0.25])
def test_one_threshold_for_all_types_of_all_texts(last: float):
    none = np.zeros(3, np.bool_)
    asked = Selection([0.5, 0.5, last], none, none, label_counts=[2, 0, 1])
    np.testing.assert_array_equal(flat_thresholds(asked, np.array([2, 0, 1])), np.array([0.5, 0.5, last], np.float32))
    assert flat_thresholds(Selection([], none[:0], none[:0], []), np.zeros(0, np.int64)).tolist() == []


def test_scores_are_compared_in_their_own_precision():
    # 0.3 in bf16 is 0.30078125: a score of that value does not pass a threshold of 0.3.
    logits = torch.full((16,), -9.0, dtype=torch.bfloat16)
    logits[0] = torch.logit(torch.tensor(0.3008)).bfloat16()
    assert torch.sigmoid(logits[0]).item() == 0.30078125
    selection = Selection([0.3], np.zeros(1, np.bool_), np.zeros(1, np.bool_), [1])
    candidates = find_candidates(logits, np.array([8]), np.array([1]), 2, selection)
    assert len(candidates.starts) == 0
    candidates = find_candidates(logits.float() + 1e-3, np.array([8]), np.array([1]), 2, selection)
    assert len(candidates.starts) == 1
