"""What all formats of records have in common: a line that is too long to be a row."""

from __future__ import annotations

import pytest

from gliner_fast.jobs import byte_stream
from gliner_fast.jobs.errors import JobInputError
from gliner_fast.jobs.sources import Selection
from tests.jobs.rows import open_rows, read, write

LONG = b"x" * 3000

CONTENTS = {
    "a.jsonl": (b'{"text": "good"}', b'{"text": "a", "x": "' + LONG + b'"}'),
    "b.jsonl": (b'{"text": "good"}', b'{"text": "a"}' + b" " * 3000),
    "c.jsonl": (b'{"text": "good"}', b" " * 3000 + b'{"text": "a"}'),
    "a.txt": (b"good", LONG),
    "a.csv": (b"good,1", b"bad," + LONG),
    "b.csv": (b"good,1", b'bad,"' + LONG),  # a quote that the rest of the line may have closed
    "c.csv": (b"good,1", b'"bad",' + b'"' * 2999),
    "a.tsv": (b"good\t1", b"\t" * 3000),
}


@pytest.mark.parametrize("as_objects", [True, False])
@pytest.mark.parametrize(("name", "lines"), CONTENTS.items(), ids=CONTENTS)
def test_a_line_that_is_too_long_is_set_apart_and_harms_no_other(tmp_path, monkeypatch, name, lines, as_objects):
    monkeypatch.setattr(byte_stream, "_LONGEST_LINE", 2000)
    good, bad = lines
    header = {"csv": [b"text,n"], "tsv": [b"text\tn"]}.get(name[2:], [])
    path = write(tmp_path / name, b"\n".join([*header, good, bad, good, b""]))
    rows = read(path, selection=Selection(as_objects=as_objects))
    assert rows.texts == ["good", "good"]
    ((line, why, raw),) = rows.faults
    assert line == len(header) + 2
    assert why.removeprefix("not CSV: ") == "a line of more than 2,000 bytes, too long to be read: break it up"
    assert len(raw) < 1100
    assert raw.endswith("...")


def test_a_record_that_has_a_line_that_is_too_long_ends_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(byte_stream, "_LONGEST_LINE", 2000)
    cut = b"x" + "é".encode() * 2000  # its thousandth byte is half a character
    rows = read(write(tmp_path / "a.csv", b'text,n\n"bad\n' + cut + b"\ngood,1\n"))
    assert rows.texts == ["good"]
    ((line, why, _),) = rows.faults
    assert line == 2
    assert why.startswith("not CSV: a line of more than 2,000 bytes, too long")
    assert why.endswith("(lines 2 to 3, which quotes join)")


def test_a_header_that_is_too_long_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(byte_stream, "_LONGEST_LINE", 2000)
    with pytest.raises(JobInputError, match="a line of more than 2,000 bytes"):
        open_rows([write(tmp_path / "a.csv", b"text," + LONG + b"\na,b\n")])
