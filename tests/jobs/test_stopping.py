"""One Ctrl-C or SIGTERM stops a job, also where it waits for standard input."""

from __future__ import annotations

import array
import fcntl
import io
import json
import os
import signal
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gliner_fast import GLiNER, extract_files
from gliner_fast.jobs import sources
from gliner_fast.jobs.job import Job
from gliner_fast.jobs.stopping import InputStopped, stop_on_interrupt
from tests.jobs.conftest import write_jsonl

ADA, CHARLES = "Ada Lovelace lived in London.", "Charles Babbage did, too."


@contextmanager
def waiting_for_more(content: bytes, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Standard input that gives this and then nothing, while the job that waits for more of it gets a signal."""
    read_end, write_end = os.pipe()
    before, ended = signal.getsignal(number), threading.Event()
    ended_in_time: list[bool] = []

    def interrupt() -> None:
        waiting = array.array("i", [1])
        while waiting[0] or signal.getsignal(number) == before:  # until all is taken, by a job that hears signals
            time.sleep(0.01)
            fcntl.ioctl(read_end, termios.FIONREAD, waiting)
        time.sleep(0.2)
        os.kill(os.getpid(), number)
        ended_in_time.append(ended.wait(10))
        os.close(write_end)  # or who waits all the same would do so for ever

    with os.fdopen(read_end, "rb") as source:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(source))
        os.write(write_end, content)
        sender = threading.Thread(target=interrupt)
        sender.start()
        try:
            yield
        finally:
            ended.set()
            sender.join()
            sys.stdin.detach()
    assert ended_in_time == [True]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("input_format", "content"),
    [
        ("text", f"{ADA}\n{CHARLES}\nHalf a li"),
        ("jsonl", f"{json.dumps({'text': ADA})}\n{json.dumps({'text': CHARLES})}\n{{"),
        ("csv", f'text\n"{ADA}"\n"{CHARLES}"\n"a quote\nthat is open'),
    ],
    ids=["text", "jsonl", "csv"],
)
def test_one_signal_ends_the_wait_for_more_and_what_came_is_answered(
    number: signal.Signals,
    input_format: str,
    content: str,
    small_model: GLiNER,
    monkeypatch: pytest.MonkeyPatch,
):
    output = io.BytesIO()
    with waiting_for_more(content.encode(), number, monkeypatch):
        options: dict[str, Any] = {"model": small_model, "input_format": input_format}
        report = extract_files("-", output, ["person"], **options)
    assert not report.is_complete
    assert (report.rows, report.rejects) == (2, 0)
    assert [json.loads(line)["text"] for line in output.getvalue().splitlines()] == [ADA, CHARLES]


def test_rows_that_decide_on_columns_are_answered_too(
    small_model: GLiNER, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    content = "".join(json.dumps({"text": ADA, "id": number}) + "\n" for number in range(20)).encode()
    with waiting_for_more(content, signal.SIGTERM, monkeypatch):
        options: dict[str, Any] = {"model": small_model, "input_format": "jsonl", "device": "cpu,cpu"}
        report = extract_files("-", tmp_path / "found", ["person"], **options)
    assert not report.is_complete
    assert report.rows == 20
    assert len(list((tmp_path / "found").glob("*.parquet"))) == 2


def test_a_signal_before_anything_came_leaves_nothing(small_model: GLiNER, monkeypatch: pytest.MonkeyPatch):
    output = io.BytesIO()
    with waiting_for_more(b"", signal.SIGTERM, monkeypatch):
        report = extract_files("-", output, ["person"], model=small_model)
    assert not report.is_complete
    assert (report.rows, output.getvalue()) == (0, b"")


def test_what_stands_for_standard_input_ends_where_a_job_is_to_stop(
    small_model: GLiNER, monkeypatch: pytest.MonkeyPatch
):
    class Asked(io.BytesIO):  # has no peek
        def readinto1(self, buffer: Any) -> int:
            signal.raise_signal(signal.SIGTERM)
            return super().readinto1(memoryview(buffer)[: len(ADA) + 1])

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Asked(f"{ADA}\n{CHARLES}\n".encode())))
    output = io.BytesIO()
    report = extract_files("-", output, ["person"], model=small_model, input_format="text")
    assert not report.is_complete
    assert [json.loads(line)["text"] for line in output.getvalue().splitlines()] == [ADA]


def test_a_stopped_job_reports_itself_and_warns_of_what_it_left_out_once_it_is_done(
    small_model: GLiNER, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sources, "SAMPLE", 4)
    rows = [{"text": ADA, "n": number} for number in range(200)]
    rows[5]["n"] = "five"
    source, output = write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.parquet"
    options: dict[str, Any] = {"model": small_model, "rows_per_shard": 8}
    write = Job.write

    with monkeypatch.context() as patch:

        def interrupted(*given: Any) -> Any:
            patch.undo()
            signal.raise_signal(signal.SIGTERM)
            return write(*given)

        patch.setattr(Job, "write", interrupted)
        report = extract_files(source, output, ["person"], **options)  # a warning would be an error
    before = report.rows
    assert (report.is_complete, report.stats["misfits"], 8 <= before < 200) == (False, 1, True)
    told = tmp_path / "out.parquet.job" / "report.json"
    assert json.loads(told.read_text(encoding="utf-8")) == report.to_dict()
    with pytest.warns(UserWarning, match="1 row with a text left out"):
        report = extract_files(source, output, ["person"], **options)
    assert (report.is_complete, report.rows, report.rows_here) == (True, 200, 200 - before)
    assert json.loads(told.read_text(encoding="utf-8")) == report.to_dict()


def test_a_second_signal_is_an_interrupt(capsys: pytest.CaptureFixture[str]):
    def ask(times: int) -> None:
        for _ in range(times):
            signal.raise_signal(signal.SIGTERM)

    with stop_on_interrupt() as stop:
        ask(1)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            ask(1)
    assert "again stops at once" in capsys.readouterr().err


def test_signals_are_handled_as_before_once_a_job_has_ended():
    def handlers() -> list[Any]:
        return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    before = handlers()
    with stop_on_interrupt():
        assert not set(handlers()) & set(before)
    assert handlers() == before


def test_a_signal_between_waits_cuts_nothing():
    with stop_on_interrupt() as stop:
        assert stop.wait_for(lambda: "came") == "came"
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
        assert not stop.has_cut_input


def test_no_wait_begins_once_a_job_is_to_stop():
    asked: Callable[[], Any] = pytest.fail
    with stop_on_interrupt() as stop:
        stop.set()
        with pytest.raises(InputStopped):
            stop.wait_for(asked)
        assert stop.has_cut_input
