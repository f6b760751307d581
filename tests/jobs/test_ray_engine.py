"""Jobs on a real local Ray: the local engine's output, whatever dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gliner_fast import GLiNER
from gliner_fast.jobs import JobError, extract_files, ray_engine
from gliner_fast.jobs.job import Job
from gliner_fast.jobs.job_folder import Paths
from gliner_fast.jobs.ray_engine import SliceWorker, place_actors
from gliner_fast.jobs.ray_options import RayOptions
from gliner_fast.jobs.slices import Slice
from gliner_fast.redaction import Redaction
from tests.jobs.conftest import texts_of, write_jsonl
from tests.local_ray import ENVIRONMENT, QUIET_RAY, local_ray
from tests.nursery import die_at

pytestmark = QUIET_RAY

ROWS = 400
OPTIONS: dict[str, Any] = {"labels": ["person", "city", "event"], "threshold": 0.3, "rows_per_shard": 32}
ON_RAY = RayOptions(actors=2)
ONE_ACTOR = RayOptions(actors=1)  # each takes seconds to start


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    with local_ray() as ray:
        yield ray


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows: list[dict[str, Any]] = [{"id": number, "text": text} for number, text in enumerate(texts_of(ROWS))]
    rows[7] = {"id": 7, "text": None}
    rows[350] = {"id": 350}
    return write_jsonl(tmp_path_factory.mktemp("source") / "in.jsonl", rows)


@pytest.fixture(scope="module")
def expected(small_model: GLiNER, source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the local engine writes."""
    output = tmp_path_factory.mktemp("local") / "found"
    report = extract_files(source, output, model=small_model, **OPTIONS)
    assert (report.shards, report.rejects) == (14, 2)
    assert report.entities > 100
    return content_of(output)


def content_of(output: Path) -> dict[str, bytes]:
    """Names and bytes of a folder of shards, its rejects included; report and manifest hold times."""
    private = {"manifest.jsonl", "report.json", "lock", "holder"}
    files = (path for path in output.rglob("*") if path.is_file() and path.name not in private)
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in files}


def ask(worker: SliceWorker, part: Slice) -> Any:
    batch = {name: np.array([value]) for name, value in asdict(part).items()}
    return worker(batch)["answer"][0]


def answers_here(job: Job, paths: Paths, parts: list[Slice], options: RayOptions) -> Iterator[Any]:
    """What actors answer, by one worker in this process."""
    worker = SliceWorker(job=job, paths=paths, folder=str(Path.cwd()))
    try:
        yield from (ask(worker, part) for part in parts)
    finally:
        worker._reader.close()


@pytest.mark.ray
def test_actors_have_the_callers_folder_the_key_of_redaction_and_the_options_of_the_loaded_model(
    ray: Any, checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts_of(40)])
    options = OPTIONS | {"redaction": Redaction("hash", key="correct horse battery staple")}
    plain, narrow = (GLiNER.from_pretrained(checkpoint("deberta"), max_width=width) for width in (None, 1))
    extract_files("in.jsonl", "plain.jsonl", model=plain, **options)
    extract_files("in.jsonl", "here.jsonl", model=narrow, **options)
    extract_files("in.jsonl", "ray.jsonl", model=narrow, ray=ONE_ACTOR, **options)
    assert Path("ray.jsonl").read_bytes() == Path("here.jsonl").read_bytes()
    assert Path("ray.jsonl").read_bytes() != Path("plain.jsonl").read_bytes()
    assert b":" in Path("ray.jsonl").read_bytes()


@pytest.mark.ray
def test_actors_split_words_as_the_checkpoint_says(ray: Any, checkpoint: Callable[[str], Path], tmp_path: Path):
    pytest.importorskip("jieba3")
    folder = shutil.copytree(checkpoint("deberta"), tmp_path / "jieba")
    config = json.loads((folder / "gliner_config.json").read_text())
    (folder / "gliner_config.json").write_text(json.dumps(config | {"words_splitter_type": "jieba"}))
    source = write_jsonl(
        tmp_path / "in.jsonl", [{"text": "北京大学的李明教授和来自上海的王芳在东京见面。"[:n]} for n in (12, 24)]
    )
    options = OPTIONS | {"threshold": 0.02}
    model = GLiNER.from_pretrained(folder)
    report = extract_files(source, tmp_path / "here.jsonl", model=folder, **options)
    extract_files(source, tmp_path / "ray.jsonl", model=model, ray=ONE_ACTOR, **options)
    assert (tmp_path / "ray.jsonl").read_bytes() == (tmp_path / "here.jsonl").read_bytes()
    assert report.entities > 1


