"""How far a job is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TextIO

from gliner_fast.jobs.job_folder import SliceRecord
from gliner_fast.stats import Stats

_FIRST_LINE_S = 5.0
_LINE_EVERY_S = 30.0
_BAR_EVERY_S = 0.5


@dataclass
class Pace:
    """How far an engine is, for whoever shows it; read while it runs.

    Attributes:
        rows_read: input rows read or passed over.
        bytes_read: of the files, as they lie on the disk.
        bytes_total: of all files; 0 where nobody knows.
        rows_total: of the whole input; None where it is not known.
        computing_since: when the model was there, by `time.monotonic`; None before.
        live: what the pipeline has done since the job went on.
    """

    rows_read: int = 0
    bytes_read: int = 0
    bytes_total: int = 0
    rows_total: int | None = None
    computing_since: float | None = None
    live: Stats = field(default_factory=Stats)


# Takes the finished slices, which grow while it shows them, and the pace of the engine.
Progress = Callable[[Mapping[int, SliceRecord], Pace], AbstractContextManager[None]]


def show_nothing(finished: Mapping[int, SliceRecord], pace: Pace) -> AbstractContextManager[None]:
    """Shows nothing."""
    del finished, pace
    return nullcontext()


@dataclass(frozen=True)
class Standing:
    """A job at one moment.

    Attributes:
        rows: done, rejects included; of the slice at work, about as many as the model has read.
        rows_total: of the whole input, an estimate while it is read; None while nobody can tell.
        rows_per_second: of this run.
        words_per_second: of this run.
        rejects: rows that could not be used.
        is_computing: the model is there.
    """

    rows: int
    rows_total: int | None
    rows_per_second: float
    words_per_second: float
    rejects: int
    is_computing: bool

    @property
    def seconds_left(self) -> float | None:
        """The time that the other rows will take at this pace."""
        if self.rows_total is None or not self.rows_per_second:
            return None
        return max(0, self.rows_total - self.rows) / self.rows_per_second

    def __str__(self) -> str:
        if not self.is_computing:
            return f"loading the model; {self.rows:,} rows are done" if self.rows else "loading the model"
        total = "" if self.rows_total is None else f" of about {self.rows_total:,}"
        left = "" if self.seconds_left is None else f", {_show_time(self.seconds_left)} left"
        return (
            f"{self.rows:,}{total} rows{left} ({self.rows_per_second:,.1f} rows/s, {self.words_per_second:,.0f} "
            f"words/s{f', {self.rejects:,} rejected' * bool(self.rejects)})"
        )


class Watch:
    """Tells where a job stands, from the moment it goes on."""

    def __init__(self, finished: Mapping[int, SliceRecord], pace: Pace) -> None:
        self._finished = finished
        self._pace = pace
        self._rows_before = sum(record.rows for record in finished.values())
        self._finished_before = set(finished)

    def look(self) -> Standing:
        """The job now."""
        live, pace = self._pace.live, self._pace
        records = list(self._finished.items())  # a copy: another thread adds to it
        finished_rows = sum(record.rows for _, record in records)
        new = (record for number, record in records if number not in self._finished_before)
        at_work = live.windows - sum(record.stats.get("windows", 0) for record in new)
        rows = finished_rows + max(0, min(int(at_work), pace.rows_read - finished_rows))
        since = pace.computing_since
        seconds = max(time.monotonic() - since, 1e-9) if since is not None else math.inf
        total = pace.rows_total
        if total is None and pace.bytes_read and pace.bytes_total:
            total = max(rows, round(pace.rows_read * pace.bytes_total / pace.bytes_read))
        return Standing(
            rows,
            total,
            (rows - self._rows_before) / seconds,
            live.words / seconds,
            sum(record.rejects for _, record in records),
            is_computing=since is not None,
        )


def show_lines(stream: TextIO) -> Progress:
    """Shows a line after 5 seconds, and then every 30 seconds."""

    @contextmanager
    def show(finished: Mapping[int, SliceRecord], pace: Pace) -> Iterator[None]:
        watch = Watch(finished, pace)
        ended = threading.Event()

        def tell() -> None:
            wait = _FIRST_LINE_S
            while not ended.wait(wait):
                print(watch.look(), file=stream, flush=True)
                wait = _LINE_EVERY_S

        with _in_thread(tell, ended):
            yield

    return show


@contextmanager
def show_bar(finished: Mapping[int, SliceRecord], pace: Pace) -> Iterator[None]:
    """Shows a bar on the terminal, on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    watch = Watch(finished, pace)
    columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("loading the model", total=None)
        ended = threading.Event()

        def tell() -> None:
            while not ended.wait(_BAR_EVERY_S):
                now = watch.look()
                bar.update(task, description=str(now), completed=now.rows, total=now.rows_total)

        with _in_thread(tell, ended):
            yield


@contextmanager
def _in_thread(run: Callable[[], None], ended: threading.Event) -> Iterator[None]:
    thread = threading.Thread(target=run, name="progress", daemon=True)
    with suppress(RuntimeError):  # no further thread can be started: the job goes on in silence
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if thread.ident is not None:
            thread.join()


def choose_progress(*, quiet: bool) -> Progress:
    """The way to show progress that suits standard error."""
    if quiet:
        return show_nothing
    return show_bar if sys.stderr.isatty() else show_lines(sys.stderr)


def _show_time(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
