"""`extract_files`: the one call for files in and entities out, whatever runs underneath."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, SupportsFloat, get_args

import torch

from gliner_fast.config import CONFIG_NAME, GLiNERConfig
from gliner_fast.devices import is_same, parse_devices
from gliner_fast.jobs.chosen_model import ChosenModel
from gliner_fast.jobs.errors import JobError
from gliner_fast.jobs.inputs import InputFile, find_inputs
from gliner_fast.jobs.job import plan_job
from gliner_fast.jobs.job_folder import Paths
from gliner_fast.jobs.plan import Settings, digest_model
from gliner_fast.jobs.progress import Progress, show_nothing
from gliner_fast.jobs.report import JobReport
from gliner_fast.jobs.runner import run_job
from gliner_fast.jobs.sinks import CODECS, Layout, ShardFormat
from gliner_fast.jobs.to_stream import run_to_stream
from gliner_fast.model import GLiNER
from gliner_fast.precision import WholeNumbers, choose_device, expect_computing, parse_precision
from gliner_fast.predicting.request import OnLong

if TYPE_CHECKING:
    from gliner_fast.jobs.ray_options import RayOptions
    from gliner_fast.redaction import Redaction

# Extensions that nobody means a folder of shards by.
_NO_FOLDERS = frozenset(
    {".csv", ".tsv", ".txt", ".text", ".json", ".jsonl", ".ndjson", ".parquet", ".pq", ".arrow", ".feather", ".avro"}
    | {".orc", ".xlsx", ".gz", ".zst", ".xz", ".bz2", ".lz4", ".lzma", ".br", ".sz", ".snappy", ".z", ".zip", ".7z"}
    | {".rar", ".tar", ".tgz", ".tbz", ".txz"}
)
OnError = Literal["skip", "fail"]
# As an extension, each makes the output one file.
_FILE_FORMATS: tuple[ShardFormat, ...] = get_args(ShardFormat)


def extract_files(
    inputs: str | PathLike[str] | Sequence[str | PathLike[str]],
    output: str | PathLike[str] | BinaryIO,
    labels: str | Sequence[str] | Mapping[str, str] | None = None,
    *,
    model: str | PathLike[str] | GLiNER | None = None,
    threshold: float | Mapping[str, float] = 0.5,
    flat_ner: bool = True,
    multi_label: bool = False,
    relations: str | Sequence[str] | None = None,
    adjacency_threshold: float | None = None,
    relation_threshold: float | Mapping[str, float] | None = None,
    on_long: OnLong = "window",
    text_column: str = "text",
    id_column: str | None = None,
    labels_column: str | None = None,
    columns: str | Sequence[str] | None = None,
    input_format: str | None = None,
    output_format: ShardFormat = "parquet",
    layout: Layout = "list",
    entities_column: str = "entities",
    relations_column: str = "relations",
    redaction: Redaction | None = None,
    device: str = "auto",
    dtype: str = "fp32",
    batch_size: int | None = None,
    rows_per_shard: int = 4096,
    on_error: OnError = "skip",
    max_rejects: int | None = None,
    overwrite: bool = False,
    ray: RayOptions | None = None,
    progress: Progress = show_nothing,
) -> JobReport:
    """Finds the entities of all texts in files, and writes them to files.

    The input is cut into slices, and each slice becomes a shard, written aside and renamed. Whatever moment the process
    dies at, the same call goes on with the slices that are missing, and the output is, byte for byte, that of an
    unbroken run on the same machine with as many threads and one device. Memory does not grow with the input.

    Args:
        inputs: files, folders or globs: JSON lines, Parquet, CSV or plain text, also `.gz` and `.zst`; "-" is standard
            input, which is taken for plain text where `input_format` does not say otherwise.
        output: a name in `.parquet`, `.jsonl`, `.jsonl.gz` or `.jsonl.zst` is one file; any other a folder of shards. A
            binary stream such as `sys.stdout.buffer` gets JSON lines, and cannot be resumed.
        labels: entity types in plain words, or a mapping of label to description.
        model: folder, Hub id or loaded model; None for the built-in model.
        threshold: entities score above it; a mapping gives each label its own.
        flat_ner: no two entities share a word; False lets one contain another.
        multi_label: one span may have several labels.
        relations: kinds of relations to look for between the entities of each row, in plain words; they are part of
            what the model reads, and so may change its entities. Of relation extraction (relex) models alone.
        adjacency_threshold: the probability of a link that two entities must pass to be looked at; None for
            `threshold`, or for 0.5 where that is a mapping.
        relation_threshold: relations score above it, None as before; a mapping gives each relation its own.
        on_long: texts beyond the model's limit are read in overlapping windows, cut ("truncate"), or end the job.
        text_column: holds the texts.
        id_column: names the rows; always passed through.
        labels_column: holds each row's own labels, instead of `labels`.
        columns: input columns to pass through; None for all, or for none with layout "rows".
        input_format: "jsonl", "parquet", "csv", "tsv" or "text", whatever the names say.
        output_format: of the shards in a folder.
        layout: "list" gives each row a column of its entities; "rows" writes one row an entity.
        entities_column: name of that column.
        relations_column: name of the column with each row's relations, which the layout "list" alone has.
        redaction: write texts with their entities replaced; originals are left out.
        device: "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU if there is one. Several, by commas, share the slices,
            and so do "all" CUDA devices; each gets a copy of the network.
        dtype: "fp32", "bf16", "fp16" or "auto"; "int16" or "int8" on a CPU. A loaded model keeps its device and dtype.
        batch_size: most texts a batch; None lets the budget of subwords decide.
        rows_per_shard: most rows a slice, and so a shard. About three slices are in memory and under way at a time,
            more on GPUs, and a crash costs at most those.
        on_error: rows that cannot be used go to a file of rejects ("skip"), or the first one ends the job ("fail").
        max_rejects: with "skip", the job ends where there are more.
        overwrite: start anew over an earlier output; where that is this very job, not finished, go on with it.
        ray: run the slices on a Ray cluster.
        progress: shows how far the job is.

    Returns:
        What was done. `is_complete` is False after Ctrl-C, which ends the job at the next slice.

    Raises:
        JobError: the choices do not go together or are not those that the job was begun with, another process writes
            there, too many rows were rejected, or a text is too long with `on_long="error"`.
        JobInputError: the input cannot be read, lacks a column, or has one of a name that the output adds.
        FileNotFoundError: an input, or the model, is not there.
        CheckpointError: the model cannot be loaded.
        TypeError: a choice of a wrong type.
        ValueError: one that is out of range, such as a device that is not here, or a label without a threshold.
        OSError: the output cannot be written; finished shards stay.
        ImportError: pyarrow, orjson or Ray is missing; names the extra that brings it.
    """
    if max_rejects is not None and max_rejects < 0:
        raise JobError(f"max_rejects is {max_rejects}: expected 0 or more, or None for any number")
    if on_error not in get_args(OnError):
        raise JobError(f"on_error is {on_error!r}: expected 'skip' or 'fail'")
    paths, file_format = _plan_output(output, output_format)
    if ray is not None and paths is None:
        raise JobError("Ray writes shards, and a stream has none: give the output a name")
    names = [fspath(path) for path in ([inputs] if isinstance(inputs, (str, PathLike)) else inputs)]
    # Only where a job left them: what else lies there is refused below as an input that the output would replace.
    ours = (paths.output, paths.job) if paths is not None and paths.manifest.exists() else ()
    files = find_inputs(names, input_format, ours=ours)
    _refuse_output_among_inputs(paths, names, files)
    if ray is not None and (device != "auto" or dtype == "auto"):
        raise JobError("on Ray each actor computes on what it is given, so leave device at 'auto' and name the dtype")
    loaded = model if isinstance(model, GLiNER) else None
    if loaded is not None:
        _expect_no_other_wish(loaded, device, dtype)
    devices = [torch.device("cpu")] if ray is not None and loaded is None else _choose_devices(device, loaded)
    precision = _choose_precision(dtype, devices) if loaded is None else loaded.precision
    if ray is not None and precision in get_args(WholeNumbers) and ray.num_gpus != 0:
        raise JobError(
            f"{precision} computes on CPUs: give the actors no GPU (num_gpus=0, --num-gpus 0), or take another dtype"
        )
    chosen = ChosenModel.of(model, is_named=paths is not None)
    if ray is not None and chosen.words_splitter is not None:
        raise JobError("the model has a word splitter of your own, which Ray's actors have not: leave it or Ray out")
    settings = Settings(
        model=chosen.name,
        model_digest="" if chosen.folder is None or paths is None else digest_model(chosen.folder),
        model_options=chosen.options,
        words_splitter=chosen.words_splitter,
        dtype=precision,
        labels=dict(labels) if isinstance(labels, Mapping) else _as_list("labels", labels),
        threshold=dict(threshold) if isinstance(threshold, Mapping) else float(threshold),
        flat_ner=flat_ner,
        multi_label=multi_label,
        on_long=on_long,
        batch_size=batch_size,
        text_column=text_column,
        id_column=id_column,
        labels_column=labels_column,
        columns=_as_list("columns", columns),
        rows_per_shard=rows_per_shard,
        format=file_format,
        layout=layout,
        entities_column=entities_column,
        redaction=None if redaction is None else redaction.to_dict(),
        relations=_as_list("relations", relations),
        adjacency_threshold=_as_number(adjacency_threshold),
        relation_threshold=dict(relation_threshold)
        if isinstance(relation_threshold, Mapping)
        else _as_number(relation_threshold),
        relations_column=relations_column,
    )
    if relations is not None:
        _expect_relex(loaded, chosen)
    job = plan_job(files, settings, redaction, is_resumable=paths is not None)
    limit = 0 if on_error == "fail" else max_rejects
    if paths is None:
        assert not isinstance(output, (str, PathLike))
        return run_to_stream(job, output, loaded, devices, max_rejects=limit, progress=progress)
    return run_job(job, paths, loaded, devices, max_rejects=limit, overwrite=overwrite, ray=ray, progress=progress)


def _expect_relex(loaded: GLiNER | None, chosen: ChosenModel) -> None:
    """Asks whether the model finds relations, before anything is written.

    Raises:
        JobError: it finds entities alone.
    """
    if loaded is not None:
        config = loaded.config
    else:
        assert chosen.folder is not None, "only a loaded model has none"
        config = GLiNERConfig.from_file(chosen.folder / CONFIG_NAME)
    try:
        config.expect_relex()
    except ValueError as error:
        raise JobError(str(error)) from error


def _expect_no_other_wish(loaded: GLiNER, device: str, dtype: str) -> None:
    """A loaded model computes where and as it is.

    Raises:
        JobError: another device or dtype is asked for.
        ValueError: the device is not here.
    """
    if device not in {"auto", "all"} and "," not in device and not is_same(choose_device(device), loaded.device):
        raise JobError(f"device is {device!r}, but the model is on {loaded.device}: move it there, or leave device out")
    if dtype not in ("auto", "fp32") and _choose_precision(dtype, [loaded.device]) != loaded.precision:
        raise JobError(
            f"dtype is {dtype!r}, but the model computes in {loaded.precision}: load it anew, or leave dtype out"
        )


def _choose_devices(device: str, loaded: GLiNER | None) -> list[torch.device]:
    """Where to compute; a loaded model stays where it is, unless several devices are named.

    Raises:
        ValueError: one of them is not here, or computes nothing.
    """
    if device == "all" or "," in device:
        devices = parse_devices("all" if device == "all" else [name.strip() for name in device.split(",")])
    else:
        devices = [choose_device(device) if loaded is None else loaded.device]
    return [expect_computing(own) for own in devices]


def _choose_precision(dtype: str, devices: Sequence[torch.device]) -> str:
    """What all devices compute in; "auto" is float32 where not all are fastest with the same.

    Raises:
        ValueError: an unknown name, or whole numbers on another device than the CPU.
    """
    asked = [parse_precision(dtype, None, device) for device in devices]
    for _, whole in asked:
        if whole is not None:
            return whole
    fastest = {parsed or torch.float32 for parsed, _ in asked}
    return str(fastest.pop() if len(fastest) == 1 else torch.float32).removeprefix("torch.")


def _as_number(given: Any) -> Any:
    """A number of any library as Python's own, which JSON knows; what is none stays, to be told of."""
    return float(given) if isinstance(given, SupportsFloat) else given


