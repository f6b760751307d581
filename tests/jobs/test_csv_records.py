"""CSV and TSV: which records are rows, where they stand, and which cannot be used."""

from __future__ import annotations

import csv
import os
from contextlib import closing
from time import process_time

import pytest

from gliner_fast.jobs import csv_records
from gliner_fast.jobs.errors import JobInputError
from gliner_fast.jobs.sources import Selection
from tests.jobs.rows import open_rows, read, write


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        (b"id,text\n1,a\n2,b\n", [{"id": "1", "text": "a"}, {"id": "2", "text": "b"}]),
        (b"\xef\xbb\xbfid,text\r\n1,a\r\n2,b", [{"id": "1", "text": "a"}, {"id": "2", "text": "b"}]),
        (b'text\n"a, ""b"""\n', [{"text": 'a, "b"'}]),
        (b'text,n\n"two\nlines\r\nand\rmore",1\n', [{"text": "two\nlines\r\nand\rmore", "n": "1"}]),
        (b"text,n\n\n\r\na,1\n\n", [{"text": "a", "n": "1"}]),
        (b'text,n\n,\n"",""\n', [{"text": "", "n": ""}, {"text": "", "n": ""}]),
        (b'text,n\n a , 01\nNA,null\n5" pipe,1e3\n', [
            {"text": " a ", "n": " 01"}, {"text": "NA", "n": "null"}, {"text": '5" pipe', "n": "1e3"},
        ]),
        (b",text\n0,a\n", [{"": "0", "text": "a"}]),
        (b"id,text\n", []),
        (b"", []),
    ],
)  # fmt: skip
def test_values_pass_unchanged(tmp_path, content, columns):
    rows = read(write(tmp_path / "a.csv", content))
    assert rows.columns == columns
    assert rows.texts == [row["text"] for row in columns]
    assert rows.faults == []


def test_tsv_has_tabs(tmp_path):
    rows = read(write(tmp_path / "a.tsv", b'id\ttext\n1\ta, b\n2\t"c\td"\n'))
    assert rows.columns == [{"id": "1", "text": "a, b"}, {"id": "2", "text": "c\td"}]


BAD_RECORDS = {
    "too few values": (b"3", "1 values: expected 2, as in the header", "3"),
    "too many values": (b"3,a,b", "3 values: expected 2", "3,a,b"),
    "text behind a quote": (b'3,"a"b', "not CSV: ',' expected after '\"'", '3,"a"b'),
    "not UTF-8": (
        b"3,caf\xe9 au lait",
        "not UTF-8: invalid continuation byte at byte 6 of the row (0xe9)",
        "3,caf\\xe9 au lait",
    ),
    "not UTF-8 in another column": (b"\xff,a", "not UTF-8", "\\xff,a"),
    "not UTF-8 behind a line break": (b'3,"a\nb\xff"', "not UTF-8: invalid start byte at byte 7", '3,"a\nb\\xff"'),
}


@pytest.mark.parametrize(("record", "reason", "raw"), BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_a_bad_record_is_set_apart_with_its_line(tmp_path, record, reason, raw):
    content = b"\n".join([b"id,text", b'1,"over', b'two lines"', b"", record, b"4,good", record, b"5,good"])
    rows = read(write(tmp_path / "a.csv", content))
    assert (rows.rows, rows.texts) == ([0, 2, 4], ["over\ntwo lines", "good", "good"])
    second = 7 + record.count(b"\n")
    assert [(line, shown) for line, _, shown in rows.faults] == [(5, raw), (second, raw)]
    assert all(reason in why for _, why, _ in rows.faults)


def test_a_quote_that_is_never_closed_takes_what_follows_it(tmp_path):
    rows = read(write(tmp_path / "a.csv", b'id,text\n1,a\n2,"b\n3,c\n'))
    assert rows.texts == ["a"]
    assert [(line, raw) for line, _, raw in rows.faults] == [(3, '2,"b\n3,c')]
    assert rows.faults[0][1].startswith("not CSV")
    assert rows.faults[0][1].endswith(" (lines 3 to 4, which quotes join)")


def test_a_reject_says_which_lines_stray_quotes_have_joined(tmp_path):
    content = b'id\ttext\n1\t"A" is a letter\n2\t"open\n3\tb\n4\t"x\ty\n5\tgood\n'
    rows = read(write(tmp_path / "a.tsv", content))
    assert rows.texts == ["good"]
    lines = [(line, reason.partition(" (")[2]) for line, reason, _ in rows.faults]
    assert lines == [(2, ""), (3, "lines 3 to 5, which quotes join)")]


def test_a_value_without_end_is_given_up_and_the_next_line_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_records, "_LONGEST_VALUE", 1000)
    before = csv.field_size_limit(1000)
    try:
        lines = [b"id,text", b'1,"never closed', *[b"2," + b"x" * 90] * 20]
        rows = read(write(tmp_path / "a.csv", b"\n".join(lines)))
    finally:
        csv.field_size_limit(before)
    assert [line for line, _, _ in rows.faults] == [2]
    assert "field larger than field limit" in rows.faults[0][1]
    assert len(rows.texts) == 20 - rows.faults[0][2].count("\n")


