"""The job's memory: whole files, one process, the same plan."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from gliner_fast.jobs.aside import write_aside
from gliner_fast.jobs.errors import JobError
from gliner_fast.jobs.job_folder import JobFolder, Paths, shard_name
from tests.jobs.job_folders import PLAN, changed, join, put


def test_a_second_run_knows_what_the_first_one_finished(paths: Paths):
    with JobFolder(paths, PLAN) as folder:
        records = [put(folder, number) for number in (0, 2)]
    with JobFolder(paths, PLAN) as folder:
        assert list(folder.finished.values()) == records
        assert folder.rows == 2
        assert not folder.is_joined


def test_a_line_that_was_being_written_is_forgotten(paths: Paths):
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0)
        put(folder, 1)
    content = paths.manifest.read_bytes()
    sizes = range(content.rstrip(b"\n").rfind(b"\n") + 1, len(content))
    # Each waits for the disk: all for one form of output, of which the other's manifest differs in nothing.
    for size in sizes if paths.is_file else (*sizes[:-3:5], *sizes[-3:]):
        paths.manifest.write_bytes(content[:size])
        with JobFolder(paths, PLAN) as folder:
            assert set(folder.finished) == {0}
            put(folder, 1)
        with JobFolder(paths, PLAN) as folder:
            assert set(folder.finished) == {0, 1}


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_shard_that_is_gone_is_done_again(damage: str, paths: Paths):
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0, b"long enough\n")
        put(folder, 1)
    shard = paths.shards / shard_name(0, ".jsonl")
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(b"long")
    with JobFolder(paths, PLAN) as folder:
        assert set(folder.finished) == {1}


def test_half_written_files_are_swept_away(paths: Paths):
    with JobFolder(paths, PLAN):
        pass
    part = "0123456789ab.part"
    left = [
        paths.shards / f"shard-0000001.jsonl.{part}",
        paths.rejects / f"rejects-0000001.jsonl.{part}",
        paths.job / f"manifest.jsonl.{part}",
        paths.job / f"report.json.{part}",
    ]
    if paths.is_file:
        left.append(paths.output.parent / f"{paths.output.name}.{part}")
    name = paths.output.name
    others = [paths.output.parent / other for other in ("a.part", f"{name}.tar.part", f"{name}.gz.{part}", f"x.{part}")]
    for path in (*left, *others):
        path.write_text("half", encoding="utf-8")
    with JobFolder(paths, PLAN):
        assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)


def test_joining_makes_one_file_and_removes_the_parts(tmp_path: Path):
    paths = Paths(tmp_path / "found.jsonl", is_file=True)
    with JobFolder(paths, PLAN) as folder:
        put(folder, 1, b"second\n", rejects=2)
        put(folder, 0, b"first\n", rejects=1)
        folder.join(join)
        assert paths.output.read_bytes() == b"first\nsecond\n"
        assert paths.all_rejects.read_bytes() == b"x\n" * 3
        assert not paths.shards.exists()
        assert not paths.rejects.exists()
    with JobFolder(paths, PLAN) as folder:
        assert folder.is_joined
        assert folder.rows == 2


def test_joining_a_folder_leaves_its_shards(tmp_path: Path):
    paths = Paths(tmp_path / "found", is_file=False)
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0)
        folder.join(join)
    assert [path.name for path in sorted(paths.output.iterdir())] == ["_job", shard_name(0, ".jsonl")]
    with JobFolder(paths, PLAN) as folder:
        assert folder.is_joined


def test_an_output_that_was_removed_after_the_job_is_made_again(paths: Paths):
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0)
        folder.join(join)
    (paths.output if paths.is_file else paths.shards / shard_name(0, ".jsonl")).unlink()
    with JobFolder(paths, PLAN) as folder:
        assert not folder.is_joined
        assert not folder.finished


def test_a_shard_removed_after_the_job_brings_all_rejects_back(tmp_path: Path):
    paths = Paths(tmp_path / "found", is_file=False)
    with JobFolder(paths, PLAN) as folder:
        for number in range(3):
            put(folder, number, rejects=number)
        folder.join(join)
    (paths.shards / shard_name(0, ".jsonl")).unlink()
    with JobFolder(paths, PLAN) as folder:
        assert not folder.finished  # the rejects of 1 and 2 were joined away
    with JobFolder(paths, PLAN) as folder:
        for number in range(3):
            put(folder, number, rejects=number)
        folder.join(join)
    assert paths.all_rejects.read_bytes() == b"x\n" * 3
    with JobFolder(paths, PLAN) as folder:
        assert folder.is_joined


@pytest.mark.parametrize(
    "content",
    [b"", b"{}\n", b"[\n", b"7\n", b"precious", b"precious\nwords", b'{"plan": 1}\n{"sl', b"[" * 10**5 + b"\n"],
    ids=lambda content: content[:20],
)
def test_a_damaged_manifest_is_refused_and_kept_to_its_last_line(content: bytes, paths: Paths):
    with JobFolder(paths, PLAN):
        pass
    paths.manifest.write_bytes(content)
    with pytest.raises(JobError, match="is damaged: start anew"), JobFolder(paths, PLAN):
        pass
    assert paths.manifest.read_bytes() == content
    with JobFolder(paths, PLAN, overwrite=True):
        pass


def test_a_kill_between_joining_and_remembering_it_joins_again(tmp_path: Path):
    paths = Paths(tmp_path / "found.jsonl", is_file=True)
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0, b"first\n")
    paths.output.write_bytes(b"first\n")
    with JobFolder(paths, PLAN) as folder:
        assert not folder.is_joined
        folder.join(join)
    assert paths.output.read_bytes() == b"first\n"


def test_overwriting_starts_anew_and_removes_only_what_jobs_made(paths: Paths):
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0, rejects=1)
        folder.join(join)
    others = [folder / "notes.txt" for folder in (paths.output.parent, paths.job if paths.is_file else paths.output)]
    for other in others:
        other.write_text("keep", encoding="utf-8")
    with JobFolder(paths, changed(threshold=0.3), overwrite=True) as folder:
        assert not folder.finished
        assert not folder.is_joined
        assert not (paths.shards / shard_name(0, ".jsonl")).exists()
        assert not paths.all_rejects.exists()
        assert paths.output.exists()  # one file stays until the new job has another to put in its place
    assert all(other.exists() for other in others)


def test_overwriting_goes_on_with_the_same_job_until_it_is_finished(paths: Paths):
    for number in range(2):  # as the same command does that was killed
        with JobFolder(paths, PLAN, overwrite=True) as folder:
            assert set(folder.finished) == set(range(number))
            put(folder, number)
    with JobFolder(paths, PLAN, overwrite=True) as folder:
        folder.join(join)
    with JobFolder(paths, PLAN, overwrite=True) as folder:
        assert not folder.finished
        assert not folder.is_joined


def test_overwriting_does_not_go_on_with_another_job(paths: Paths):
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0)
    with JobFolder(paths, changed(threshold=0.3), overwrite=True) as folder:
        assert not folder.finished


@pytest.mark.parametrize("is_file", [True, False])
def test_a_device_or_a_pipe_is_not_replaced(is_file: bool, tmp_path: Path):
    pipe = tmp_path / "found.jsonl"
    os.mkfifo(pipe)
    for overwrite in (False, True):
        job = JobFolder(Paths(pipe, is_file=is_file), PLAN, overwrite=overwrite)
        with pytest.raises(JobError, match=r"found\.jsonl is a device or a pipe: .*, or - for standard output"), job:
            pass
    assert pipe.is_fifo()
    assert [*tmp_path.iterdir()] == [pipe]


def test_what_no_job_made_is_not_touched(tmp_path: Path):
    file = tmp_path / "found.jsonl"
    file.write_text("precious", encoding="utf-8")
    with pytest.raises(JobError, match="exists, and no job left it"), JobFolder(Paths(file, is_file=True), PLAN):
        pass
    with pytest.raises(JobError, match="is a file"), JobFolder(Paths(file, is_file=False), PLAN):
        pass
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(JobError, match="is a folder"), JobFolder(Paths(folder, is_file=True), PLAN):
        pass
    (folder / "photo.png").write_bytes(b"png")
    (folder / shard_name(0, ".jsonl")).write_text("mine", encoding="utf-8")
    for overwrite in (False, True):
        with (
            pytest.raises(JobError, match="holds files that no job left"),
            JobFolder(Paths(folder, is_file=False), PLAN, overwrite=overwrite),
        ):
            pass
    assert len(list(folder.iterdir())) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "found.jsonl"]


def test_a_failed_write_names_the_file_and_leaves_nothing(tmp_path: Path):
    def fill_disk(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left on device") as failure:
        write_aside(tmp_path / "shard", fill_disk)
    assert failure.value.filename == str(tmp_path / "shard")
    assert failure.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full disk")
def test_a_manifest_that_cannot_be_written_is_named_and_forgets_nothing(paths: Paths):
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0)
        whole = paths.manifest.rename(paths.job / "whole")
        paths.manifest.symlink_to("/dev/full")
        with pytest.raises(OSError, match="No space left on device; what is finished stays") as failure:
            put(folder, 1)
        assert failure.value.filename == str(paths.manifest)
        assert set(folder.finished) == {0}
        whole.rename(paths.manifest)
    with JobFolder(paths, PLAN) as folder:
        assert set(folder.finished) == {0}
