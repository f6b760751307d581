"""Which nodes are looked at together, beside loops over all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliner_fast.relations.pairs import Nodes, ordered_pairs, padded_blocks
from tests.reference.examples import examples

# Nodes of each text, and whether each is chosen: texts without nodes, with one, and with many.
CHOSEN = st.lists(st.lists(st.booleans(), max_size=7), max_size=6)
MOST = st.integers(1, 40)


def texts_of(counts: list[int]) -> np.ndarray:
    """The text of each node or pair, of so many in each text."""
    return np.repeat(np.arange(len(counts)), counts).astype(np.int64)


@examples
@given(chosen=CHOSEN, most=MOST)
def test_pairs_are_all_two_chosen_nodes_of_a_text_by_head_and_then_tail(chosen: list[list[bool]], most: int):
    texts = texts_of([len(own) for own in chosen])
    nodes = np.flatnonzero([is_chosen for own in chosen for is_chosen in own])
    wanted = [
        (head, tail)
        for head in nodes.tolist()
        for tail in nodes.tolist()
        if texts[head] == texts[tail] and head != tail
    ]
    parts = list(ordered_pairs(texts, nodes, most))
    assert [pair for heads, tails in parts for pair in zip(heads.tolist(), tails.tolist(), strict=True)] == wanted
    for heads, _ in parts:
        assert len(heads) <= most or len(set(heads.tolist())) == 1


@pytest.mark.parametrize("most", [1, 2, 3, 5, 6, 100])
def test_parts_are_as_large_as_may_be(most: int):
    # Each of 3 nodes is the head of 2 pairs; what is counted is one more, the node with itself.
    parts = [heads.tolist() for heads, _ in ordered_pairs(texts_of([3]), np.arange(3), most)]
    heads_at_once = max(1, most // 3)
    wanted = [[0, 0, 1, 1, 2, 2][2 * first : 2 * (first + heads_at_once)] for first in range(0, 3, heads_at_once)]
    assert parts == wanted


def test_one_head_with_more_pairs_than_a_part_comes_whole():
    ((heads, tails), *others) = ordered_pairs(texts_of([1, 9]), np.arange(1, 10), 4)
    assert heads.tolist() == [1] * 8
    assert tails.tolist() == list(range(2, 10))
    assert len(others) == 8


@pytest.mark.parametrize("counts", [[], [0, 0], [1], [1, 0, 1]])
def test_texts_of_at_most_one_node_have_no_pairs(counts: list[int]):
    texts = texts_of(counts)
    assert sum(len(heads) for heads, _ in ordered_pairs(texts, np.arange(len(texts)), 3)) == 0


@examples
@given(counts=st.lists(st.integers(0, 30), max_size=7), most=MOST)
def test_every_pair_is_in_one_block_beside_pairs_of_its_text(counts: list[int], most: int):
    texts = texts_of(counts)
    seen = []
    for block in padded_blocks(texts, most):
        rows, width = block.pairs.shape
        assert block.texts.shape == (rows,)
        assert block.are_pairs.shape == (rows, width)
        assert rows * width <= most
        assert block.are_pairs.any(axis=1).all()  # a row of padding would be work for nothing
        assert block.are_pairs.any(axis=0).all()
        assert (texts[block.pairs] == block.texts[:, None]).all()  # of padding too: it is read, and thrown away
        seen += block.pairs[block.are_pairs].tolist()
    assert sorted(seen) == list(range(len(texts)))


def test_a_text_of_more_pairs_than_a_block_is_in_several():
    blocks = list(padded_blocks(texts_of([7, 2]), 3))
    of_first = [block.pairs[block.are_pairs].tolist() for block in blocks if block.texts.tolist() == [0]]
    assert of_first[:2] == [[0, 1, 2], [3, 4, 5]]
    assert sorted(size for block in blocks for size in block.are_pairs.sum(1).tolist()) == [1, 2, 3, 3]


def test_texts_of_many_and_of_few_pairs_do_not_pad_each_other():
    ((first, second),) = (list(padded_blocks(texts_of([1, 40, 1, 1]), 43)),)
    assert (first.texts.tolist(), first.pairs.shape) == ([1], (1, 40))
    assert (second.texts.tolist(), second.pairs.tolist()) == ([0, 2, 3], [[0], [41], [42]])


@examples
@given(chosen=st.lists(st.booleans(), max_size=9))
def test_nodes_that_are_taken_keep_their_order_and_values(chosen: list[bool]):
    numbers = np.arange(len(chosen))
    taken = Nodes(numbers // 2, numbers + 1, numbers + 3, numbers - 1).take(np.array(chosen, np.bool_))
    kept = [number for number, is_chosen in enumerate(chosen) if is_chosen]
    assert taken.texts.tolist() == [number // 2 for number in kept]
    assert taken.starts.tolist() == [number + 1 for number in kept]
    assert taken.ends.tolist() == [number + 3 for number in kept]
    assert taken.entities.tolist() == [number - 1 for number in kept]
