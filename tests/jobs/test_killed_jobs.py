"""A job that dies at any moment goes on, and its output is that of an unbroken run, byte for byte."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from gliner_fast import GLiNER, extract_files
from tests.jobs.conftest import texts_of, write_jsonl
from tests.nursery import COMPLETE, STOPPED, Nursery

pytestmark = pytest.mark.timeout(240)

ROWS = 240
OPTIONS: dict[str, Any] = {"labels": ["person", "city", "event"], "threshold": 0.3, "rows_per_shard": 16}
KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("source") / "in.jsonl", ROWS)


def write_rows(path: Path, count: int) -> Path:
    """Rows of which two are rejects."""
    rows: list[dict[str, Any]] = [{"id": number, "text": text} for number, text in enumerate(texts_of(count))]
    rows[7] = {"id": 7, "text": None}
    rows[-40] = {"id": count - 40}
    return write_jsonl(path, rows)


def content_of(output: Path) -> dict[str, bytes]:
    """Names and bytes of an output, its rejects included; report and manifest hold times."""
    folder = output if output.is_dir() else output.parent
    files = (path for path in folder.rglob("*") if path.is_file())
    private = {"manifest.jsonl", "report.json", "lock", "holder"}
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files if path.name not in private}


@pytest.fixture(scope="module", params=["found.parquet", "found.jsonl", "found"])
def unbroken(
    request: pytest.FixtureRequest, nursery: Nursery, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, bytes], float]:
    """An output's name, its content after an unbroken run, and the seconds that took."""
    output = tmp_path_factory.mktemp("unbroken") / request.param
    begin = time.monotonic()
    assert nursery.run(inputs=str(source), output=str(output), **OPTIONS) == COMPLETE
    content = content_of(output)
    assert sum(map(len, content.values())) > 10_000
    return request.param, content, time.monotonic() - begin


def test_seven_kills_of_a_form_at_random_moments_change_nothing(
    unbroken: tuple[str, dict[str, bytes], float], nursery: Nursery, source: Path, tmp_path: Path
):
    name, expected, seconds = unbroken
    moments = random.Random(name)
    kills = jobs = 0
    while kills < 7:
        output = tmp_path / str(jobs) / name
        output.parent.mkdir()
        code = KILLED
        while code == KILLED:
            child = nursery.start(inputs=str(source), output=str(output), **OPTIONS)
            if kills < 7:
                time.sleep(moments.uniform(0, seconds / 2))
                os.kill(child, signal.SIGKILL)
            code = nursery.wait(child)
            kills += code == KILLED
        assert code == COMPLETE
        assert content_of(output) == expected
        jobs += 1


@pytest.mark.parametrize("name", ["found.parquet", "found.jsonl", "found"])
def test_a_death_at_any_step_to_the_disk_changes_nothing(name: str, nursery: Nursery, tmp_path: Path):
    source = write_rows(tmp_path / "in.jsonl", 56)  # four slices: each step takes two jobs
    unbroken = tmp_path / "unbroken" / name
    unbroken.parent.mkdir()
    assert nursery.run(inputs=str(source), output=str(unbroken), **OPTIONS) == COMPLETE
    expected, codes = content_of(unbroken), []
    for step in (*range(7), *range(9, 200, 6)):
        output = tmp_path / str(step) / name
        output.parent.mkdir()
        codes.append(nursery.run(inputs=str(source), output=str(output), die_at=step, **OPTIONS))
        if codes[-1] == COMPLETE:
            break
        assert codes[-1] == KILLED
        assert nursery.run(inputs=str(source), output=str(output), **OPTIONS) == COMPLETE
        assert content_of(output) == expected, f"died at step {step}"
    assert codes[-1] == COMPLETE, "the job takes more steps than were tried"
    assert len(codes) > 8


def test_an_interrupt_stops_at_the_next_slice_and_the_job_goes_on(
    unbroken: tuple[str, dict[str, bytes], float],
    nursery: Nursery,
    source: Path,
    tmp_path: Path,
):
    name, expected, _ = unbroken
    output = tmp_path / name
    manifest = (output / "_job" if name == "found" else tmp_path / f"{name}.job") / "manifest.jsonl"

    def finished_slices() -> int:
        return max(0, manifest.read_bytes().count(b"\n") - 1) if manifest.exists() else 0

    codes = []
    while COMPLETE not in codes:
        before = finished_slices()
        child = nursery.start(inputs=str(source), output=str(output), **OPTIONS)
        if len(codes) < 3:
            while finished_slices() < before + 2:
                assert nursery.poll(child) is None, "the job ended by itself: see below what it wrote to stderr"
                time.sleep(0.002)
            os.kill(child, (signal.SIGINT, signal.SIGTERM)[len(codes) % 2])
        codes.append(nursery.wait(child))
    assert codes == [STOPPED] * 3 + [COMPLETE]
    assert content_of(output) == expected


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's names of open files")
def test_all_is_on_the_disk_before_something_else_relies_on_it(
    small_model: GLiNER, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "Ada lived in London."}, {"text": None}, {"text": "Yes."}])
    synced: list[tuple[str, Any]] = []
    sync = os.fsync

    def record(handle: int) -> None:
        """Notes what a sync finds: a file by its name of that moment, with its lines; a folder with its files."""
        sync(handle)
        path = Path(f"/proc/self/fd/{handle}").readlink()
        name = re.sub(r"[.][0-9a-f]{12}[.]part", ".part", path.name)
        if path.is_file():
            synced.append((name, path.read_bytes().count(b"\n")))
        else:
            synced.append((name, sorted(file.name for file in path.iterdir() if "." in file.name)))

    monkeypatch.setattr(os, "fsync", record)
    (tmp_path / "out").mkdir()
    extract_files(source, tmp_path / "out" / "found.jsonl", model=small_model, **OPTIONS)
    job = "found.jsonl.job"
    assert synced == [
        ("holder.part", 0),
        (job, []),
        ("manifest.jsonl.part", 1),
        (job, ["manifest.jsonl"]),
        ("rejects-0000000.jsonl.part", 1),
        ("rejects", ["rejects-0000000.jsonl"]),
        ("shard-0000000.jsonl.part", 2),
        ("shards", ["shard-0000000.jsonl"]),
        ("manifest.jsonl", 2),  # only now it is remembered
        ("rejects.jsonl.part", 1),
        (job, ["manifest.jsonl", "rejects.jsonl"]),
        ("joined.part", 2),
        ("out", ["found.jsonl", job]),
        ("manifest.jsonl", 3),
        ("report.json.part", synced[-2][1]),
        (job, ["manifest.jsonl", "rejects.jsonl", "report.json"]),
    ]