@pytest.mark.ray
def test_relations_are_those_of_the_local_engine(ray: Any, checkpoint: Callable[[str], Path], tmp_path: Path):
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts_of(60)])
    asked = {"labels": ["person", "organization"], "relations": ["works for"], "relation_threshold": 0.2}
    options = OPTIONS | asked | {"model": checkpoint("relex")}
    here = extract_files(source, tmp_path / "here.parquet", **options)
    report = extract_files(source, tmp_path / "ray.parquet", ray=ON_RAY, **options)
    assert (tmp_path / "ray.parquet").read_bytes() == (tmp_path / "here.parquet").read_bytes()
    assert report.relations == here.relations > 0


# --- dying ------------------------------------------------------------------------------------------------------------

# Slices at which an actor dies, and before which of its calls to the disk: sync the shard, rename it, sync the folder.
DEATHS = {2: 1, 8: 2}


class Mortal(SliceWorker):
    """Dies in the midst of some slices, leaving a mark so as to do it once."""

    def __call__(self, batch: Any) -> Any:
        number = int(batch["number"][0])
        mark = self._paths.output.parent / f"died-{number}"
        if number in DEATHS and not mark.exists():
            mark.touch()
            die_at(DEATHS[number])
        return super().__call__(batch)


@pytest.mark.ray
def test_killed_actors_are_replaced_and_shards_are_those_of_the_local_engine_byte_for_byte(
    ray: Any,
    small_model: GLiNER,
    source: Path,
    expected: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(ray_engine, "SliceWorker", Mortal)
    report = extract_files(source, tmp_path / "found", model=small_model, ray=ON_RAY, **OPTIONS)
    assert content_of(tmp_path / "found") == expected
    assert sorted(path.name for path in tmp_path.glob("died-*")) == ["died-2", "died-8"]
    assert report.is_complete
    assert (report.rows, report.rejects, report.shards) == (ROWS, 2, 14)
    assert report.stats["texts"] == ROWS - 2
    assert report.stats["read_seconds"] > 0


# A process that does a job on a running Ray, and gets a signal when three slices are remembered.
DRIVER = """
import json, os, sys
from gliner_fast.jobs import extract_files
from gliner_fast.jobs.job_folder import JobFolder
from gliner_fast.jobs.ray_options import RayOptions

add = JobFolder.add

def add_and_signal(folder, record):
    add(folder, record)
    if len(folder.finished) == 3:
        os.kill(os.getpid(), int(sys.argv[3]))

JobFolder.add = add_and_signal
report = extract_files(**json.loads(sys.argv[1]), ray=RayOptions(address=sys.argv[2]))
sys.exit(0 if report.is_complete else 3)
"""


@pytest.mark.ray
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 3)])
def test_a_driver_that_is_stopped_leaves_a_job_that_any_engine_finishes(
    number: signal.Signals,
    code: int,
    ray: Any,
    small_model: GLiNER,
    source: Path,
    expected: dict[str, bytes],
    tmp_path: Path,
):
    output = tmp_path / "found"
    arguments = {"inputs": str(source), "output": str(output), "model": str(small_model.source), **OPTIONS}
    address = ray.get_runtime_context().gcs_address
    driver = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DRIVER, json.dumps(arguments), address, str(int(number))],
        env={**os.environ, **ENVIRONMENT},
        check=False,
    )
    assert driver.returncode == code
    assert (output / "_job" / "manifest.jsonl").read_bytes().count(b'{"slice"') == 3
    report = extract_files(source, output, model=small_model, **OPTIONS)
    assert report.rows > report.rows_here > 0
    assert content_of(output) == expected


def test_ray_is_shut_down_only_when_no_thread_of_a_pipeline_is_left(
    small_model: GLiNER, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def leaving_a_thread(*arguments: Any) -> Iterator[Any]:
        try:
            yield from answers_here(*arguments)
        finally:
            threading.Thread(target=time.sleep, args=[0.3], name="iter_threaded").start()

    @contextmanager
    def connected(address: str | None) -> Iterator[None]:
        yield
        left.extend(thread.name for thread in threading.enumerate() if thread.name == "iter_threaded")

    left: list[str] = []
    monkeypatch.setattr(ray_engine, "_answers", leaving_a_thread)
    monkeypatch.setattr(ray_engine, "_connected", connected)
    assert extract_files(source, tmp_path / "found", model=small_model, ray=RayOptions(), **OPTIONS).is_complete
    assert left == []


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.ray
def test_an_error_of_an_actor_is_raised_as_it_was_raised_there(ray: Any, small_model: GLiNER, tmp_path: Path):
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "word " * 5000}])
    with pytest.raises(ValueError, match="5,000 words") as here:
        extract_files(source, tmp_path / "here", model=small_model, on_long="error", **OPTIONS)
    with pytest.raises(ValueError, match="5,000 words") as there:
        extract_files(source, tmp_path / "there", model=small_model, on_long="error", ray=ONE_ACTOR, **OPTIONS)
    assert (there.type, str(there.value)) == (here.type, str(here.value))


