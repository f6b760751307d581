"""A job whose output is a stream: JSON lines, each slice's as soon as it is done; nothing is kept."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from time import perf_counter
from typing import TYPE_CHECKING, BinaryIO

import torch

from gliner_fast.jobs.block import Block
from gliner_fast.jobs.errors import JobError
from gliner_fast.jobs.inputs import name_of
from gliner_fast.jobs.job import SKIP_ROWS, Job, count_relations
from gliner_fast.jobs.job_folder import SliceRecord
from gliner_fast.jobs.local_engine import run_here
from gliner_fast.jobs.progress import Pace, Progress
from gliner_fast.jobs.report import JobReport
from gliner_fast.jobs.sinks import json_lines
from gliner_fast.jobs.slices import Slice
from gliner_fast.jobs.stopping import stop_on_interrupt
from gliner_fast.model import GLiNER

if TYPE_CHECKING:
    from gliner_fast.entity import Entity


@contextmanager
def _taking_all(output: BinaryIO) -> Iterator[BinaryIO]:
    """A stream without a buffer may take a part of what it is given, and not say so; behind a buffer it cannot."""
    if not isinstance(output, io.RawIOBase):
        yield output
        return
    buffered = io.BufferedWriter(output)
    try:
        yield buffered
    finally:
        with suppress(OSError):  # it was flushed, or has told why not
            buffered.detach()


def run_to_stream(
    job: Job,
    output: BinaryIO,
    model: GLiNER | None,
    devices: Sequence[torch.device],
    *,
    max_rejects: int | None,
    progress: Progress,
) -> JobReport:
    """Writes rows with their entities as JSON lines; a row that cannot be used is told in a warning.

    Args:
        job: what to do.
        output: flushed after each slice.
        model: None to load the job's own, on the first device.
        devices: where to compute.
        max_rejects: the job ends where more rows are rejected; None: never.
        progress: shows how far the job is.

    Raises:
        JobError: too many rows were rejected; the slices before are written. Where none is allowed, it names the row.
    """
    begin = time.monotonic()
    settings = job.plan.settings
    pace = Pace()
    finished: dict[int, SliceRecord] = {}

    def write(part: Slice, block: Block, entities: list[list[Entity]], stats: dict[str, float]) -> None:
        began = perf_counter()
        block, kept = job.reject_unfit(block, entities)
        rejects = job.tell_rejects(block)
        for reject in rejects:
            place = f"{name_of(reject.file)}, line {reject.line}"
            if max_rejects == 0:
                raise JobError(f"{place}: {reject.reason}. {SKIP_ROWS} to go on behind it")
            warnings.warn(f"{place} is left out: {reject.reason}", stacklevel=2)
        rejected = len(rejects) + sum(record.rejects for record in finished.values())
        if max_rejects is not None and rejected > max_rejects:
            raise JobError(f"rows rejected: {rejected}, allowed: {max_rejects} (--max-rejects)")
        told, told_entities = job.redact(block, kept)
        stream.writelines(
            json_lines(told, told_entities, settings.layout, settings.entities_column, job.relations_column)
        )
        stream.flush()
        found = sum(map(len, told_entities))
        stats = {**stats, "write_seconds": perf_counter() - began}
        related = count_relations(told_entities)
        finished[part.number] = SliceRecord(part.number, block.count, "", 0, len(block.rejects), found, stats, related)

    with _taking_all(output) as stream, stop_on_interrupt() as stop, progress(finished, pace):
        ended = run_here(job, model or job.load_model(devices[0]), devices, (), write=write, stop=stop, pace=pace)
    return JobReport.of(
        finished.values(),
        None,
        is_complete=ended,
        rows_before=0,
        seconds=time.monotonic() - begin,
        has_relations=job.relations_column is not None,
    )
