"""What a job says of itself while it runs."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gliner_fast import GLiNER, JobError, extract_files
from gliner_fast.jobs import progress
from gliner_fast.jobs.job_folder import JobFolder, Paths, SliceRecord
from gliner_fast.jobs.progress import Pace, Watch, show_lines
from tests.jobs.conftest import texts_of, write_jsonl
from tests.jobs.test_job_folder import PLAN, put


def finish(folder: JobFolder, number: int, rows: int, rejects: int = 0) -> None:
    record = put(folder, number)
    folder.finished[number] = replace(record, rows=rows, rejects=rejects, stats={"windows": rows - rejects})


@pytest.fixture
def folder(tmp_path: Path):
    with JobFolder(Paths(tmp_path / "found", is_file=False), PLAN) as folder:
        yield folder


def test_before_the_model_is_there_nothing_is_told_but_what_was_done(folder: JobFolder):
    assert str(Watch(folder.finished, Pace()).look()) == "loading the model"
    finish(folder, 0, 64)
    assert str(Watch(folder.finished, Pace()).look()) == "loading the model; 64 rows are done"


def test_rows_of_the_slice_at_work_count_as_the_model_reads_them(folder: JobFolder):
    finish(folder, 0, 100)
    pace = Pace(rows_read=100, computing_since=time.monotonic() - 10)
    watch = Watch(folder.finished, pace)
    pace.rows_read += 50
    assert watch.look().rows == 100
    pace.live.windows, pace.live.words = 20, 400
    now = watch.look()
    assert now.rows == 120
    assert now.rows_per_second == pytest.approx(2, rel=0.1)
    assert now.words_per_second == pytest.approx(40, rel=0.1)
    pace.live.windows = 500  # long texts have many windows: no more rows than were read
    assert watch.look().rows == 150
    finish(folder, 1, 50, rejects=3)
    pace.live.windows = 47
    assert (watch.look().rows, watch.look().rejects) == (150, 3)


def test_the_rest_is_estimated_by_bytes_where_nobody_counted(folder: JobFolder):
    pace = Pace(rows_read=100, bytes_read=1_000, bytes_total=5_000, computing_since=time.monotonic() - 10)
    pace.live.windows = 50
    now = Watch(folder.finished, pace).look()
    assert now.rows_total == 500
    assert now.seconds_left == pytest.approx(90, rel=0.1)
    assert "50 of about 500 rows, 0:01:" in str(now)
    assert replace(now, rows_total=None).seconds_left is None
    pace.rows_total = 60
    assert Watch(folder.finished, pace).look().seconds_left == pytest.approx(2, rel=0.1)


def test_nothing_is_estimated_before_anything_was_done(folder: JobFolder):
    pace = Pace(bytes_total=5_000, computing_since=time.monotonic() - 10)
    watch = Watch(folder.finished, pace)
    assert (watch.look().rows_total, watch.look().seconds_left) == (None, None)
    pace.rows_total = 60
    assert watch.look().seconds_left is None


def test_a_bar_is_shown_where_standard_error_is_a_terminal(monkeypatch: pytest.MonkeyPatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert progress.choose_progress(quiet=False) is not progress.show_bar
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert progress.choose_progress(quiet=False) is progress.show_bar
    assert progress.choose_progress(quiet=True) is progress.show_nothing


def test_lines_come_now_and_then_and_end_with_the_job(folder: JobFolder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress, "_FIRST_LINE_S", 0.01)
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.01)
    out = io.StringIO()
    with show_lines(out)(folder.finished, Pace()):
        while out.getvalue().count("\n") < 3:
            time.sleep(0.005)
    ended = out.getvalue()
    time.sleep(0.05)
    assert out.getvalue() == ended
    assert set(ended.splitlines()) == {"loading the model"}


def test_where_no_thread_can_be_started_nothing_is_shown_and_nothing_fails(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
):
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    out = io.StringIO()
    with show_lines(out)(folder.finished, Pace()):
        pass
    assert out.getvalue() == ""


def test_a_record_of_an_earlier_run_is_no_speed_of_this_one(folder: JobFolder):
    folder.finished[0] = SliceRecord(0, 1_000, "shard-0000000.jsonl", 3, 0, 0, {"windows": 1_000})
    pace = Pace(rows_read=1_000, computing_since=time.monotonic() - 10)
    assert Watch(folder.finished, pace).look().rows_per_second == 0


def test_rows_that_are_passed_over_were_read(small_model: GLiNER, tmp_path: Path):
    rows: list[dict[str, Any]] = [{"text": text} for text in texts_of(100)]
    rows[70] = {"text": None}
    source, paces = write_jsonl(tmp_path / "in.jsonl", rows), []

    @contextmanager
    def keep(finished: Mapping[int, SliceRecord], pace: Pace) -> Iterator[None]:
        paces.append(pace)
        yield

    options: dict[str, Any] = {"model": small_model, "rows_per_shard": 20, "progress": keep}
    with pytest.raises(JobError, match="line 71"):
        extract_files(source, tmp_path / "out.jsonl", ["person"], on_error="fail", **options)
    report = extract_files(source, tmp_path / "out.jsonl", ["person"], **options)
    assert 0 < report.rows_here < 100
    assert (paces[1].rows_read, paces[1].bytes_read) == (100, source.stat().st_size)
