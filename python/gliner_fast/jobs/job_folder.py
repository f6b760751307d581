"""Where a job keeps its shards and its memory: every file is whole or absent, whatever moment the process dies at."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import Self

from gliner_fast.errors import shown
from gliner_fast.jobs.aside import errors_naming, write_aside
from gliner_fast.jobs.errors import JobError
from gliner_fast.jobs.job_lock import JobLock
from gliner_fast.jobs.plan import Plan

# A file that is being written is called as it will be, and this: its own in any process of any machine.
_PART = re.compile(r"(?P<name>.+)\.[0-9a-f]{12}\.part")
# The one output file while it is put together: short, since the output's own name may be as long as names can be.
_JOINED = "joined"
# No count reaches it; sums of what lies below it are still finite.
_TOO_MANY = 2**63
_SHARD = re.compile(r"shard-\d{7}\.(parquet|jsonl(\.gz|\.zst)?)")


@dataclass(frozen=True)
class Paths:
    """The places of a job, from its output's name alone: any process that knows the name finds them.

    A name with the extension of a format is one file, joined from shards that lie in `NAME.job/shards` until then. Any
    other name is a folder of shards, with the job's own files in `NAME/_job`: readers of folders pass over names
    that begin with an underscore.
    """

    output: Path
    is_file: bool

    @property
    def job(self) -> Path:
        """Folder of manifest, rejects and report."""
        return self.output.with_name(self.output.name + ".job") if self.is_file else self.output / "_job"

    @property
    def shards(self) -> Path:
        """Folder of the shards."""
        return self.job / "shards" if self.is_file else self.output

    @property
    def rejects(self) -> Path:
        """Folder of each slice's rejects, until they are joined."""
        return self.job / "rejects"

    @property
    def manifest(self) -> Path:
        """One JSON line for the plan, then one for each finished slice."""
        return self.job / "manifest.jsonl"

    @property
    def all_rejects(self) -> Path:
        """All rejects of a finished job, or those that one knew of when it was ended, as JSON lines."""
        return self.job / "rejects.jsonl"

    @property
    def report(self) -> Path:
        """What was done, for programs."""
        return self.job / "report.json"


@dataclass(frozen=True)
class SliceRecord:
    """What the manifest says of a finished slice.

    Attributes:
        number: of the slice.
        rows: input rows in it, rejects included; fewer than the slice asked for where the input ends.
        shard: file name of its shard.
        shard_bytes: size of that file.
        rejects: rows that could not be used.
        entities: entities found.
        stats: counts and seconds, for the report.
        relations: relations found.
    """

    number: int
    rows: int
    shard: str
    shard_bytes: int
    rejects: int
    entities: int
    stats: dict[str, float] = field(default_factory=dict)
    relations: int = 0

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SliceRecord:
        """Reads what `asdict` gave.

        Raises:
            ValueError: it is something else.
            TypeError: it has other fields.
        """
        record = cls(**values)
        counts = (record.number, record.rows, record.shard_bytes, record.rejects, record.entities, record.relations)
        has_counts = all(map(_is_count, counts))
        has_stats = isinstance(record.stats, dict) and all(map(_is_amount, record.stats.values()))
        # The name must be its own: two slices of one shard would have it in the output twice.
        is_own = _SHARD.fullmatch(record.shard) and record.shard.startswith(shard_name(record.number, "."))
        if not (has_counts and has_stats and is_own):
            raise ValueError(f"{shown(values)} is no slice")
        return record