def _as_list(name: str, given: str | Sequence[str] | None) -> list[str] | None:
    """A list of names; a string is one name.

    Raises:
        JobError: something without an order, in which a later call could not name them again.
    """
    if given is None:
        return None
    if isinstance(given, str):
        return [given]
    if not isinstance(given, Sequence):
        raise JobError(f"{name} is a {type(given).__name__}: expected a list of names")
    return list(given)


def _refuse_output_among_inputs(paths: Paths | None, given: Sequence[str], files: Sequence[InputFile]) -> None:
    """Refuses an output that replaces an input, or that the same call would take for input the next time.

    Raises:
        JobError: names both.
    """
    if paths is None:
        return
    output = paths.output.resolve()
    for folder in (Path(name).resolve() for name in given):
        if folder.is_dir() and folder in output.parents:
            raise JobError(f"the output {paths.output} lies in the input folder {folder}: choose a place outside of it")
    for file in files:
        path = Path(file.path).resolve()
        if not file.is_stdin and {output, paths.job.resolve()} & {path, *path.parents}:
            raise JobError(f"{file.path} is an input and lies where the output goes: choose another output")


def _plan_output(
    output: str | PathLike[str] | BinaryIO, output_format: ShardFormat
) -> tuple[Paths | None, ShardFormat]:
    """Where the output goes, None for a stream, and its format."""
    if not isinstance(output, (str, PathLike)):
        if output_format in CODECS:
            raise JobError(f"a stream gets plain JSON lines, not {output_format}: compress behind it, or name a file")
        return None, "jsonl"
    if not str(output):
        raise JobError("the output has an empty name: name a file or a folder; '.' is the current folder")
    if "://" in str(output):
        raise JobError(f"output {output} is no local path: mount the storage, or write here and copy it there")
    path = Path(output)
    for file_format in _FILE_FORMATS:
        if path.name.endswith(f".{file_format}"):
            return Paths(path, is_file=True), file_format
    if path.suffix.lower() in _NO_FOLDERS:
        known = ", ".join(f".{name}" for name in _FILE_FORMATS)
        raise JobError(
            f"output {path} has the extension {path.suffix}: expected {known}, or none for a folder of shards"
        )
    return Paths(path, is_file=False), output_format
