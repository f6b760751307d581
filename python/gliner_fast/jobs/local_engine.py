"""The slices of a job on this machine: reading, computing and writing at the same time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, TypeAlias

import torch

from gliner_fast.devices import is_same
from gliner_fast.jobs.block import Block
from gliner_fast.jobs.garbage import spare_what_is_there
from gliner_fast.jobs.job import Job
from gliner_fast.jobs.progress import Pace
from gliner_fast.jobs.slices import Slice, cut_slices
from gliner_fast.jobs.sources import RowReader
from gliner_fast.jobs.stopping import Stop
from gliner_fast.model import GLiNER
from gliner_fast.pipeline import Window, predict_windows
from gliner_fast.predicting.stages import start
from gliner_fast.stats import Stats

if TYPE_CHECKING:
    from gliner_fast.entity import Entity

# Whoever asks for smaller slices of standard input may wait for the answers to one before sending the next.
_ROWS_TO_WAIT_FOR = 64

# Takes a slice, its rows, the entities of its good rows, and what the work took.
Write: TypeAlias = "Callable[[Slice, Block, list[list[Entity]], dict[str, float]], None]"


def run_here(
    job: Job,
    model: GLiNER,
    devices: Sequence[torch.device],
    finished: Collection[int],
    *,
    write: Write,
    stop: Stop,
    pace: Pace,
) -> bool:
    """Works through the slices that are not finished, in order.

    Three threads, one for each resource: the pipeline's own reads and prepares the next slice, this one computes, one
    writes the last slice. None is more than one slice ahead, so that memory holds three slices at most; on CUDA, where
    two are computed, four. On several devices this thread reads and others compute; two slices a device are under way,
    and the first one is written when as many have been read.

    Args:
        job: what to do.
        model: predicts.
        devices: where to compute; one is the model's own.
        finished: numbers of the slices to pass over.
        write: puts a slice where it belongs; called in order, from another thread.
        stop: once set, no further slice is begun. Standard input, which cannot be read again, ends: what was taken of
            it is done.
        pace: kept up to date.

    Returns:
        Whether the input's end was reached.
    """
    pace.computing_since = time.monotonic()
    with (
        closing(job.open_rows(model, stop)) as reader,
        ThreadPoolExecutor(1, "writer") as writer,
        spare_what_is_there(devices),
    ):
        source = _Source(job, reader, finished, stop, pace)
        # Who waits for standard input must be the thread that Ctrl-C reaches.
        read_ahead = not source.is_stdin
        results = predict_windows(
            model,
            source.windows(),
            job.options,
            stats=pace.live,
            read_ahead=read_ahead,
            look_ahead=read_ahead or job.plan.settings.rows_per_shard > _ROWS_TO_WAIT_FOR,
            devices=None if len(devices) == 1 and is_same(devices[0], model.device) else devices,
        )
        writing: Future[None] | None = None
        so_far, done = Stats(), 0
        with closing(results):
            for part, block, read_seconds, entities in _join_windows(results):
                now = pace.live.copy()
                spent, so_far = now - so_far, now
                if writing is not None:
                    writing.result()  # raises what writing raised
                stats = {**spent.to_dict(), "read_seconds": read_seconds}
                writing = start(writer, write, part, block, entities, stats)
                done += 1
                if stop.is_set() and not source.is_stdin:
                    break
        if writing is not None:
            writing.result()
        return source.reached_end and done == source.given  # several devices are given some that a stop leaves undone


def _join_windows(
    results: Iterable[tuple[Window, list[list[Entity]]]],
) -> Iterator[tuple[Slice, Block, float, list[list[Entity]]]]:
    """Yields each slice with its block, the seconds of reading it, and the entities of its windows."""
    entities: list[list[Entity]] = []
    for window, found in results:
        entities += found
        if window.key is not None:
            yield (*window.key, entities)
            entities = []


class _Source:
    """The slices to do, read as windows; it runs in the pipeline's thread, or where devices are several, the caller's.

    Attributes:
        is_stdin: the input is standard input.
        reached_end: the input has no more rows.
        given: slices that were read to be computed.
    """

    def __init__(self, job: Job, reader: RowReader, finished: Collection[int], stop: Stop, pace: Pace) -> None:
        self.is_stdin = any(file.is_stdin for file in job.files)
        self.reached_end = False
        self.given = 0
        self._job = job
        self._reader = reader
        self._finished = finished
        self._stop = stop
        self._pace = pace

    def windows(self) -> Iterator[Window]:
        """Yields the windows of slices that are not finished; a slice's last has the slice as its key."""
        for part in cut_slices(self._job.plan.settings.rows_per_shard):
            if self._stop.is_set() and not self.is_stdin:
                return
            if part.number in self._finished:
                read = self._reader.skip(part.rows)
                self._note(read)
            else:
                begin = perf_counter()
                block = self._reader.read(part.rows)
                read = block.count
                self._note(read)
                seconds = perf_counter() - begin  # between the windows others have their turn
                if read or part.number == 0:  # an empty input has one empty shard, which tells its columns
                    self.given += 1
                    *others, last = self._job.windows(block)
                    yield from others
                    yield replace(last, key=(part, block, seconds))
            if read < part.rows:
                self.reached_end = not self._stop.has_cut_input
                return

    def _note(self, rows: int) -> None:
        self._pace.rows_read += rows
        self._pace.bytes_read, self._pace.bytes_total = self._reader.bytes_read, self._reader.bytes_total
