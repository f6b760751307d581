"""Parquet that is damaged, or of types that few writers make: told by file and column, and never a traceback."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gliner_fast import extract_files
from gliner_fast.jobs import parquet_rows
from gliner_fast.jobs.errors import JobInputError
from gliner_fast.jobs.sources import Selection
from tests.jobs.conftest import read_jsonl
from tests.jobs.rows import open_rows, read

IDS = [[uuid.UUID(int=1)], None, []]
LISTS_OF_IDS = pa.array([[uuid.UUID(int=1).bytes], None, []], pa.list_(pa.binary(16))).cast(pa.list_(pa.uuid()))
TWICE = pa.StructArray.from_arrays([pa.array([1, 2]), pa.array([3, 4])], names=["a", "a"])


def save(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("place", [0, 5, 20, 0.5, 0.9])
def test_a_damaged_footer_names_the_file(tmp_path, place):
    path = save(tmp_path / "a.parquet", text=["a"], x=pa.array(["b"]).dictionary_encode())
    content = bytearray(path.read_bytes())
    (size,) = struct.unpack("<i", content[-8:-4])
    begin = len(content) - 8 - size + (int(place * size) if isinstance(place, float) else place)
    content[begin : begin + 8] = b"\xff" * 8
    path.write_bytes(content)
    with pytest.raises(JobInputError, match=r"a\.parquet is no Parquet file"):
        read(path)


def test_lists_of_an_extension_type_come_through(tmp_path, checkpoint: Callable[[str], Path]):
    path = save(tmp_path / "a.parquet", text=["a", "b", "c"], ids=LISTS_OF_IDS)
    assert [row["ids"] for row in read(path, piece=3).columns] == IDS
    for name in ("out.jsonl", "out.parquet"):
        extract_files(path, tmp_path / name, ["person"], model=checkpoint("deberta"), rows_per_shard=3)
    assert [row["ids"] for row in read_jsonl(tmp_path / "out.jsonl")] == [[str(IDS[0][0])], None, []]
    assert pq.read_table(tmp_path / "out.parquet").column("ids").to_pylist() == IDS


def test_what_json_has_no_place_for_is_told_by_file_and_column(tmp_path):
    zone = pa.array([0, 1], pa.timestamp("us", "Nowhere/None"))
    for odd, reason in ((zone, "the time zone 'Nowhere/None'"), (TWICE, "two fields 'a'")):
        nested = pa.StructArray.from_arrays([odd], names=["in"])
        mapped = pa.MapArray.from_arrays([0, 1, 2], ["a", "b"], odd)
        maps_of = pa.MapArray.from_arrays([0, 1, 2], odd, ["a", "b"])
        for column in (odd, nested, mapped, maps_of):
            path = save(tmp_path / "a.parquet", text=["a", "b"], odd=column)
            if column is not odd and "Nowhere" in str(column.type) and "UTC" in str(pq.read_schema(path)):
                continue  # pyarrow 18 forgets the zone of times in a map
            with pytest.raises(JobInputError, match=rf"a\.parquet: the column 'odd' .*JSON \(.*{reason}.*--columns"):
                read(path, selection=Selection(as_objects=True))
            assert read(path, selection=Selection(as_objects=True, columns=[])).texts == ["a", "b"]
            with closing(open_rows([path])) as reader:  # for Parquet
                assert reader.schema.names == ["text", "odd"]


def test_a_reject_shows_what_can_be_shown():
    table = pa.table({"id": [1], "odd": TWICE[:1], "at": pa.array([0], pa.timestamp("us", "Nowhere/None"))})
    shown = parquet_rows._show_row(table, 0)
    assert shown.startswith('{"id": 1, "odd": "cannot be shown (')
    assert "Nowhere/None" in shown


def test_what_arrow_cannot_do_is_an_error_of_the_input(tmp_path, monkeypatch):
    def fail(table: pa.Table, positions: object) -> pa.Table:
        if "odd" in table.column_names:
            raise pa.ArrowNotImplementedError("extension")
        return table

    path = save(tmp_path / "a.parquet", text=["a", "b"], odd=[1, 2])
    monkeypatch.setattr(parquet_rows, "_pick", fail)
    with pytest.raises(
        JobInputError, match=r"a\.parquet, rows from 1 on: the columns 'odd' cannot be read \(extension"
    ):
        read(path)
