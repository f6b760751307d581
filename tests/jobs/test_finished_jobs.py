"""What becomes of a job's folder behind its end: edited outputs, damaged memories, names as long as they can be."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from gliner_fast.jobs.aside import write_aside
from gliner_fast.jobs.errors import JobError
from gliner_fast.jobs.job_folder import JobFolder, Paths
from tests.jobs.test_job_folder import PLAN, join, put


def finish(paths: Paths) -> None:
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0)
        folder.join(join)


@pytest.mark.parametrize("name", ["found.jsonl", "found"])
def test_a_finished_output_that_was_edited_is_not_replaced(name: str, tmp_path: Path):
    paths = Paths(tmp_path / name, is_file=name.endswith(".jsonl"))
    finish(paths)
    file = paths.output if paths.is_file else paths.shards / "shard-0000000.jsonl"
    file.write_text("edited by hand", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(
            JobError, match=r"is finished, and has changed since \(it had 3 bytes, and has 14\)"
        ) as told:
            JobFolder(paths, PLAN).__enter__()
        assert str(file) in str(told.value)
        assert "move it away to have it made anew, or overwrite it (--overwrite)" in str(told.value)
    assert file.read_text(encoding="utf-8") == "edited by hand"
    with JobFolder(paths, PLAN, overwrite=True) as folder:
        assert not folder.finished
        put(folder, 0)
        folder.join(join)
    assert file.read_bytes() == b"{}\n"
    file.rename(tmp_path / "kept")
    with JobFolder(paths, PLAN) as folder:
        assert not folder.is_joined


SLICE = {"number": 0, "rows": 1, "shard": "shard-0000000.jsonl", "shard_bytes": 3, "rejects": 0, "entities": 0}


@pytest.mark.parametrize(
    "line",
    [
        3,
        [1],
        None,
        "slice",
        {"slice": {"number": 5}},
        {"slice": 5},
        {"slice": {**SLICE, "more": 1}},
        {"slice": {**SLICE, "rows": "1"}},
        {"slice": {**SLICE, "stats": None}},
        {"slice": {**SLICE, "shard": "../found.jsonl"}},
        {"joined": "3"},
    ],
    ids=str,
)
def test_a_line_of_another_shape_is_told_and_overwritten(line: Any, tmp_path: Path):
    paths = Paths(tmp_path / "found.jsonl", is_file=True)
    with JobFolder(paths, PLAN):
        pass
    with paths.manifest.open("a", encoding="utf-8") as manifest:
        manifest.write(json.dumps(line) + "\n")
    with pytest.raises(JobError, match="is damaged: start anew"):
        JobFolder(paths, PLAN).__enter__()
    with JobFolder(paths, PLAN, overwrite=True) as folder:
        assert not folder.finished
    with JobFolder(paths, PLAN):
        pass


@pytest.mark.skipif(os.name == "nt", reason="names of files are shorter there")
@pytest.mark.parametrize("length", [238, 251])
def test_an_output_s_name_may_be_as_long_as_that_of_its_folder_lets_it(length: int, tmp_path: Path):
    paths = Paths(tmp_path / f"{'n' * (length - 6)}.jsonl", is_file=True)
    finish(paths)
    assert paths.output.read_bytes() == b"{}\n"


def test_what_was_being_joined_is_swept_away(tmp_path: Path):
    paths = Paths(tmp_path / "found.jsonl", is_file=True)

    def killed(shards: list[Path], out: Path) -> None:
        del shards
        out.write_bytes(b"half")
        out.with_name("joined.0123456789ab.part").write_bytes(b"half")  # as a process leaves it that dies here
        assert out.parent == paths.job
        raise KeyboardInterrupt

    with JobFolder(paths, PLAN) as folder:
        put(folder, 0)
        with pytest.raises(KeyboardInterrupt):
            folder.join(killed)
    assert not paths.output.exists()
    with JobFolder(paths, PLAN):
        assert not list(paths.job.glob("*.part"))


@pytest.mark.parametrize(
    ("number", "way_on"),
    [
        (errno.ENAMETOOLONG, "what is finished stays, but the name needs to be shorter"),
        (errno.EACCES, "what is finished stays, and the same call goes on once it may be written"),
        (errno.EROFS, "what is finished stays, and the same call goes on once it may be written"),
        (errno.ENOSPC, "what is finished stays, and the same call goes on from there"),
    ],
)
def test_an_error_of_the_disk_promises_what_holds(number: int, way_on: str, tmp_path: Path):
    def fail(path: Path) -> None:
        raise OSError(number, os.strerror(number), str(path))

    with pytest.raises(OSError, match=way_on) as failure:
        write_aside(tmp_path / "shard", fail)
    assert failure.value.strerror == f"{os.strerror(number)}; {way_on}"


def test_an_error_of_the_disk_that_has_no_number_keeps_its_words(tmp_path: Path):
    def fail(path: Path) -> None:
        raise OSError("a codec failed")

    with pytest.raises(OSError, match="a codec failed; what is finished stays, and the same call goes on from there"):
        write_aside(tmp_path / "shard", fail)