def test_a_limit_of_rejects_ends_the_job(
    small_model: GLiNER, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ray_engine, "_answers", answers_here)
    monkeypatch.setattr(ray_engine, "_connected", nullcontext)
    with pytest.raises(JobError, match="line 8: 'text' is null"):
        extract_files(source, tmp_path / "found", model=small_model, ray=RayOptions(), on_error="fail", **OPTIONS)


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, source: Path, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'gliner-fast\[ray\]'"):
        extract_files(source, tmp_path / "found", ray=RayOptions(), **OPTIONS)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"actors": 0}, "actors is 0: expected at least 1"),
        ({"num_cpus": 0}, "num_cpus is 0: an actor needs some"),
        ({"num_gpus": -1}, "num_gpus is -1: expected 0"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_words(options: dict[str, Any], words: str):
    with pytest.raises(JobError, match=words):
        RayOptions(**options)


SMALL, GPUS = {"CPU": 4.0, "memory": 1e9}, {"CPU": 16.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("machines", "options", "placed"),
    [
        ([SMALL], {}, (4, {"num_cpus": 1})),
        ([SMALL], {"actors": 2}, (2, {"num_cpus": 1})),
        ([SMALL, SMALL], {"num_cpus": 3}, (2, {"num_cpus": 3})),
        ([SMALL], {"num_cpus": 0.1}, (40, {"num_cpus": 0.1})),
        ([SMALL, GPUS], {}, (2, {"num_gpus": 1})),
        ([SMALL, GPUS, GPUS], {"num_gpus": 0.5}, (8, {"num_gpus": 0.5})),
        ([SMALL, GPUS], {"num_gpus": 0}, (20, {"num_cpus": 1})),
        ([SMALL, GPUS], {"num_cpus": 16, "num_gpus": 1}, (1, {"num_cpus": 16, "num_gpus": 1})),
        ([SMALL], {"num_gpus": 1, "actors": 8}, (8, {"num_gpus": 1})),  # a cluster that will grow
    ],
)
def test_actors_fill_the_machines(machines: list[dict[str, float]], options: dict[str, Any], placed: tuple[int, Any]):
    nodes = [{"Alive": True, "Resources": machine} for machine in machines]
    nodes.append({"Alive": False, "Resources": {"CPU": 1000.0, "GPU": 8.0}})
    assert place_actors(nodes, RayOptions(**options)) == placed


def test_an_actor_that_fits_nowhere_is_refused_in_words():
    nodes = [{"Alive": True, "Resources": machine} for machine in (SMALL, GPUS)]
    with pytest.raises(
        JobError, match="no machine has room for an actor of 32 CPUs and 1 GPUs; they have 4 CPUs and 0"
    ):
        place_actors(nodes, RayOptions(num_cpus=32))


# --- a worker without Ray ---------------------------------------------------------------------------------------------


@pytest.fixture
def begun(
    small_model: GLiNER, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Job, Paths, list[Slice]]:
    """A job, as the engine gets it."""
    given: list[Any] = []

    def remember(job: Job, paths: Paths, finished: Any, **options: Any) -> bool:
        given.extend((job, paths))
        return False

    monkeypatch.setattr(ray_engine, "run_on_ray", remember)
    extract_files(source, tmp_path / "found", model=small_model, ray=RayOptions(), **OPTIONS)
    job, paths = given
    return job, paths, list(ray_engine._all_slices(job, ROWS))


def test_slices_in_any_order_are_the_same_shards(begun: tuple[Job, Paths, list[Slice]], expected: dict[str, bytes]):
    job, paths, parts = begun
    worker = SliceWorker(job=job, paths=paths, folder=str(Path.cwd()))
    shuffled = [*parts[5:], parts[0], parts[4], *parts[:4]]
    assert [ask(worker, part).number for part in shuffled] == [part.number for part in shuffled]
    worker._reader.close()
    shards = {name: content for name, content in expected.items() if name.startswith("shard-")}
    assert {path.name: path.read_bytes() for path in paths.shards.glob("shard-*")} == shards


def test_a_machine_that_does_not_see_the_input_says_so(begun: tuple[Job, Paths, list[Slice]], tmp_path: Path):
    job, paths, parts = begun
    elsewhere = replace(job, files=[replace(job.files[0], path=str(tmp_path / "not mounted.jsonl"))])
    error = ask(SliceWorker(job=elsewhere, paths=paths, folder="/no/such/folder"), parts[0])
    assert isinstance(error, JobError)
    assert "not mounted.jsonl is not there on the machine" in str(error)
