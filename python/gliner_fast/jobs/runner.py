"""A job from its folder to its report, whatever engine computes the slices."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gliner_fast.errors import count
from gliner_fast.jobs.errors import JobError
from gliner_fast.jobs.inputs import name_of
from gliner_fast.jobs.job import SKIP_ROWS, Job
from gliner_fast.jobs.job_folder import JobFolder, Paths, SliceRecord, rejects_name
from gliner_fast.jobs.local_engine import run_here
from gliner_fast.jobs.progress import Pace, Progress
from gliner_fast.jobs.report import JobReport
from gliner_fast.jobs.sinks import join_shards
from gliner_fast.jobs.sources import SAMPLE
from gliner_fast.jobs.stopping import stop_on_interrupt
from gliner_fast.model import GLiNER

if TYPE_CHECKING:
    from gliner_fast.jobs.ray_options import RayOptions


def run_job(
    job: Job,
    paths: Paths,
    model: GLiNER | None,
    devices: Sequence[torch.device],
    *,
    max_rejects: int | None,
    overwrite: bool,
    ray: RayOptions | None,
    progress: Progress,
) -> JobReport:
    """Does what is missing of a job.

    Args:
        job: what to do.
        paths: of the output.
        model: None to load the job's own, on the first device.
        devices: where to compute.
        max_rejects: the job ends where more rows are rejected; None: never.
        overwrite: start anew, unless this very job was begun here and not finished. The model is loaded before
            anything is removed, and one output file stays until the new one takes its place.
        ray: compute on Ray instead of here.
        progress: shows how far the job is.

    Raises:
        JobError: the folder holds another job, another process works on it, too many rows were rejected, or the input
            has changed meanwhile.
        OSError: something cannot be written.
    """
    begin = time.monotonic()
    pace = Pace()
    if overwrite and model is None and ray is None:
        model = job.load_model(devices[0])  # one that cannot be loaded must not cost the earlier output
    with JobFolder(paths, job.plan, overwrite=overwrite) as folder, stop_on_interrupt() as stop:
        _expect_within(folder, max_rejects)
        rows_before = folder.rows
        was_joined = folder.is_joined
        if not was_joined:
            paths.all_rejects.unlink(missing_ok=True)  # of an earlier call: this one may find more, and be killed
            with progress(folder.finished, pace):
                done = _remember_within(folder, max_rejects)
                if ray is not None:
                    from gliner_fast.jobs.ray_engine import run_on_ray

                    ended = run_on_ray(job, paths, folder.finished, done=done, stop=stop, pace=pace, options=ray)
                else:
                    predictor = model or job.load_model(devices[0])
                    ended = run_here(
                        job,
                        predictor,
                        devices,
                        folder.finished,
                        write=lambda *slice_: done(job.write(paths, *slice_)),
                        stop=stop,
                        pace=pace,
                    )
            if ended:
                job.expect_same_inputs()
                folder.join(lambda shards, out: join_shards(shards, out, job.plan.settings.format))
            elif folder.rejects:
                folder.gather_rejects()
        report = JobReport.of(
            folder.finished.values(),
            paths,
            is_complete=folder.is_joined,
            rows_before=rows_before,
            seconds=time.monotonic() - begin,
            has_relations=job.relations_column is not None,
        )
        if not was_joined or not paths.report.exists():  # a process may have died between joining and reporting
            report.write(paths.report)
    misfits = report.stats.get("misfits", 0)
    if misfits and report.is_complete and not was_joined:
        warnings.warn(
            f"{count('row', int(misfits))} with a text left out of the output, for other columns or types than those "
            f"of the first {SAMPLE:,} rows, which decide on those of Parquet (see {report.rejects_file}). Name the "
            "columns to pass through (--columns), or write JSON lines, which take any value",
            stacklevel=3,
        )
    return report


def _remember_within(folder: JobFolder, limit: int | None) -> Callable[[SliceRecord], None]:
    """Returns what remembers finished slices, and ends the job where too many rows were rejected.

    The slice that passes the limit is not remembered, so that a later call with a higher one does it again.
    """

    def done(record: SliceRecord) -> None:
        rejects = folder.rejects + record.rejects
        if limit is not None and rejects > limit:
            first = _first_reject(folder.paths.rejects / rejects_name(record.number))
            folder.drop(record)
            if limit == 0:
                raise JobError(f"{first}. {SKIP_ROWS} to go on behind the {folder.rows} rows that are done, {_OR_ANEW}")
            raise JobError(
                f"rows rejected: {rejects}, allowed: {limit}. The last slice's first: {first}. All that were found "
                f"are in {folder.paths.all_rejects}"
            )
        folder.add(record)

    return done


def _expect_within(folder: JobFolder, limit: int | None) -> None:
    """Holds the rejects of earlier calls, which had limits of their own, to the limit of this one.

    Raises:
        JobError: it is more; names the first.
    """
    if limit is None or folder.rejects <= limit:
        return
    file = folder.paths.all_rejects
    if not folder.is_joined and not file.exists():  # one that is there tells of the slice that ended the job, too
        folder.gather_rejects()
    raise JobError(
        f"rows rejected by earlier calls: {folder.rejects}, allowed: {limit}. The first: {_first_reject(file)}; all "
        f"are in {file}. {SKIP_ROWS} or allow more (--max-rejects), {_OR_ANEW}"
    )


def _first_reject(file: Path) -> str:
    """Place and reason of the first reject in a file, for a message."""
    try:
        with file.open(encoding="utf-8") as lines:
            first = json.loads(next(lines))
    except (FileNotFoundError, StopIteration):  # a user may have taken it away, and the limit is passed all the same
        return f"unknown, since {file} is gone"
    return f"{name_of(first['file'])}, line {first['line']}: {first['reason']}"


_OR_ANEW = "or mend the input, which makes it another one, and start anew (--overwrite)"
