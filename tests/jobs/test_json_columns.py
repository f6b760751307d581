"""JSON values in columns: which types the first rows decide on, and which later rows do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gliner_fast.jobs.json_columns import plan_json_columns
from gliner_fast.jobs.sources import RowReader, Selection, plan_schema
from tests.jobs.rows import open_rows, read, write

JSON_TEXT = pa.field("x", pa.string(), metadata={"gliner_fast": "json"})


def nested(value: Any, depth: int) -> Any:
    """A value in lists in lists."""
    return value if depth == 0 else [nested(value, depth - 1)]


def list_type(depth: int) -> pa.DataType:
    """The type of whole numbers in lists in lists."""
    return pa.int64() if depth == 0 else pa.list_(list_type(depth - 1))


TYPES = {
    "bool": ([True, None, False], pa.bool_()),
    "whole numbers": ([1, -(2**63), 2**63 - 1], pa.int64()),
    "numbers": ([1, 1.5, None, -(2**53)], pa.float64()),
    "strings": (["a", "", "2026-11-23T02:00:00Z"], pa.string()),
    "lists": ([["a"], [], None, [None]], pa.list_(pa.string())),
    "lists of lists": ([[[1], [2.5]], [[]]], pa.list_(pa.list_(pa.float64()))),
    "whole numbers beyond 64 bits": ([1, 2**63], None),
    "numbers that no float holds": ([2**53 + 1, 0.5], None),
    "bool and numbers": ([True, 1], None),
    "strings and numbers": (["a", 1], None),
    "lists as deep as types go": ([nested(1, 16)], list_type(16)),
    "lists that are deeper": ([nested(1, 17)], None),
    "lists deeper than Parquet can read back": ([nested("a", 60), []], None),
    "objects in deep lists": ([nested({"a": 1}, 60)], None),
    "deep objects": ([json.loads('{"a": ' * 60 + "1" + "}" * 60)], None),
    "objects": ([{"a": 1}, {"b": 2}], None),
    "lists of objects": ([[{"a": 1}]], None),
    "mixed lists": ([["a", 1]], None),
    "empty lists": ([[], []], None),
    "nothing": ([None, None], None),
    "no rows": ([], None),
}


@pytest.mark.parametrize(("values", "kind"), TYPES.values(), ids=TYPES)
def test_the_first_rows_decide_on_the_type(values, kind):
    schema = plan_json_columns([{"x": value} for value in values], ["x"])
    assert schema.field("x").equals(JSON_TEXT if kind is None else pa.field("x", kind), check_metadata=True)


@pytest.mark.parametrize(("values", "kind"), [case for case in TYPES.values() if case[0]], ids=list(TYPES)[:-1])
def test_values_come_through_without_loss(tmp_path, values, kind):
    lines = [json.dumps({"text": "a", "x": value}) for value in values]
    rows = read(write(tmp_path / "a.jsonl", "\n".join(lines).encode()), selection=Selection(columns=["x"]))
    came = [row["x"] for row in rows.columns]
    assert rows.faults == []
    assert [value if kind or value is None else json.loads(value) for value in came] == values


def test_the_deepest_lists_that_become_a_type_are_read_back_from_parquet(tmp_path):
    table = pa.table({"x": pa.array([nested(1, 16)], list_type(16))})
    pq.write_table(table, tmp_path / "a.parquet")
    assert pq.read_table(tmp_path / "a.parquet").equals(table)


def test_columns_come_in_the_order_of_appearance_and_missing_values_are_null(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"b": 1, "text": "a"}\n{"text": "b", "c": true, "b": 2}')
    rows = read(path)
    assert rows.columns == [{"b": 1, "text": "a", "c": None}, {"b": 2, "text": "b", "c": True}]
    assert list(rows.columns[1]) == ["b", "text", "c"]


def read_behind_sample(folder: Path, first: dict[str, Any], later: bytes, selection: Selection) -> Any:
    """Rows of a file whose first thousand lines are equal and say which types there are."""
    content = json.dumps({"text": "a", **first}).encode() + b"\n"
    return read(write(folder / "a.jsonl", content * 1000 + later), selection=selection, piece=600)


@pytest.mark.parametrize(
    ("first", "later", "reason"),
    [
        ({"x": 1}, b'{"text": "b", "x": 1.5}', "'x' is 1.5 (float): expected int64, as in the first rows"),
        ({"x": 1}, b'{"text": "b", "x": "1"}', "'x' is '1' (str): expected int64"),
        ({"x": 1}, b'{"text": "b", "x": true}', "'x' is True (bool): expected int64"),
        ({"x": 1}, b'{"text": "b", "x": 9223372036854775808}', "expected int64"),
        ({"x": 1.5}, b'{"text": "b", "x": 9007199254740993}', "expected double"),
        ({"x": ["a"]}, b'{"text": "b", "x": ["a", 1]}', "expected list<item: string>"),
        ({"x": ["a"]}, b'{"text": "b", "x": "a"}', "expected list<item: string>"),
        ({"x": "a"}, b'{"text": "b", "x": {}}', "'x' is {} (dict): expected string"),
        ({"x": 1}, b'{"text": "b", "x": 1, "y": 2}', "'y' is not among the columns of the first rows ('text', 'x')"),
    ],
)
def test_a_later_row_that_does_not_fit_is_set_apart(tmp_path, first, later, reason):
    rows = read_behind_sample(tmp_path, first, later + b'\n{"text": "c"}', Selection())
    assert rows.texts == ["a"] * 1000 + ["c"]
    ((line, why, raw),) = rows.faults
    assert (line, raw) == (1001, later.decode())
    assert reason in why


def test_json_text_takes_whatever_comes_later(tmp_path):
    later = b'{"text": "b", "x": "new"}\n{"text": "c", "x": [1, "two", {"three": "\xc3\xa9"}]}\n{"text": "d", "z": 1}'
    rows = read_behind_sample(tmp_path, {"x": {"a": 1}}, later, Selection(columns=["x"]))
    assert [row["x"] for row in rows.columns[998:]] == ['{"a": 1}'] * 2 + ['"new"', '[1, "two", {"three": "é"}]', None]


def test_a_planned_schema_holds_for_another_reader(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"text": "a", "x": 1, "y": {}}')
    reader = open_rows([path])
    planned = plan_schema(reader._files, Selection())
    write(path, b'{"text": "a", "x": "no number"}')  # a plan made now would be another one
    again = RowReader(reader._files, Selection(), planned)
    assert again.schema.equals(reader.schema, check_metadata=True)
    assert "expected int64" in again.read(1).rejects[0].reason
    again.close()


def test_the_sample_goes_on_into_the_next_file(tmp_path):
    one, two = write(tmp_path / "1.jsonl", b"\n"), write(tmp_path / "2.jsonl.gz", b'{"text": "a", "x": 1}')
    assert read(one, two).columns == [{"text": "a", "x": 1}]
