"""The slices of a job on Ray: the same work as on one machine, in actors of a Ray Data pipeline."""

from __future__ import annotations

import logging
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import fields
from itertools import takewhile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliner_fast.jobs.errors import JobError
from gliner_fast.jobs.garbage import spare_what_is_there
from gliner_fast.jobs.job import Job, select_columns
from gliner_fast.jobs.job_folder import Paths, SliceRecord
from gliner_fast.jobs.progress import Pace
from gliner_fast.jobs.ray_options import MISSING, RayOptions
from gliner_fast.jobs.slices import Slice, cut_slices
from gliner_fast.jobs.sources import RowReader, count_rows
from gliner_fast.model import GLiNER
from gliner_fast.pipeline import predict_windows
from gliner_fast.ray import use_assigned
from gliner_fast.stats import Stats


def run_on_ray(
    job: Job,
    paths: Paths,
    finished: Collection[int],
    *,
    done: Callable[[SliceRecord], None],
    stop: threading.Event,
    pace: Pace,
    options: RayOptions,
) -> bool:
    """Works through the slices that are not finished, several at a time, in any order.

    Each actor reads its slices from the input and puts their shards in place by itself, so all machines must see the
    same files under the same names. Ray replaces an actor that dies, and gives its slice to another: a slice that is
    done twice is the same shard twice.

    Args:
        job: what to do.
        paths: where shards go.
        finished: numbers of the slices to pass over.
        done: told of each slice soon after its shard is in place.
        stop: once set, the job ends with the next slice that is done.
        pace: kept up to date.
        options: where to run.

    Returns:
        Whether all slices are done.

    Raises:
        ImportError: Ray is missing.
        JobError: there is no room for an actor, or a machine does not see the files.
        JobInputError: standard input, which only one process can read, or a damaged file.
        OSError: something cannot be read or written.
    """
    _import_ray()
    pace.computing_since = time.monotonic()
    pace.rows_total = count_rows(job.files, select_columns(job.plan.settings))
    left = {part.number: part for part in _all_slices(job, pace.rows_total) if part.number not in finished}
    if not left:
        return True
    answers = _answers(job, paths, list(left.values()), options)
    with _connected(options.address), _threads_ended(), closing(answers):
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            done(answer)
            del left[answer.number]
            pace.live += _read_stats(answer.stats)
            if stop.is_set():
                break
    return not left


class SliceWorker:
    """Does one slice after another in an actor of Ray.

    What is wrong with the files or the choices is an answer like a record is: it reaches the caller as it was raised
    here, while Ray would wrap an exception, and take one of the constructor for an actor that may be replaced.
    """

    def __init__(self, *, job: Job, paths: Paths, folder: str) -> None:
        """Starts with nothing; the first slice loads the model.

        Args:
            job: what to do.
            paths: where shards go.
            folder: the caller's working folder, which relative paths start from.
        """
        self._job = job
        self._paths = paths
        self._folder = folder
        self._model: GLiNER | None = None
        self._spared = ExitStack()  # for as long as this actor is there
        self._reader: RowReader | None = None
        self._next_row = 0

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, NDArray[np.object_]]:
        """Does the slice of a batch of one, and returns its record, or the error that ends the job."""
        part = Slice(**{field.name: int(batch[field.name][0]) for field in fields(Slice)})
        answer: SliceRecord | Exception
        try:
            answer = self._process(part)
        except (OSError, ValueError, MemoryError) as error:
            answer = error
        answers = np.empty(1, object)  # Ray Data carries objects in such arrays
        answers[0] = answer
        return {"answer": answers}

    def _process(self, part: Slice) -> SliceRecord:
        if self._model is None:
            self._find_files()
            self._model = self._job.load_model(use_assigned("auto"))
            self._spared.enter_context(spare_what_is_there([self._model.device]))
        begin = perf_counter()
        block = self._reader_at(part.first_row, self._model).read(part.rows)
        self._next_row += block.count
        read_seconds = perf_counter() - begin
        stats = Stats()
        results = predict_windows(self._model, self._job.windows(block), self._job.options, stats=stats)
        entities = [own for _, found in results for own in found]
        return self._job.write(self._paths, part, block, entities, {**stats.to_dict(), "read_seconds": read_seconds})

    def _find_files(self) -> None:
        with suppress(FileNotFoundError):  # a machine without that folder can still see absolute paths
            os.chdir(self._folder)
        for path in [*(Path(file.path) for file in self._job.files), self._paths.shards]:
            if not path.exists():
                raise JobError(
                    f"{path} is not there on the machine {platform.node()}: a job on several machines needs input, "
                    "output and model in folders that all of them see under the same names"
                )

    def _reader_at(self, row: int, model: GLiNER) -> RowReader:
        """The open reader, moved on to a row; slices come in order but for those of an actor that died."""
        if self._reader is None or row < self._next_row:
            if self._reader is not None:
                self._reader.close()
            self._reader = self._job.open_rows(model)
            self._next_row = 0
        self._next_row += self._reader.skip(row - self._next_row)
        return self._reader


