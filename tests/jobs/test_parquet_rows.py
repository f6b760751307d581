"""Parquet: rows of one or several files, by row groups."""

from __future__ import annotations

import uuid
from contextlib import closing

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gliner_fast.jobs.errors import JobInputError
from gliner_fast.jobs.inputs import find_inputs
from gliner_fast.jobs.parquet_rows import ParquetRows
from gliner_fast.jobs.sources import Selection, plan_schema
from tests.jobs.rows import open_rows, read, save


def broken_strings(*values: bytes) -> pa.Array:
    """Strings that are no UTF-8, as careless writers leave them."""
    return pa.array(values, pa.binary()).view(pa.string())


def test_rows_come_with_their_columns_in_the_order_asked_for(tmp_path):
    path = save(tmp_path / "a.parquet", {"id": [1, 2, 3], "text": ["a", "", "c"], "x": [[1], None, []]})
    assert read(path, piece=2).columns == [
        {"id": 1, "text": "a", "x": [1]},
        {"id": 2, "text": "", "x": None},
        {"id": 3, "text": "c", "x": []},
    ]
    rows = read(path, selection=Selection(id_column="id", columns=["x", "text"]))
    assert [list(row.values()) for row in rows.columns] == [[1, [1], "a"], [2, None, ""], [3, [], "c"]]
    assert rows.texts == ["a", "", "c"]
    with closing(open_rows([path], Selection(columns=[]))) as reader:
        assert reader.read(2).texts == ["a", ""]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str
)
def test_texts_may_be_strings_of_any_make(tmp_path, kind):
    path = save(tmp_path / "a.parquet", {"text": pa.array(["a", None, "a\0\U0001f600"]).cast(kind)})
    rows = read(path)
    assert rows.texts == ["a", "a\0\U0001f600"]
    assert rows.faults == [(2, "'text' is null: expected a string", '{"text": null}')]


def test_a_dictionary_becomes_its_values(tmp_path):
    path = save(tmp_path / "a.parquet", {"text": ["a"], "kind": pa.array(["x"]).dictionary_encode()})
    with closing(open_rows([path])) as reader:
        assert reader.read(1).columns.schema.field("kind").type == pa.string()


@pytest.mark.parametrize(
    ("kind", "plain"),
    [
        (pa.large_list(pa.string_view()), pa.large_list(pa.string())),
        (pa.list_(pa.binary_view(), 2), pa.list_(pa.binary(), 2)),
        (pa.map_(pa.string(), pa.string_view(), keys_sorted=True), pa.map_(pa.string(), pa.string(), keys_sorted=True)),
    ],
    ids=str,
)
def test_a_column_keeps_its_type_but_for_views(tmp_path, kind, plain):
    path = save(tmp_path / "a.parquet", {"text": ["a"], "x": pa.nulls(1, kind)})
    with closing(open_rows([path])) as reader:
        assert reader.schema.field("x").type == plain


def test_nothing_but_null_is_nothing_but_rejects(tmp_path):
    rows = read(save(tmp_path / "a.parquet", {"text": pa.nulls(3)}))
    assert (rows.count, rows.texts, [line for line, _, _ in rows.faults]) == (3, [], [1, 2, 3])


UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    ("value", "kind", "shown"),
    [
        (UUID, pa.uuid(), f'"{UUID}"'),
        (["a"], pa.list_(pa.string_view()), '["a"]'),
        (["a"], pa.large_list(pa.string_view()), '["a"]'),
        (["a"], pa.list_(pa.string_view(), 1), '["a"]'),
        ({"a": ["b"]}, pa.struct([("a", pa.list_(pa.string_view()))]), '{"a": ["b"]}'),
        ([("a", "b")], pa.map_(pa.string(), pa.string_view()), '[["a", "b"]]'),
        (["a"], pa.list_(pa.dictionary(pa.int32(), pa.string())), '["a"]'),
    ],
    ids=str,
)
def test_a_reject_shows_values_of_any_kind(tmp_path, value, kind, shown):
    values = pa.array([value.bytes], pa.binary(16)).cast(kind) if value is UUID else pa.array([value], kind)
    column = pa.chunked_array([values, values])
    rows = read(save(tmp_path / "a.parquet", {"text": ["a", None], "x": column}))
    assert [row["x"] for row in rows.columns] == [value]
    assert [raw for _, _, raw in rows.faults] == [f'{{"text": null, "x": {shown}}}']


