"""Job folders that others write to: a second process, and who plants links or edits the manifest."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from gliner_fast.jobs.errors import JobError
from gliner_fast.jobs.job_folder import JobFolder, Paths
from tests.jobs.job_folders import PLAN, join, put


def _hold(paths: Paths, held: Any, leave: Any) -> None:
    with JobFolder(paths, PLAN):
        held.set()
        leave.wait(240)


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(paths: Paths):
    context = multiprocessing.get_context("spawn")
    held, leave = context.Event(), context.Event()
    first = context.Process(target=_hold, args=(paths, held, leave))
    first.start()
    try:
        assert held.wait(240)  # a new process imports torch, which takes a minute on a busy machine
        with pytest.raises(JobError, match=f"written by another process .{first.pid} on"), JobFolder(paths, PLAN):
            pass
    finally:
        first.kill()
        first.join()
    with JobFolder(paths, PLAN):
        pass


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["manifest.jsonl", "holder", "lock", "rejects", "shards"])
def test_links_in_the_places_of_a_jobs_own_files_are_refused(name: str, overwrite: bool, tmp_path: Path):
    paths = Paths(tmp_path / "found.jsonl", is_file=True)
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0)
    planted, elsewhere = paths.job / name, tmp_path / "elsewhere"
    planted.rename(elsewhere)
    planted.symlink_to(elsewhere)
    files = [elsewhere] if elsewhere.is_file() else list(elsewhere.iterdir())
    before = [file.read_bytes() for file in files]
    with (
        pytest.raises(JobError, match=f"{name} is a link.*remove the link"),
        JobFolder(paths, PLAN, overwrite=overwrite),
    ):
        pass
    assert [file.read_bytes() for file in files] == before


def test_the_folder_of_a_job_and_a_folder_of_shards_may_be_links(paths: Paths, tmp_path: Path):
    for place in (paths.output if not paths.is_file else paths.job, paths.job):
        if not place.exists():
            elsewhere = tmp_path / f"disk of {place.name}"
            elsewhere.mkdir()
            place.symlink_to(elsewhere)
    for _ in range(2):
        with JobFolder(paths, PLAN) as folder:
            put(folder, 0)
    with JobFolder(paths, PLAN) as folder:
        folder.join(join)
        assert folder.is_joined


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second disk")
def test_the_folder_of_a_job_may_lie_on_another_disk(tmp_path: Path):
    paths = Paths(tmp_path / "found.jsonl", is_file=True)
    with TemporaryDirectory(dir="/dev/shm") as elsewhere:
        paths.job.symlink_to(elsewhere)
        with JobFolder(paths, PLAN) as folder:
            put(folder, 0, b"first\n")
            folder.join(join)
    assert paths.output.read_bytes() == b"first\n"


def test_a_link_that_is_put_in_the_holders_place_meanwhile_is_replaced(paths: Paths, tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr(JobFolder, "_refuse_links", lambda _: None)
    (tmp_path / "precious").write_text("words", encoding="utf-8")
    paths.job.mkdir(parents=True)
    (paths.job / "holder").symlink_to(tmp_path / "precious")
    with JobFolder(paths, PLAN):
        assert str(os.getpid()) in (paths.job / "holder").read_text(encoding="utf-8")
    assert (tmp_path / "precious").read_text(encoding="utf-8") == "words"


def test_a_holder_is_told_without_what_moves_the_cursor(paths: Paths):
    with JobFolder(paths, PLAN):
        (paths.job / "holder").write_bytes(b"\x1b[2J\nh\xc3\xa9\xff" + b"x" * 10_000)
        with pytest.raises(JobError) as refusal, JobFolder(paths, PLAN):
            pass
    assert r"process (\x1b[2J\nhé\xffxxx" in str(refusal.value)
    assert str(refusal.value).count("x") < 210


ODD_SLICES: list[dict[str, Any]] = [
    {"rows": -20},
    {"rows": True},
    {"rows": 1.0},
    {"rows": 2**63},
    {"entities": -1},
    {"number": -1},
    {"number": 7},
    {"number": True},
    {"number": 10**30},
    {"shard": "shard-0000007.jsonl"},
    {"shard": "shard-0000000.jsonl/../../x"},
    {"stats": ["texts"]},
    {"stats": {"texts": "y"}},
    {"stats": {"texts": True}},
    {"stats": {"texts": -1}},
    {"stats": {"texts": 10**400}},
    {"stats": {"texts": float("inf")}},
    {"stats": {"texts": float("nan")}},
]


def edit_manifest(paths: Paths, changes: dict[str, Any], line: int = 1) -> None:
    """Changes what a line of the manifest says of a slice, or of the whole."""
    lines = [json.loads(line) for line in paths.manifest.read_text(encoding="utf-8").splitlines()]
    lines[line].get("slice", lines[line]).update(changes)
    paths.manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.mark.parametrize("changes", ODD_SLICES, ids=str)
def test_a_manifest_of_slices_that_cannot_be_is_damaged(changes: dict[str, Any], paths: Paths):
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0)
    edit_manifest(paths, changes)
    with pytest.raises(JobError, match="is damaged: start anew"), JobFolder(paths, PLAN):
        pass


@pytest.mark.parametrize("size", [-1, True, 2**63, "6", 6.0])
def test_a_manifest_of_an_output_of_an_odd_size_is_damaged(size: Any, paths: Paths):
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0)
        folder.join(join)
    edit_manifest(paths, {"joined": size}, line=-1)
    with pytest.raises(JobError, match="is damaged"), JobFolder(paths, PLAN):
        pass


def test_a_manifest_of_a_finished_job_without_one_of_its_slices_is_damaged(paths: Paths):
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0)
        put(folder, 2)
        folder.join(join)
    with pytest.raises(JobError, match="is damaged"), JobFolder(paths, PLAN):
        pass