def test_values_may_be_longer_than_the_standard_library_allows_by_itself(tmp_path):
    rows = read(write(tmp_path / "a.csv", b"text\n" + b"word " * 200_000 + b"\n"))
    assert len(rows.texts[0]) == 1_000_000


def test_a_process_that_allows_still_longer_values_keeps_doing_so(tmp_path):
    before = csv.field_size_limit(csv_records._LONGEST_VALUE + 1)
    try:
        read(write(tmp_path / "a.csv", b"text\na\n"))
        assert csv.field_size_limit() == csv_records._LONGEST_VALUE + 1
    finally:
        csv.field_size_limit(before)


@pytest.mark.parametrize(
    ("content", "selection", "message"),
    [
        (
            b"id,body\n1,a\n",
            Selection(),
            r"a.csv has no column 'text' .*'id', 'body'.* by text_column \(--text-column\)$",
        ),
        (
            b"id;text\n1;a\n",
            Selection(),
            "by the first line, are 'id;text'.*: name the right .*; .* and not by semic",
        ),
        (b"text\n", Selection(id_column="id"), r"no column 'id'.*: name the right one by id_column \(--id-column\)$"),
        (b"text\n", Selection(columns=["x"]), r"no column 'x' .* by columns \(--columns\)$"),
        (b"text,text\n", Selection(), "has 2 columns 'text': rename all but one$"),
        (b"text,x,x\n", Selection(), "has 2 columns 'x': rename all but one, or leave it out .*--columns"),
        (b"text,caf\xe9\n", Selection(), "the header is not UTF-8"),
        (b'text,"a"b\n', Selection(), "the header .* is broken"),
        (
            b"text,entities\n",
            Selection(reserved=["entities"]),
            "column 'entities', the name of one that the output adds",
        ),
    ],
)
def test_a_file_without_what_is_needed_is_refused(tmp_path, content, selection, message):
    with pytest.raises(JobInputError, match=message):
        open_rows([write(tmp_path / "a.csv", content)], selection)


def test_broken_compression_is_told_as_such(tmp_path):
    path = write(tmp_path / "a.csv.gz", b"text\n" + os.urandom(9000).hex().encode())
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(JobInputError, match="cannot be decompressed as gzip"):
        read(path)


def test_many_columns_take_no_time_of_their_square(tmp_path):
    names = [f"c{number}" for number in range(20_000)]
    path = write(tmp_path / "a.csv", ",".join([*names, "text"]).encode() + b"\n" + b"1," * len(names) + b"Ada\n")
    began = process_time()
    with closing(open_rows([path])) as reader:
        block = reader.read(2)
    assert process_time() - began < 4  # 0.3 s; it was 20 s
    assert (block.texts, block.columns.num_columns) == (["Ada"], 20_001)


def test_a_column_twice_harms_nothing_where_it_is_left_out(tmp_path):
    path = write(tmp_path / "a.csv", b"x,text,x\n1,a,2\n")
    assert read(path, selection=Selection(columns=["text"])).columns == [{"text": "a"}]


def test_files_may_order_their_columns_differently(tmp_path):
    empty = write(tmp_path / "0.csv", b"")
    one = write(tmp_path / "1.csv", b"id,text\n1,a\n")
    two = write(tmp_path / "2.csv", b"text,id\nb,2\n")
    rows = read(empty, one, two)
    assert rows.columns == [{"id": "1", "text": "a"}, {"id": "2", "text": "b"}]
    assert [list(row) for row in rows.columns] == [["id", "text"]] * 2


def test_files_with_other_columns_need_a_choice(tmp_path):
    one = write(tmp_path / "1.csv", b"id,text\n1,a\n")
    two = write(tmp_path / "2.csv", b"text,id,more\nb,2,3\n")
    with pytest.raises(JobInputError, match="1.csv has the columns 'id', 'text' and .*2.csv has 'text', 'id', 'more'"):
        open_rows([one, two])
    assert read(one, two, selection=Selection(columns=["id"])).columns == [{"id": "1"}, {"id": "2"}]
