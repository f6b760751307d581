"""Which files are meant, and how one is known again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from gliner_fast.jobs.errors import JobInputError
from gliner_fast.jobs.inputs import InputFile, find_inputs, fingerprint


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with some files."""
    for name in [
        "b.jsonl",
        "a.jsonl",
        "deep/c.jsonl.gz",
        "deep/.hidden.jsonl",
        "deep/_SUCCESS",
        "_job/d.jsonl",
        "x.md",
    ]:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}\n")
    (tmp_path / "one[1].txt").write_bytes(b"text")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "file_format", "compression"),
    [
        ("a.jsonl", "jsonl", None),
        ("a.ndjson.gz", "jsonl", "gzip"),
        ("a.JSONL.ZST", "jsonl", "zstd"),
        ("a.parquet", "parquet", None),
        ("a.pq", "parquet", None),
        ("a.b.csv", "csv", None),
        ("a.tsv.zst", "tsv", "zstd"),
        ("a.txt", "text", None),
        ("a.text.gz", "text", "gzip"),
    ],
)
def test_the_extension_tells_format_and_compression(tmp_path, name, file_format, compression):
    path = tmp_path / name
    path.write_bytes(b"12345")
    assert find_inputs([str(path)]) == [InputFile(str(path), file_format, compression, 5)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["data/b.jsonl", "data/a.jsonl"], ["data/b.jsonl", "data/a.jsonl"]),
        (["data/*.jsonl"], ["data/a.jsonl", "data/b.jsonl"]),
        (["data/**/*.jsonl*"], ["data/_job/d.jsonl", "data/a.jsonl", "data/b.jsonl", "data/deep/c.jsonl.gz"]),
        (["data"], ["data/a.jsonl", "data/b.jsonl", "data/deep/c.jsonl.gz"]),
        (["data/deep", "data/a.jsonl"], ["data/deep/c.jsonl.gz", "data/a.jsonl"]),
        (["one[1].txt"], ["one[1].txt"]),
    ],
)
def test_files_globs_and_folders_come_in_the_order_given_and_sorted_within(folder, given, expected):
    assert [file.path for file in find_inputs(given)] == expected


def test_a_glob_passes_over_what_an_earlier_call_wrote_wherever_that_is_seen_from(folder):
    for ours in (Path("data/deep/../a.jsonl"), folder / "data/a.jsonl"):
        assert [file.path for file in find_inputs(["data/*.jsonl"], ours=[ours])] == ["data/b.jsonl"]
    assert [file.path for file in find_inputs(["data/**/*.jsonl*"], ours=[Path("data/_job"), Path("data/deep")])] == [
        "data/a.jsonl",
        "data/b.jsonl",
    ]


def test_a_format_holds_whatever_the_names_say(folder):
    assert [file.format for file in find_inputs(["data/x.md", "data/a.jsonl"], "text")] == ["text", "text"]
    assert find_inputs(["data/deep/c.jsonl.gz"], "csv")[0].compression == "gzip"
    assert "data/x.md" in [file.path for file in find_inputs(["data"], "text")]


def test_standard_input_is_taken_for_text_where_nothing_says_otherwise():
    assert find_inputs(["-"]) == [InputFile("-", "text", None, None, is_assumed=True)]
    assert find_inputs(["-"], "jsonl") == [InputFile("-", "jsonl", None, None)]
    assert fingerprint(find_inputs(["-"], "jsonl")[0]) is None


@pytest.mark.parametrize(
    ("given", "file_format", "error", "message"),
    [
        ([], None, JobInputError, "no input"),
        (["none.jsonl"], None, FileNotFoundError, "no such file: none.jsonl"),
        (["data/*.csv"], None, FileNotFoundError, "no file matches data/\\*.csv"),
        (["empty"], None, JobInputError, "no input in folder empty: expected files in .jsonl, .ndjson"),
        (["data/x.md"], None, JobInputError, "data/x.md: unknown extension; .*--input-format"),
        (["data/a.jsonl"], "xml", JobInputError, "'xml' is unknown: expected jsonl, parquet, csv, tsv or text"),
        (["data/a.jsonl"] * 2, None, JobInputError, "named twice \\(data/a.jsonl\\)"),
        (["data/a.jsonl", "data"], None, JobInputError, "named twice \\(data/a.jsonl\\)"),
        (["data/a.jsonl", "data/deep/../a.jsonl"], None, JobInputError, "twice \\(data/a.jsonl and data/deep/../a"),
        (["data/a.jsonl", "one[1].txt"], None, JobInputError, "data/a.jsonl is jsonl and one.* is text"),
        (["-"], "parquet", JobInputError, "cannot be read from standard input"),
        (["-", "data/a.jsonl"], "jsonl", JobInputError, "give it alone"),
        (["data/deep/c.jsonl.gz"], "parquet", JobInputError, "compressed within"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_way_out(folder, given, file_format, error, message):
    with pytest.raises(error, match=message):
        find_inputs(given, file_format)


def test_a_link_is_the_file_it_points_to(folder):
    Path("link.jsonl").symlink_to("data/a.jsonl")
    assert find_inputs(["link.jsonl"])[0].size == 3
    with pytest.raises(JobInputError, match="named twice"):
        find_inputs(["data/a.jsonl", "link.jsonl"])


def test_a_link_to_nothing_is_told_as_such(folder):
    Path("dangling.jsonl").symlink_to("gone.jsonl")
    for given in ("dang*.jsonl", "dangling.jsonl"):
        with pytest.raises(JobInputError, match=r"dangling\.jsonl is a link to gone\.jsonl, which is not there"):
            find_inputs([given])


def test_a_pipe_is_sent_to_standard_input(folder):
    os.mkfifo("pipe.jsonl")
    with pytest.raises(JobInputError, match="pipe it to standard input"):
        find_inputs(["pipe.jsonl"])


@pytest.mark.parametrize("size", [0, 1, 2**16, 2**22, 2**22 + 1, 2**23 + 12345])
def test_a_fingerprint_knows_a_copy_and_sees_changes(tmp_path, size):
    original, copy = tmp_path / "a.txt", tmp_path / "b.txt"
    original.write_bytes(os.urandom(size))
    shutil.copy2(original, copy)  # the time of its last change too, which counts for files above 4 MiB

    def of(path: Path) -> dict | None:
        return fingerprint(find_inputs([str(path)])[0])

    assert of(original) == of(copy)
    assert of(original)["size"] == size
    os.utime(copy, (0, 0))
    assert (of(original) == of(copy)) == (size <= 2**22)
    for place in {0, size // 2, size // 3, size - 1} if size else ():
        content = bytearray(original.read_bytes())
        content[place] ^= 1
        copy.write_bytes(content)
        assert of(original) != of(copy)
        shutil.copystat(original, copy)
        if size <= 2**22 or place in {0, size - 1}:  # which are read of any file
            assert of(original) != of(copy)
    copy.write_bytes(original.read_bytes() + b"\n")
    assert of(original) != of(copy)
