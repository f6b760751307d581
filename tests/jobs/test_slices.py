"""The cut of an input: no gaps, small slices first."""

from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliner_fast.jobs.slices import cut_slices


@given(st.integers(1, 10_000), st.integers(1, 60))
def test_slices_follow_each_other_without_gaps(rows_per_shard: int, count: int):
    slices = list(islice(cut_slices(rows_per_shard), count))
    assert slices[0].first_row == 0
    for number, (part, following) in enumerate(pairwise(slices)):
        assert part.number == number
        assert part.first_row + part.rows == following.first_row
        assert part.rows <= following.rows <= rows_per_shard


@pytest.mark.parametrize(("rows_per_shard", "sizes"), [(1, [1, 1, 1]), (8, [8, 8, 8]), (50, [8, 32, 50, 50])])
def test_the_first_slices_are_small(rows_per_shard: int, sizes: list[int]):
    assert [part.rows for part in islice(cut_slices(rows_per_shard), len(sizes))] == sizes
