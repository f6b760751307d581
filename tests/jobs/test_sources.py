"""All files as one sequence of rows, in whatever pieces they are read or passed over."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliner_fast.jobs.errors import JobInputError
from gliner_fast.jobs.inputs import find_inputs
from gliner_fast.jobs.sources import SAMPLE, RowReader, Selection, count_rows, plan_schema
from tests.jobs.rows import Rows, join, open_rows, read, write
from tests.reference.examples import examples

Row = dict[str, Any]

# --- rows -> files, as other programs write them ----------------------------------------------------------------------


def as_jsonl(rows: list[Row]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=number % 2 == 0).encode() + b"\n" for number, row in enumerate(rows))


def as_csv(rows: list[Row], dialect: type[csv.Dialect] = csv.excel) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, ["id", "text"], dialect=dialect, quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def as_text(rows: list[Row]) -> bytes:
    return b"".join(row["text"].replace("\n", " ").removesuffix("\r").encode() + b"\n" for row in rows)


def as_parquet(rows: list[Row]) -> bytes:
    out = io.BytesIO()
    schema = pa.schema([("id", pa.string()), ("text", pa.string())])
    pq.write_table(pa.Table.from_pylist(rows, schema), out, row_group_size=5)
    return out.getvalue()


WRITERS: dict[str, Callable[[list[Row]], bytes]] = {
    ".jsonl": as_jsonl,
    ".jsonl.gz": as_jsonl,
    ".jsonl.zst": as_jsonl,
    ".csv": as_csv,
    ".csv.gz": as_csv,
    ".tsv.zst": lambda rows: as_csv(rows, csv.excel_tab),
    ".txt": as_text,
    ".txt.zst": as_text,
    ".parquet": as_parquet,
}

# A first character U+FEFF would be a byte order mark. Python 3.10's CSV reader refuses NUL.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff\0"), max_size=20)
SEQUENCES = st.lists(
    st.lists(st.builds(lambda key, text: {"id": key, "text": text}, TEXTS, TEXTS), max_size=12), max_size=3
)
# Rows to read (True) or pass over.
PIECES = st.lists(st.tuples(st.booleans(), st.integers(0, 15)), max_size=8)


@examples
@given(files=SEQUENCES, pieces=PIECES, suffix=st.sampled_from(sorted(WRITERS)))
def test_rows_are_those_of_the_files_in_whatever_pieces(files: list[list[Row]], pieces, suffix: str):
    with TemporaryDirectory() as folder:
        contents = [WRITERS[suffix](rows) for rows in files] or [WRITERS[suffix]([])]
        paths = [write(Path(folder) / f"{number}{suffix}", content) for number, content in enumerate(contents)]
        expected = [row for rows in files for row in rows]
        if suffix.startswith(".txt"):
            expected = [{"text": row["text"].replace("\n", " ").removesuffix("\r")} for row in expected]
        inputs = find_inputs([str(path) for path in paths])
        assert count_rows(inputs, Selection()) == len(expected)
        place = 0
        with closing(open_rows(paths)) as reader:
            for is_read, count in [*pieces, (True, len(expected) + 1)]:
                left = expected[place : place + count]
                if is_read:
                    block = reader.read(count)
                    assert block.count == len(left)
                    assert join([block]) == Rows(
                        len(left), list(range(place, place + len(left))), [row["text"] for row in left], [], left, []
                    )
                else:
                    assert reader.skip(count) == len(left)
                place += len(left)
            assert reader.read(5).count == reader.skip(5) == 0
            assert reader.bytes_read == reader.bytes_total == sum(path.stat().st_size for path in paths)


@examples
@given(
    content=st.lists(st.sampled_from([*b'",\n\r\tab {}[]:\\', 0xFF, 0xC3, 0xA9]), max_size=60).map(bytes),
    data=st.data(),
)
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".txt"])
def test_what_is_passed_over_is_counted_as_it_would_be_read_whatever_the_bytes(suffix, content, data):
    with TemporaryDirectory() as folder:
        path = write(Path(folder) / f"a{suffix}", b"text\n" + content if suffix in {".csv", ".tsv"} else content)
        whole = read(path)
        assert whole.count == len(whole.rows) + len(whole.rejects)
        count = data.draw(st.integers(0, whole.count))
        with closing(open_rows([path])) as reader:
            assert reader.skip(count) == count
            rest = join([reader.read(1000)])
        assert rest.rejects == [reject for reject in whole.rejects if reject.row >= count]
        assert rest.rows == [row for row in whole.rows if row >= count]
        assert rest.texts == whole.texts[len(whole.texts) - len(rest.texts) :]


# --- many bad rows ----------------------------------------------------------------------------------------------------

BAD_JSON = [
    b'{"text": "broken"', b"[]", b"nonsense", b'{"text": null}', b'{"text": 7}', b'{"id": 1}',
    b'{"text": "\xff"}', b'{"text": "\\udfff"}', b'{"text": "a", "labels": []}', b'{"text": "a", "labels": 5}',
]  # fmt: skip
BAD_CSV = [b"1", b'"a"b,x', b"\xff,x", b"a,b,c", b"a,"]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.zst", ".csv.gz"])
def test_a_thousand_bad_rows_among_ten_thousand_are_set_apart_with_their_lines(tmp_path, suffix):
    draw = random.Random(7)
    bad = set(draw.sample(range(10_000), 1000))
    is_json = "jsonl" in suffix
    kinds = BAD_JSON if is_json else BAD_CSV
    lines: list[bytes] = [] if is_json else [b"text,labels"]
    places, texts = [], []
    for row in range(10_000):
        lines += [b""] * draw.randrange(2)
        if row in bad:
            places.append((row, len(lines) + 1, kinds[len(places) % len(kinds)]))
            lines.append(places[-1][2])
            continue
        texts.append(f"text {row}")
        if is_json:
            lines.append(json.dumps({"text": texts[-1], "labels": ["a"]}).encode())
        else:
            texts[-1] += "\nof two lines"
            lines += f'"{texts[-1]}",a'.encode().split(b"\n")
    path = write(tmp_path / f"a{suffix}", b"\n".join(lines))
    rows = read(path, selection=Selection(labels_column="labels", columns=[]), piece=777)
    assert rows.count == 10_000
    assert rows.texts == texts
    assert rows.rows == [row for row in range(10_000) if row not in bad]
    assert rows.labels == [["a"]] * 9000
    assert [(reject.row, reject.line, reject.raw) for reject in rows.rejects] == [
        (row, line, raw.decode("utf-8", "backslashreplace")) for row, line, raw in places
    ]
    assert all(reject.reason and reject.file == str(path) for reject in rows.rejects)


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".csv", ".txt.zst"])
def test_memory_does_not_grow_with_the_file(tmp_path, suffix):
    text = os.urandom(500).hex()  # compresses by half at best
    path = write(
        tmp_path / f"a{suffix}", WRITERS[suffix]([{"id": str(i), "text": f"{i} {text}"} for i in range(8_000)])
    )
    with closing(open_rows([path])) as reader:
        before = pa.total_allocated_bytes()
        tracemalloc.start()
        try:
            while reader.read(64).count:
                assert pa.total_allocated_bytes() - before < 3_000_000
            assert tracemalloc.get_traced_memory()[1] < 3_000_000  # of 8 MB
        finally:
            tracemalloc.stop()


def test_memory_does_not_grow_with_a_row_group(tmp_path):
    texts = [os.urandom(500).hex() for _ in range(24_000)]
    pq.write_table(pa.table({"text": texts, "same": texts}), tmp_path / "a.parquet", use_dictionary=False)
    assert pq.read_metadata(tmp_path / "a.parquet").num_row_groups == 1
    with closing(open_rows([tmp_path / "a.parquet"])) as reader:
        before = pa.total_allocated_bytes()
        while reader.read(64).count:
            assert pa.total_allocated_bytes() - before < 12_000_000  # of 48 MB


# --- standard input ---------------------------------------------------------------------------------------------------


@pytest.fixture
def standard_input(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Sets what is piped in."""
    return lambda content: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.mark.parametrize(
    ("file_format", "content", "columns"),
    [
        ("jsonl", b'{"text": "a", "x": 1}\n\n{"text": "b"}', [{"text": "a", "x": 1}, {"text": "b", "x": None}]),
        ("csv", b"x,text\n1,a\n2,b\n", [{"x": "1", "text": "a"}, {"x": "2", "text": "b"}]),
        ("tsv", b"x\ttext\n", []),
        ("text", b"a\nb", [{"text": "a"}, {"text": "b"}]),
        ("jsonl", b"", []),
        ("csv", b"", []),
        ("text", b"", []),
    ],
)
def test_standard_input_is_planned_by_the_rows_that_come_first(standard_input, file_format, content, columns):
    standard_input(content)
    files = find_inputs(["-"], file_format)
    schema = plan_schema(files, Selection())
    assert schema is None  # and nothing is read for it
    with closing(RowReader(files, Selection(), schema)) as reader:
        assert reader.bytes_total == 0
        blocks = [reader.read(1) for _ in range(3)]
        assert join(blocks).columns == columns
        assert all(block.columns.schema == reader.schema for block in blocks)