def _all_slices(job: Job, rows: int) -> Iterable[Slice]:
    # An empty input has one empty shard, which tells its columns.
    return takewhile(
        lambda part: part.first_row < rows or part.number == 0, cut_slices(job.plan.settings.rows_per_shard)
    )


def _answers(
    job: Job, paths: Paths, parts: list[Slice], options: RayOptions
) -> Generator[SliceRecord | Exception, None, None]:
    """Yields what becomes of each slice, as soon as it is known."""
    ray = _import_ray()
    actors, resources = place_actors(ray.nodes(), options)
    items = [{field.name: getattr(part, field.name) for field in fields(Slice)} for part in parts]
    # A block for each slice: Ray hands over results block by block, and repeats no more than a block.
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        SliceWorker,
        fn_constructor_kwargs={"job": job, "paths": paths, "folder": str(Path.cwd())},
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=min(actors, len(parts))),
        **resources,
    )
    # Without prefetching: a record that waits here is a slice that a crash would cost.
    for batch in dataset.iter_batches(batch_size=1, prefetch_batches=0, batch_format="numpy"):
        yield batch["answer"][0]


def place_actors(nodes: Sequence[Mapping[str, Any]], options: RayOptions) -> tuple[int, dict[str, float]]:
    """How many actors there will be, and what each needs.

    Args:
        nodes: the machines, as `ray.nodes()` tells of them.
        options: what was asked for.

    Returns:
        The number of actors, and their resources as arguments of `map_batches`.

    Raises:
        JobError: no machine has room for one.
    """
    machines = [node["Resources"] for node in nodes if node["Alive"]]
    num_gpus = options.num_gpus
    if num_gpus is None:
        num_gpus = 1 if any(machine.get("GPU") for machine in machines) else 0
    num_cpus = options.num_cpus
    if num_cpus is None:
        num_cpus = 0 if num_gpus else 1
    needed = {"CPU": num_cpus, "GPU": num_gpus}
    resources = {f"num_{name.lower()}s": need for name, need in needed.items() if need}
    if options.actors is not None:
        return options.actors, resources
    # A ten-thousandth is Ray's own precision: ten actors of 0.1 fit into 1.
    room = sum(
        min(int(machine.get(name, 0) / need + 1e-4) for name, need in needed.items() if need) for machine in machines
    )
    if not room:
        found = "; ".join(f"{machine.get('CPU', 0):g} CPUs and {machine.get('GPU', 0):g} GPUs" for machine in machines)
        raise JobError(
            f"no machine has room for an actor of {num_cpus:g} CPUs and {num_gpus:g} GPUs; they have {found}: ask for "
            "less, or say how many actors there will be room for once the cluster has grown"
        )
    return room, resources


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Connects to Ray for the time of a job; a process that is connected already stays it."""
    ray = _import_ray()
    if ray.is_initialized():
        yield
        return
    with _signals_kept():
        # Without "local" Ray would look for a cluster that somebody started on this machine, be it long dead.
        where = address or os.environ.get("RAY_ADDRESS", "local")
        ray.init(address=where, logging_level=logging.WARNING, log_to_driver=False)
    try:
        # The job shows its own progress.
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # warns that there are no bars
        yield
    finally:
        ray.shutdown()


# Threads of Ray Data that call Ray. They end soon after the pipeline that they serve is closed, but not with it.
_RAY_DATA_THREADS = ("StreamingExecutor", "iter_threaded", "ray-data-metadata-prefetch")
_THREADS_END_SECONDS = 60


@contextmanager
def _threads_ended() -> Iterator[None]:
    """Waits for the threads that a pipeline leaves behind: one that calls a Ray that was shut down ends the process."""
    before = set(threading.enumerate())
    try:
        yield
    finally:
        deadline = time.monotonic() + _THREADS_END_SECONDS
        for thread in set(threading.enumerate()) - before:
            if thread.name.startswith(_RAY_DATA_THREADS):
                thread.join(max(0.0, deadline - time.monotonic()))


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Undoes what Ray does to SIGTERM, which asks a job to stop."""
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, before)


def _read_stats(values: Mapping[str, float]) -> Stats:
    """The pipeline's part of a record's statistics."""
    return Stats(**{field.name: values[field.name] for field in fields(Stats)})  # type: ignore[arg-type]


def _import_ray() -> Any:
    try:
        import ray.data
    except ModuleNotFoundError as error:
        raise ImportError(MISSING) from error
    return ray