def test_rows_with_strings_that_are_not_utf8_are_set_apart(tmp_path):
    columns = {
        "text": broken_strings(b"a", b"caf\xe9", b"c", b"d"),
        "x": broken_strings(b"x", b"x", b"\xff", b"x"),
        "tags": pa.ListArray.from_arrays(pa.array([0, 1, 1, 2, 3], pa.int32()), broken_strings(b"t", b"t", b"\xfe")),
    }
    path = save(tmp_path / "a.parquet", columns)
    rows = read(path, piece=4)
    assert rows.texts == ["a"]
    assert [(line, reason) for line, reason, _ in rows.faults] == [
        (2, "'text' is not UTF-8"),
        (3, "'x' is not UTF-8"),
        (4, "'tags' is not UTF-8"),
    ]
    assert rows.faults[0][2] == '{"text": "caf\\\\xe9", "x": "x", "tags": []}'
    assert '"x": "\\\\xff"' in rows.faults[1][2]
    assert '"tags": "\\\\xfe"' in rows.faults[2][2]
    assert read(path, selection=Selection(columns=["text"])).texts == ["a", "c", "d"]


@pytest.mark.parametrize(
    ("columns", "selection", "message"),
    [
        ({"body": ["a"], "id": [1]}, Selection(), "a.parquet has no column 'text' .its columns: 'body', 'id'.: name"),
        ({"text": ["a"]}, Selection(labels_column="labels"), "no column 'labels'"),
        ({"text": ["a"]}, Selection(columns=["id"]), "no column 'id'"),
        ({"text": [1]}, Selection(), "the text column 'text' is int64: expected string"),
        ({"text": [b"a"]}, Selection(), "'text' is binary: expected string"),
        ({"text": [["a"]]}, Selection(), "'text' is list<element: string>: expected string"),
        (
            {"text": ["a"], "row": [1]},
            Selection(reserved=["row"]),
            "column 'row', the name of one that the output adds",
        ),
        (pa.Table.from_arrays([["a"], ["b"]], ["text", "text"]), Selection(), "has 2 columns 'text': rename"),
    ],
)
def test_a_file_without_what_is_needed_is_refused(tmp_path, columns, selection, message):
    with pytest.raises(JobInputError, match=message):
        open_rows([save(tmp_path / "a.parquet", columns)], selection)


@pytest.mark.parametrize("content", [b"", b"no Parquet", b"PAR1" + b"x" * 100 + b"PAR1"])
def test_what_is_no_parquet_file_is_refused(tmp_path, content):
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    with pytest.raises(JobInputError, match="a.parquet is no Parquet file"):
        open_rows([path])


def test_a_damaged_page_is_a_clear_error(tmp_path):
    path = save(tmp_path / "a.parquet", {"text": ["some text"] * 1000}, compression="zstd")
    content = bytearray(path.read_bytes())
    content[4:60] = bytes(56)
    path.write_bytes(content)
    with (
        closing(open_rows([path])) as reader,
        pytest.raises(JobInputError, match="a.parquet is damaged in row group 0"),
    ):
        reader.read(10)


@pytest.mark.parametrize(
    ("one", "other", "planned"),
    [
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.int64(), pa.uint32(), pa.int64()),
        (pa.int32(), pa.float64(), pa.float64()),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.null(), pa.list_(pa.int8()), pa.list_(pa.int8())),
        (pa.string(), pa.large_string(), pa.large_string()),
        (pa.binary(), pa.large_binary(), pa.large_binary()),
        (pa.dictionary(pa.int8(), pa.string()), pa.string(), pa.string()),
        (pa.int64(), pa.float64(), None),
        (pa.int64(), pa.uint64(), None),
        (pa.int8(), pa.uint8(), None),
        (pa.int32(), pa.uint64(), None),
        (pa.string(), pa.int64(), None),
        (pa.timestamp("ms"), pa.timestamp("us"), None),
    ],
    ids=str,
)
@pytest.mark.parametrize("is_turned", [False, True])
def test_files_may_differ_where_nothing_is_lost(tmp_path, one, other, planned, is_turned):
    kinds = [other, one] if is_turned else [one, other]
    paths = [
        save(tmp_path / f"{number}.parquet", {"text": ["a"], "x": pa.nulls(1, kind)})
        for number, kind in enumerate(kinds)
    ]
    if planned is None:
        with pytest.raises(JobInputError, match=r"column 'x' is .* in .*0.parquet and .* in .*1.parquet"):
            open_rows(paths)
        assert read(*paths, selection=Selection(columns=["text"])).texts == ["a", "a"]
        return
    with closing(open_rows(paths)) as reader:
        assert reader.schema.field("x").type == planned
        assert reader.read(2).columns.schema == reader.schema


