"""The cut of an input into slices: the unit of work, of output and of what a crash costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

# The first slices are small, so that the first results are there within seconds even where a row takes a second. They
# grow fast: batches do not cross slices, and small ones cost padding.
_FIRST_SLICE = 8
_GROWTH_BITS = 2


@dataclass(frozen=True)
class Slice:
    """Rows first_row .. first_row + rows of the whole input, fewer where it ends; they become one shard."""

    number: int
    first_row: int
    rows: int


def cut_slices(rows_per_shard: int) -> Iterator[Slice]:
    """Yields slices without end: 8 rows, 32, 128, ... up to `rows_per_shard` each.

    The cut depends on nothing but `rows_per_shard`: a job that goes on later, or elsewhere, cuts the same slices.
    """
    first_row = 0
    for number in count():
        rows = min(rows_per_shard, _FIRST_SLICE << min(_GROWTH_BITS * number, 40))
        yield Slice(number, first_row, rows)
        first_row += rows