def test_standard_input_as_objects_waits_for_no_sample(standard_input):
    standard_input(b'{"text": "a", "x": []}\n')
    with closing(RowReader(find_inputs(["-"], "jsonl"), Selection(as_objects=True))) as reader:
        assert reader.read(9).columns == [{"text": "a", "x": []}]


@pytest.mark.parametrize(
    ("content", "text_column", "complaint"),
    [
        (b'{"body": "a"}\n', "body", "the text is in 'body': give --input-format jsonl"),
        (b'{"text": "a"}\n', "text", "the text is in 'text': give --input-format jsonl"),
        (b'{"other": "a"}\n', "body", "its fields: 'other'"),
        (b'{"other": "a"}\n', "text", None),
        (b"{}\n", "text", None),
    ],
)
def test_json_lines_are_not_taken_for_text_without_a_word(standard_input, content, text_column, complaint):
    selection = Selection(text_column)
    standard_input(content)
    if complaint is None:
        with pytest.warns(UserWarning, match="plain text.* is a JSON object .*give --input-format jsonl"):
            reader = RowReader(find_inputs(["-"]), selection)
        assert reader.read(9).texts == [content.decode().strip()]
    else:
        with pytest.raises(JobInputError, match=complaint):
            RowReader(find_inputs(["-"]), selection)
    standard_input(content)  # whoever says text means it
    assert RowReader(find_inputs(["-"], "text"), selection).read(9).texts == [content.decode().strip()]


