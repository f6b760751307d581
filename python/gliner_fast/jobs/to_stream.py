"""A job whose output is a stream: JSON lines, each slice's as soon as it is done; nothing is kept."""

from __future__ import annotations

import time
import warnings
from contextlib import closing
from typing import BinaryIO

import torch

from gliner_fast.jobs.job import Job
from gliner_fast.jobs.local_engine import Source, join_windows
from gliner_fast.jobs.pace import Pace
from gliner_fast.jobs.plan import JobError
from gliner_fast.jobs.report import JobReport
from gliner_fast.jobs.sinks import json_lines
from gliner_fast.jobs.stopping import stop_on_interrupt
from gliner_fast.model import GLiNER
from gliner_fast.pipeline import predict_windows


def run_to_stream(
    job: Job, output: BinaryIO, model: GLiNER | None, device: torch.device, *, max_rejects: int | None
) -> JobReport:
    """Writes rows with their entities as JSON lines; a row that cannot be used is told in a warning.

    Args:
        job: what to do.
        output: flushed after each slice.
        model: None to load the job's own, on `device`.
        device: where to compute.
        max_rejects: the job ends where more rows are rejected; None: never.

    Raises:
        JobError: too many rows were rejected; the slices before are written.
    """
    begin = time.monotonic()
    settings = job.plan.settings
    pace, rows, entities_found, rejected = Pace(), 0, 0, 0
    predictor = model or job.load_model(device)
    with stop_on_interrupt() as stop, closing(job.open_rows()) as reader:
        source = Source(job, reader, (), stop, pace)
        with closing(predict_windows(predictor, source.windows(), job.options, stats=pace.live)) as results:
            for _, block, _, entities in join_windows(results):
                rejected += len(block.rejects)
                for reject in job.tell_rejects(block):
                    warnings.warn(f"{reject.file}, line {reject.line} is left out: {reject.reason}", stacklevel=2)
                if max_rejects is not None and rejected > max_rejects:
                    raise JobError(f"rows rejected: {rejected}, allowed: {max_rejects}")
                told, told_entities = job.redact(block, entities)
                output.writelines(json_lines(told, told_entities, settings.layout, settings.entities_column))
                output.flush()
                rows += block.count
                entities_found += sum(map(len, told_entities))
                if stop.is_set():
                    break
    return JobReport(
        output="the stream",
        is_complete=source.reached_end,
        rows=rows,
        rejects=rejected,
        rejects_file=None,
        entities=entities_found,
        shards=0,
        rows_here=rows,
        seconds=time.monotonic() - begin,
        stats=pace.live.to_dict(),
    )