class JobFolder:
    """A job's folder, locked against a second process while it is open.

    Attributes:
        paths: where things are.
        finished: the slices whose shards are there, by number.
        is_joined: the one output file is there, or the folder's shards are all there: nothing is left to do.
    """

    def __init__(self, paths: Paths, plan: Plan, *, overwrite: bool = False) -> None:
        self.paths = paths
        self.finished: dict[int, SliceRecord] = {}
        self.is_joined = False
        self._plan = plan
        self._overwrite = overwrite
        self._lock = JobLock(paths.job, paths.output)

    def __enter__(self) -> Self:
        """Locks the folder, and reads what an earlier run left, or begins.

        Raises:
            JobError: another process works there, the plan has changed, or something else lies there.
            OSError: the folder cannot be written.
        """
        self._refuse_what_is_not_ours()
        self._refuse_links()
        self.paths.job.mkdir(parents=True, exist_ok=True)
        self._lock.take()
        try:
            if self._overwrite and not self._is_begun():
                self._clear()
            if self.paths.manifest.exists():
                self._resume()
            else:
                write_aside(self.paths.manifest, lambda path: path.write_bytes(_line({"plan": self._plan.to_dict()})))
            self._sweep()
            if not self.is_joined:
                for folder in (self.paths.shards, self.paths.rejects):
                    folder.mkdir(parents=True, exist_ok=True)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Releases the lock."""
        self._lock.release()

    @property
    def rows(self) -> int:
        """Input rows in the finished slices."""
        return sum(record.rows for record in self.finished.values())

    @property
    def rejects(self) -> int:
        """Rejected rows in the finished slices."""
        return sum(record.rejects for record in self.finished.values())

    def drop(self, record: SliceRecord) -> None:
        """Removes the files of a slice that is not to be remembered, once its rejects are in the one file of them."""
        self.gather_rejects(record.number)
        for file in (self.paths.shards / record.shard, self.paths.rejects / rejects_name(record.number)):
            file.unlink(missing_ok=True)

    def add(self, record: SliceRecord) -> None:
        """Remembers a slice whose shard is in its place."""
        self._append({"slice": asdict(record)})
        self.finished[record.number] = record

    def gather_rejects(self, *further: int) -> None:
        """Makes the one file of the rejects of all finished slices, and of `further` ones."""
        numbers = sorted({*further, *(number for number, record in self.finished.items() if record.rejects)})
        files = [self.paths.rejects / rejects_name(number) for number in numbers]
        write_aside(self.paths.all_rejects, lambda path: _concatenate(files, path))

    def join(self, join_shards: Callable[[list[Path], Path], Any]) -> None:
        """Makes the one output file of the shards, all of which are there, and the one file of the rejects."""
        self.gather_rejects()
        size = None
        if self.paths.is_file:
            shards = [self.paths.shards / self.finished[number].shard for number in sorted(self.finished)]
            write_aside(self.paths.output, lambda path: join_shards(shards, path), self._joined_part())
            size = self.paths.output.stat().st_size
        self._append({"joined": size})
        self.is_joined = True
        self._sweep()

    def _joined_part(self) -> Path | None:
        """Where the one output file is put together: in the job's folder, unless that is a link to another disk."""
        job, beside = self.paths.job, self.paths.output.parent
        return job / f"{_JOINED}.{secrets.token_hex(6)}.part" if job.stat().st_dev == beside.stat().st_dev else None

    def _refuse_what_is_not_ours(self) -> None:
        output = self.paths.output
        if output.exists() and not (output.is_file() or output.is_dir()):
            raise JobError(f"{output} is a device or a pipe: choose the name of a file, or - for standard output")
        if self.paths.manifest.exists():
            return
        if self.paths.is_file and output.is_dir():
            raise JobError(f"{output} is a folder: give the output another name, or one without extension for shards")
        if self.paths.is_file and output.exists() and not self._overwrite:
            raise JobError(f"{output} exists, and no job left it: choose another name, or overwrite it (--overwrite)")
        if not self.paths.is_file and output.is_dir() and any(path != self.paths.job for path in output.iterdir()):
            raise JobError(f"{output} holds files that no job left: choose an empty or a new folder")
        if not self.paths.is_file and output.is_file():
            raise JobError(f"{output} is a file: shards need a folder; for one file end the name in .parquet or .jsonl")

    def _refuse_links(self) -> None:
        """Refuses links in the places of the job's own files: what they lead to would be written over, or removed.

        The job's folder may itself be a link, to another disk say, and so may an output that is a folder.
        """
        own = [self.paths.manifest, *self._lock.files, self.paths.rejects]
        if self.paths.is_file:
            own.append(self.paths.shards)
        for path in own:
            if path.is_symlink():
                raise JobError(
                    f"{path} is a link, which no job leaves there, and what it leads to may be another's: remove the "
                    f"link; to keep a job's files elsewhere, link {self.paths.job} as a whole"
                )

    def _clear(self) -> None:
        """Removes an earlier job's files, and nothing that no job made.

        The one output file stays until the new one takes its place: the new job may come to nothing.
        """
        if self.paths.manifest.exists() and self.paths.shards.is_dir():
            for path in self.paths.shards.iterdir():
                if _SHARD.fullmatch(path.name) and path.is_file():
                    path.unlink()
        shutil.rmtree(self.paths.rejects, ignore_errors=True)
        for file in (self.paths.all_rejects, self.paths.report, self.paths.manifest):
            file.unlink(missing_ok=True)

    def _is_begun(self) -> bool:
        """Whether this very job was begun here and not finished: to start anew would give the same output, later."""
        try:
            earlier, _, last = self._read_manifest()
        except (JobError, FileNotFoundError):
            return False
        return "joined" not in last and not self._plan.changes_from(earlier)

    def _read_manifest(self) -> tuple[Plan, list[SliceRecord], dict[str, Any]]:
        """The plan, all slices and the last line; cuts off a line that a dying process did not finish."""
        content = self.paths.manifest.read_bytes()
        whole = content.rfind(b"\n") + 1
        try:
            read = _read_lines([json.loads(line) for line in content[:whole].splitlines()])
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, JobError):
                raise
            raise JobError(
                f"{self.paths.manifest} is damaged: start anew (--overwrite), or choose another output"
            ) from error
        if whole < len(content):  # only now, when the lines before it say that it is a manifest
            with self.paths.manifest.open("r+b") as manifest:
                manifest.truncate(whole)
        return read

    def _resume(self) -> None:
        earlier, slices, last = self._read_manifest()
        changes = self._plan.changes_from(earlier)
        if changes:
            raise JobError(
                f"{self.paths.output} was begun as another job: {'; '.join(changes)}. Give the earlier choices to go "
                "on, another output to keep both, or overwrite (--overwrite) to start anew"
            )
        records = {record.number: record for record in slices}
        if "joined" in last and self._output_is_there(last["joined"], list(records.values())):
            self.finished, self.is_joined = records, True
        else:
            self.finished = {number: record for number, record in records.items() if self._is_there(record)}

    def _output_is_there(self, size: int | None, records: list[SliceRecord]) -> bool:
        """Whether all that was joined still stands, the one file or all shards of a folder; what is gone is made anew.

        Raises:
            JobError: something has another size than it was given: whoever changed it may want to keep it.
        """
        sizes = {self.paths.shards / record.shard: record.shard_bytes for record in records}
        files = {self.paths.output: size} if self.paths.is_file else sizes
        for file, expected in files.items():
            if file.is_file() and file.stat().st_size != expected:
                raise JobError(
                    f"{file} is finished, and has changed since (it had {expected} bytes, and has "
                    f"{file.stat().st_size}): move it away to have it made anew, or overwrite it (--overwrite)"
                )
        return all(file.is_file() for file in files)

    def _is_there(self, record: SliceRecord) -> bool:
        """Whether a slice can be joined: its shard is whole, and so are its rejects, which a join takes away."""
        has_rejects = not record.rejects or (self.paths.rejects / rejects_name(record.number)).is_file()
        return self._has_shard(record) and has_rejects

    def _has_shard(self, record: SliceRecord) -> bool:
        shard = self.paths.shards / record.shard
        return shard.is_file() and shard.stat().st_size == record.shard_bytes

    def _sweep(self) -> None:
        """Removes what a dying process left half written and, once all is joined, the parts."""
        own = (self.paths.manifest, self.paths.all_rejects, self.paths.report, *self._lock.files)
        ours = {_JOINED, *(path.name for path in own)}
        _remove_parts(self.paths.job, lambda name: name in ours)
        _remove_parts(self.paths.shards, lambda name: _SHARD.fullmatch(name) is not None)
        if self.paths.is_file:
            _remove_parts(self.paths.output.parent, lambda name: name == self.paths.output.name)
        if self.is_joined:
            shutil.rmtree(self.paths.rejects, ignore_errors=True)
            if self.paths.is_file:
                shutil.rmtree(self.paths.shards, ignore_errors=True)
        else:
            _remove_parts(self.paths.rejects, lambda name: name.startswith("rejects-"))

    def _append(self, line: dict[str, Any]) -> None:
        with errors_naming(self.paths.manifest), self.paths.manifest.open("ab") as manifest:
            manifest.write(_line(line))
            manifest.flush()
            os.fsync(manifest.fileno())


