"""Rows that turn out to be of no use only after they were read."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gliner_fast.jobs.block import Block, Columns, Reject
from tests.jobs.rows import objects

ROWS = [{"n": 10}, {"n": 12}, {"n": 13}]


def block_of(columns: Columns) -> Block:
    return Block(
        count=4,
        rows=np.array([10, 12, 13]),
        texts=["a", "b", "c"],
        labels=[["x"], ["y"], ["z"]],
        columns=columns,
        rejects=[Reject(11, "one", 2, "not JSON", "{")],
        files=["one", "one", "two"],
        lines=np.array([1, 3, 1]),
    )


@pytest.mark.parametrize("columns", [ROWS, pa.Table.from_pylist(ROWS), pa.table({})], ids=["objects", "table", "none"])
def test_rejected_rows_take_along_all_that_is_theirs(columns: Columns):
    left = block_of(columns).reject({2: "too long", 0: "too wide"})
    assert (left.count, left.rows.tolist(), left.texts, left.labels) == (4, [12], ["b"], [["y"]])
    assert (left.files, left.lines.tolist()) == (["one"], [3])
    assert objects(left.columns) == (ROWS[1:2] if objects(columns) else [])
    assert left.rejects == [
        Reject(10, "one", 1, "too wide", ""),
        Reject(11, "one", 2, "not JSON", "{"),
        Reject(13, "two", 1, "too long", ""),
    ]