def test_files_may_order_their_columns_differently_but_not_have_others(tmp_path):
    one = save(tmp_path / "1.parquet", {"text": ["a"], "id": [1]})
    two = save(tmp_path / "2.parquet", {"id": [2], "text": ["b"]})
    more = save(tmp_path / "3.parquet", {"id": [2], "text": ["b"], "x": [0]})
    assert read(one, two).columns == [{"text": "a", "id": 1}, {"text": "b", "id": 2}]
    with pytest.raises(
        JobInputError, match="1.parquet has the columns 'text', 'id' and .*3.parquet has 'id', 'text', 'x'"
    ):
        open_rows([one, more])
    assert read(one, more, selection=Selection(columns=["id"])).columns == [{"id": 1}, {"id": 2}]


def test_nested_columns_come_through(tmp_path):
    nested = pa.array([{"a": [{"b": "x"}], "m": [("k", 1)]}, None], pa.struct([
        ("a", pa.list_(pa.struct([("b", pa.string())]))), ("m", pa.map_(pa.string(), pa.int64())),
    ]))  # fmt: skip
    path = save(tmp_path / "a.parquet", {"text": ["a", "b"], "nested": nested})
    assert [row["nested"] for row in read(path, piece=1).columns] == nested.to_pylist()


def test_row_groups_that_are_passed_over_are_not_decoded(tmp_path, monkeypatch):
    path = save(tmp_path / "a.parquet", {"text": [str(i) for i in range(100)]}, row_group_size=10)
    (file,) = find_inputs([str(path)])
    rows = ParquetRows(file, Selection(), open_rows([path]).schema)
    decoded = []
    iterate = rows._opened.iter_batches
    monkeypatch.setattr(
        rows._opened,
        "iter_batches",
        lambda *args, row_groups, **kwargs: (
            decoded.extend(row_groups) or iterate(*args, row_groups=row_groups, **kwargs)
        ),
    )
    assert rows.skip(35) == 35
    assert rows.read(10, 35).texts == [str(i) for i in range(35, 45)]
    assert rows.skip(45) == 45
    assert rows.read(20, 90).texts == [str(i) for i in range(90, 100)]
    assert rows.skip(1) == 0
    assert decoded == [3, 4, 9]
    rows.close()


def test_the_last_row_of_a_group_may_be_the_first_that_is_wanted(tmp_path):
    path = save(tmp_path / "a.parquet", {"text": [str(i) for i in range(20)]}, row_group_size=10)
    with closing(open_rows([path])) as reader:
        assert reader.skip(9) == 9
        assert reader.read(2).texts == ["9", "10"]


def test_row_groups_without_rows_are_passed_over(tmp_path):
    table = pa.table({"text": ["a", "b"]})
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema) as writer:
        for piece in (table[:0], table[:0], table[:1], table[:0], table[:0], table[1:], table[:0]):
            writer.write_table(piece)
    assert pq.read_metadata(tmp_path / "a.parquet").num_row_groups > 2
    assert read(tmp_path / "a.parquet").texts == ["a", "b"]


def test_a_reject_has_its_place_in_its_own_file_and_the_reason_of_its_first_column(tmp_path):
    one = save(tmp_path / "1.parquet", {"text": ["a", "b"], "x": ["", ""]})
    two = save(tmp_path / "2.parquet", {"text": broken_strings(b"c", b"\xff"), "x": broken_strings(b"", b"\xff")})
    (reject,) = read(one, two, piece=9).rejects
    assert (reject.row, reject.file, reject.line, reject.reason) == (3, str(two), 2, "'text' is not UTF-8")


def test_a_plan_does_not_keep_what_pandas_wrote_beside_the_columns(tmp_path):
    table = pa.table({"text": ["a"]}).replace_schema_metadata({"pandas": "{}"})
    path = save(tmp_path / "a.parquet", table)
    plain = save(tmp_path / "b.parquet", {"text": ["a"]})
    plans = [plan_schema(find_inputs([str(file)]), Selection()) for file in (path, plain)]
    assert plans[0] == plans[1]
    with closing(open_rows([path])) as reader:
        assert reader.read(1).columns.schema.metadata is None