def shard_name(number: int, suffix: str) -> str:
    """File name of a slice's shard; names sort as the slices do."""
    return f"shard-{number:07d}{suffix}"


def rejects_name(number: int) -> str:
    """File name of a slice's rejects."""
    return f"rejects-{number:07d}.jsonl"


def _remove_parts(folder: Path, is_ours: Callable[[str], bool]) -> None:
    """Removes half written files whose whole names are ours."""
    if folder.is_dir():
        for path in folder.iterdir():
            part = _PART.fullmatch(path.name)
            if part is not None and is_ours(part["name"]) and path.is_file():
                path.unlink()


def _concatenate(files: list[Path], path: Path) -> None:
    with path.open("wb") as out:
        for file in files:
            with file.open("rb") as source:
                shutil.copyfileobj(source, out)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _TOO_MANY


def _is_amount(value: Any) -> bool:
    """Whether it is a count or seconds: also neither infinite nor NaN, which no comparison holds for."""
    return type(value) in (int, float) and 0 <= value < _TOO_MANY


def _read_lines(lines: list[Any]) -> tuple[Plan, list[SliceRecord], dict[str, Any]]:
    """The plan, all slices and the last line of a manifest; raises as Python does where they have another shape."""
    last = dict(lines[-1])
    if last.get("joined") is not None and not _is_count(last["joined"]):
        raise ValueError("the size of the output is no number of bytes")
    slices = [SliceRecord.from_dict(line["slice"]) for line in lines if "slice" in line]
    numbers = {record.number for record in slices}  # a slice that was done again has a line more
    if "joined" in last and numbers != set(range(len(numbers))):
        raise ValueError("an output was joined of other slices than 0 and those that follow it")
    return Plan.from_dict(lines[0]["plan"]), slices, last


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values, allow_nan=False).encode() + b"\n"
