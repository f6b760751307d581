"""Bytes of inputs: compressed or not, whole or broken."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import sys
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from gliner_fast.jobs import byte_stream
from gliner_fast.jobs.byte_stream import ByteStream, CutLine
from gliner_fast.jobs.errors import JobInputError
from gliner_fast.jobs.inputs import find_inputs
from gliner_fast.jobs.stopping import Stop


def gz(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def zst(content: bytes) -> bytes:
    return pa.compress(content, codec="zstd", asbytes=True)


def lines_of(path: Path) -> list[tuple[int, bytes]]:
    with closing(ByteStream(find_inputs([str(path)])[0])) as stream:
        return list(stream.lines())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b"one\ntwo"),
        ("a.txt.gz", gz(b"one\ntwo")),
        ("a.txt.zst", zst(b"one\ntwo")),
        ("a.txt.gz", gz(b"one\nt") + gz(b"") + gz(b"wo")),
        ("a.txt.zst", zst(b"one\nt") + zst(b"wo")),
        ("a.txt.gz", gz(b"one\ntwo") + bytes(1000)),
        ("a.txt.gz", gz(b"one\nt") + bytes(3) + gz(b"wo")),
    ],
)
def test_lines_are_numbered_and_keep_their_breaks(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert lines_of(tmp_path / name) == [(1, b"one\n"), (2, b"two")]


def test_lines_may_be_longer_than_any_buffer(tmp_path):
    line = os.urandom(3_000_000).replace(b"\n", b" ")
    for name, content in {"a.txt": line, "a.txt.gz": gz(line), "a.txt.zst": zst(line)}.items():
        (tmp_path / name).write_bytes(content + (content if name != "a.txt" else b""))
        assert lines_of(tmp_path / name) == [(1, line * 2 if name != "a.txt" else line)]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.zst"])
@pytest.mark.parametrize("end", [b"\n", b"\nlast"])
def test_of_a_line_that_is_too_long_the_beginning_is_left_and_the_rest_passed_over(tmp_path, monkeypatch, name, end):
    monkeypatch.setattr(byte_stream, "_LONGEST_LINE", 2000)
    just_right, too_long = b"a" * 1999 + b"\n", b"b" * 2000
    content = codecs.BOM_UTF8 + just_right[3:] + too_long + b"\n" + just_right + b"c" * 10**6 + end
    (tmp_path / name).write_bytes({".gz": gz, ".zst": zst}.get(Path(name).suffix, bytes)(content))
    with closing(ByteStream(find_inputs([str(tmp_path / name)])[0])) as stream:
        lines = list(stream.lines())
        assert stream.bytes_read == (tmp_path / name).stat().st_size
    assert lines[:4] == [(1, just_right[3:]), (2, b"b" * 1000 + b"..."), (3, just_right), (4, b"c" * 1000 + b"...")]
    assert [isinstance(line, CutLine) for _, line in lines[:4]] == [False, True, False, True]
    assert lines[4:] == ([(5, b"last")] if end == b"\nlast" else [])


def test_a_last_line_may_be_as_long_as_lines_may_be(tmp_path, monkeypatch):
    monkeypatch.setattr(byte_stream, "_LONGEST_LINE", 5)
    (tmp_path / "a.txt").write_bytes(b"12345")
    assert lines_of(tmp_path / "a.txt") == [(1, b"12345")]


WHOLE = os.urandom(100_000)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt.gz", gz(WHOLE)[:50_000]),
        ("a.txt.gz", gz(WHOLE)[:-4]),
        ("a.txt.gz", gz(WHOLE)[:50_000] + b"x" * 100 + gz(WHOLE)[50_100:]),
        ("a.txt.gz", gz(b"")[:10] + b"\xff" * 100),
        ("a.txt.gz", b"plain text, in fact\n"),
        ("a.txt.gz", gz(b"one\n") + b"and more\n"),
        ("a.txt.zst", zst(WHOLE)[:50_000]),
        ("a.txt.zst", b"plain text, in fact\n"),
    ],
)
def test_broken_compression_ends_the_file_with_a_clear_word(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(JobInputError, match=f"{name} cannot be decompressed as .*is it cut off, or misnamed"):
        lines_of(tmp_path / name)


def test_an_error_of_the_system_stays_what_it_is(tmp_path, monkeypatch):
    (tmp_path / "a.txt.gz").write_bytes(gz(WHOLE))
    stream = ByteStream(find_inputs([str(tmp_path / "a.txt.gz")])[0])

    def fail(buffer: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(stream._counted, "_read_into", fail)
    with pytest.raises(OSError, match="Input/output error"), closing(stream):
        list(stream.lines())


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.zst"])
def test_bytes_are_counted_as_they_lie_on_the_disk_and_without_what_waits_in_buffers(tmp_path, name):
    content = b"one line like all the others\n" * 100
    path = tmp_path / name
    path.write_bytes({".gz": gz, ".zst": zst}.get(path.suffix, bytes)(content))
    size = path.stat().st_size
    with closing(ByteStream(find_inputs([str(path)])[0])) as stream:
        assert stream.bytes_read == 0
        lines = stream.lines()
        for read in range(1, 101):
            next(lines)
            assert stream.bytes_read == pytest.approx(size * read / 100, abs=1)
        assert list(lines) == []
        assert stream.bytes_read == size


def test_standard_input_gives_lines_as_they_come_and_stays_open(monkeypatch):
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as source, os.fdopen(write_end, "wb", buffering=0) as sink:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(source))
        with closing(ByteStream(find_inputs(["-"], "text")[0])) as stream:
            lines = stream.lines()
            sink.write(b"first\nsec")
            assert next(lines) == (1, b"first\n")  # and waits for no more than that
            sink.write(b"ond\n")
            assert next(lines) == (2, b"second\n")
            sink.close()
            assert list(lines) == []
        assert not source.closed
        sys.stdin.detach()


def test_a_closed_standard_input_is_told(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(JobInputError, match="standard input is closed: give a file"):
        ByteStream(find_inputs(["-"], "text")[0])


def test_a_terminal_is_asked_for_its_end_once(monkeypatch):
    ours, theirs = os.openpty()
    os.write(ours, b"Ada\n\x04Charles\n\x04\x04\x04")  # Ctrl-D ends it, wherever it is asked for more
    with os.fdopen(theirs, "rb") as source:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(source))
        with closing(ByteStream(find_inputs(["-"], "text")[0], Stop())) as stream:
            assert list(stream.lines()) == [(1, b"Ada\n")]
        sys.stdin.detach()
    os.close(ours)
