"""Plain text: every line is a row."""

from __future__ import annotations

from contextlib import closing

import pytest

from gliner_fast.jobs.errors import JobInputError
from gliner_fast.jobs.sources import Selection
from tests.jobs.rows import open_rows, read, write


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"", []),
        (b"\xef\xbb\xbf", []),
        (b"\n", [""]),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\n\n b \nc", ["a", "", " b ", "c"]),
        (b"a\r\n\r\nb\r\n", ["a", "", "b"]),
        (b"a\rb\n", ["a\rb"]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb", ["a", "\ufeffb"]),
        ("nul \0, line \u2028, \x0b\x0c\x1c\x85\n".encode(), ["nul \0, line \u2028, \x0b\x0c\x1c\x85"]),
    ],
)
def test_every_line_is_a_row(tmp_path, content, texts):
    rows = read(write(tmp_path / "a.txt", content))
    assert rows.texts == texts
    assert rows.columns == [{"text": text} for text in texts]


def test_lines_that_are_not_utf8_are_set_apart(tmp_path):
    rows = read(write(tmp_path / "a.txt", b"a\ncaf\xe9\nb\n\xff\xff"))
    assert rows.texts == ["a", "b"]
    assert [(line, raw) for line, _, raw in rows.faults] == [(2, "caf\\xe9"), (4, "\\xff\\xff")]
    assert rows.faults[0][1] == "not UTF-8: unexpected end of data at byte 4 of the row (0xe9)"


def test_the_text_column_has_the_name_asked_for_or_is_left_out(tmp_path):
    path = write(tmp_path / "a.txt", b"a\nb")
    assert read(path, selection=Selection(text_column="line")).columns == [{"line": "a"}, {"line": "b"}]
    with closing(open_rows([path], Selection(columns=[]))) as reader:
        assert reader.read(5).columns.column_names == []


@pytest.mark.parametrize(
    "selection", [Selection(id_column="id"), Selection(labels_column="id"), Selection(columns=["id"])]
)
def test_plain_text_has_no_other_columns(tmp_path, selection):
    with pytest.raises(JobInputError, match="plain text, which has no column 'id'"):
        open_rows([write(tmp_path / "a.txt", b"a")], selection)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_is_refused_as_a_whole(tmp_path, encoding):
    with (
        closing(open_rows([write(tmp_path / "a.txt", "\ufeffa\nb".encode(encoding))])) as reader,
        pytest.raises(JobInputError, match="a.txt is UTF-16: expected UTF-8"),
    ):
        reader.read(1)