@pytest.mark.parametrize(
    "content", [b"", b"a\n", b'[{"text": "a"}]\n', b'{"text": \n', b'"text"\n', b"{Ada} wrote.\n", b"\xff{}\n"]
)
def test_other_lines_of_standard_input_are_text_in_any_column(standard_input, content):
    standard_input(content)
    block = RowReader(find_inputs(["-"]), Selection("body")).read(9)
    assert block.columns.column_names == ["body"]
    assert block.count == len(content.splitlines())


def test_standard_input_is_checked_as_files_are(standard_input):
    standard_input(b"body\na\n")
    with pytest.raises(JobInputError, match="standard input has no column 'text'"):
        RowReader(find_inputs(["-"], "csv"), Selection())
    standard_input(b"text,entities\na,b\n")
    with pytest.raises(JobInputError, match="column 'entities', the name of one that the output adds"):
        RowReader(find_inputs(["-"], "csv"), Selection(reserved=["entities"]))
    for as_objects in (True, False):
        standard_input(b'{"body": "a"}\n' * 8)
        with (
            pytest.raises(JobInputError, match="standard input: no row has a field 'text'; the first rows have 'body'"),
            closing(RowReader(find_inputs(["-"], "jsonl"), Selection(as_objects=as_objects))) as reader,
        ):
            reader.read(9)
    # Whoever sends rows may wait for the answers to the first: only enough rows show that a name is wrong.
    standard_input(b'{"error": 1}\n' * 8 + b'{"text": "a"}\n' + b'{"body": "a"}\n' * SAMPLE)
    with closing(RowReader(find_inputs(["-"], "jsonl"), Selection(as_objects=True))) as reader:
        assert [list(reader.read(8).texts) for _ in range(SAMPLE // 8)][1] == ["a"]
        assert len(reader.read(99).rejects) == 9
    standard_input(b'{"body": "a"}\n' * 2 * SAMPLE)
    with closing(RowReader(find_inputs(["-"], "jsonl"), Selection(as_objects=True))) as reader:
        assert len(reader.read(SAMPLE - 1).rejects) == SAMPLE - 1
        with pytest.raises(JobInputError, match="standard input: no row has a field 'text'"):
            reader.read(1)
    with pytest.raises(JobInputError, match="cannot be counted"):
        count_rows(find_inputs(["-"], "csv"), Selection())


# --- columns ----------------------------------------------------------------------------------------------------------


def test_an_empty_input_has_a_block_without_rows_but_with_its_columns(tmp_path):
    path = write(tmp_path / "a.csv", b"text,x\n")
    with closing(open_rows([path])) as reader:
        block = reader.read(10)
    assert (block.count, block.columns.column_names, block.labels) == (0, ["text", "x"], None)


def test_the_id_comes_first_where_it_is_not_among_the_columns():
    assert Selection(id_column="id", columns=["x"]).kept == ["id", "x"]
    assert Selection(id_column="id", columns=["x", "id", "x"]).kept == ["x", "id"]
    assert Selection(id_column="id").kept is None


def test_blocks_number_rows_and_rejects_across_files(tmp_path):
    one = write(tmp_path / "1.jsonl", b'{"text": "a"}\nbroken\n')
    two = write(tmp_path / "2.jsonl", b'\nbroken too\n{"text": "b"}\n')
    rows = read(one, two, piece=10)
    assert (rows.rows, rows.texts) == ([0, 3], ["a", "b"])
    assert [(reject.row, reject.file, reject.line) for reject in rows.rejects] == [(1, str(one), 2), (2, str(two), 2)]


def test_rows_are_counted_however_many_they_are(tmp_path):
    count = 2**20 + 3  # more than are passed over at once
    write(tmp_path / "a.txt", b"\n" * count)
    assert count_rows(find_inputs([tmp_path / "a.txt"], None), Selection()) == count


def test_the_first_rows_of_all_files_together_decide_on_columns(tmp_path):
    one = write(tmp_path / "1.jsonl", b'{"text": "a"}\n' * (SAMPLE - 1))
    two = write(tmp_path / "2.jsonl", b'{"text": "a", "x": 1}\n{"text": "a", "x": "b", "y": 1}\n')
    with closing(open_rows([one, two])) as reader:
        assert reader.schema.names == ["text", "x"]
        assert reader.schema.field("x").type == pa.int64()


@pytest.mark.parametrize("ending", WRITERS)
def test_a_check_refuses_rows_of_any_format(ending, tmp_path):
    rows = [{"id": str(number), "text": text} for number, text in enumerate(["good", "bad", "good, too"])]
    files = find_inputs([write(tmp_path / f"a{ending}", WRITERS[ending](rows))], None)
    with closing(RowReader(files, Selection(), check=lambda text, _: "no" if text == "bad" else None)) as reader:
        block = reader.read(9)
    assert (block.count, list(block.texts)) == (3, ["good", "good, too"])
    assert [(reject.row, reject.reason) for reject in block.rejects] == [(1, "no")]
