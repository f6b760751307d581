"""What a job reads: paths, folders and globs -> input files, each with its format, its size and a fingerprint."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gliner_fast.jobs.errors import JobInputError
from gliner_fast.jobs.folders import files_below, files_by_glob

InputFormat = Literal["jsonl", "parquet", "csv", "tsv", "text"]
Compression = Literal["gzip", "zstd"]

STDIN = "-"

# `.json` is left out on purpose: most such files hold one value over many lines, which cannot be read row by row.
_FORMATS: dict[str, InputFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
    ".text": "text",
}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}

# A fingerprint reads at most 64 pieces of 64 KiB: 4 MiB of a file of any size.
_PIECE = 2**16
_PIECES = 64


@dataclass(frozen=True)
class InputFile:
    """A file to read.

    Attributes:
        path: as the user named it; "-" is standard input.
        format: what its rows are.
        compression: of the whole file; Parquet's own is not meant.
        size: in bytes, as it lies on the disk; None for standard input.
        is_assumed: nobody named the format of standard input, and nothing tells it.
    """

    path: str
    format: InputFormat
    compression: Compression | None
    size: int | None
    is_assumed: bool = False

    @property
    def name(self) -> str:
        """As messages call it."""
        return name_of(self.path)

    @property
    def is_stdin(self) -> bool:
        """Whether it can be read once only."""
        return self.path == STDIN


def name_of(path: str) -> str:
    """What messages call an input."""
    return "standard input" if path == STDIN else path


def find_inputs(
    paths: Sequence[str],
    format: str | None = None,  # noqa: A002  # the option's name
    *,
    ours: Collection[Path] = (),
) -> list[InputFile]:
    """Finds the files that are meant, in the order of `paths`; what a glob or a folder holds is sorted by name.

    Args:
        paths: files, globs (`*`, `?`, `[]`; `**` goes into folders), folders (read whole, subfolders too, without names
            that begin with "." or "_" and without unknown extensions; links to folders are followed), or "-" alone
            for standard input.
        format: of all files, whatever their names say; a final `.gz` or `.zst` still means compression. Standard input
            is taken for text where none is given.
        ours: files and folders that an earlier call wrote: globs pass over them.

    Raises:
        FileNotFoundError: a path or glob that nothing goes by.
        JobInputError: an unknown extension or format, several formats, no file, or a file named twice.
        OSError: a folder cannot be read.
    """
    if format is not None and format not in _FORMATS.values():
        raise JobInputError(f"input format {format!r} is unknown: expected {_either(dict.fromkeys(_FORMATS.values()))}")
    if not paths:
        raise JobInputError(f"no input: name files, folders or globs, or {STDIN!r} for standard input")
    if "" in paths:
        raise JobInputError("an input has an empty name: name a file, a folder or a glob; '.' is the current folder")
    if STDIN in paths:
        return [_standard_input(paths, format)]
    files = [_describe(path, format) for given in paths for path in _expand(given, format, ours)]
    _expect_each_once(files)
    for file in files:
        if file.format != files[0].format:
            raise JobInputError(
                f"{files[0].path} is {files[0].format} and {file.path} is {file.format}: a job reads one format, so "
                "name its files by a glob such as 'data/*.jsonl', or give the format of all files with --input-format"
            )
    return files


def fingerprint(file: InputFile) -> dict[str, Any] | None:
    """Size and a SHA-256 that tell whether a file is still the same input; None for standard input.

    Reads the whole of a file of up to 4 MiB, so that a copy is the same input. Of a greater one it reads 64 evenly
    spaced pieces of 64 KiB, and takes the time of its last change too: a change could lie between them.
    """
    if file.is_stdin:
        return None
    digest = hashlib.sha256()
    with Path(file.path).open("rb") as stream:
        size = stream.seek(0, 2)
        last = max(0, size - _PIECE)
        is_small = size <= _PIECE * _PIECES
        starts = range(0, size, _PIECE) if is_small else [last * i // (_PIECES - 1) for i in range(_PIECES)]
        for start in starts:
            stream.seek(start)
            digest.update(stream.read(_PIECE))
    found: dict[str, Any] = {"size": size, "sha256": digest.hexdigest()}
    return found if is_small else {**found, "modified_ns": Path(file.path).stat().st_mtime_ns}


def _standard_input(paths: Sequence[str], format: str | None) -> InputFile:  # noqa: A002
    if len(paths) > 1:
        raise JobInputError(f"{STDIN!r} (standard input) is given together with other inputs: give it alone")
    if format == "parquet":
        raise JobInputError(
            "Parquet cannot be read from standard input, because its index lies at the end: give a file"
        )
    if format is None:
        return InputFile(STDIN, "text", None, None, is_assumed=True)
    return InputFile(STDIN, format, None, None)  # type: ignore[arg-type]  # checked by the caller


def _expand(given: str, format: str | None, ours: Collection[Path]) -> Iterator[str]:  # noqa: A002
    path = Path(given)
    if path.is_dir():
        yield from _files_in(path, format)
    elif path.exists() or path.is_symlink():  # a link to nothing is told as such
        yield given
    elif glob.has_magic(given):
        found = [name for name in files_by_glob(given) if not _is_among(ours, Path(name))]
        if not found:
            raise FileNotFoundError(f"no file matches {given}")
        yield from found
    else:
        raise FileNotFoundError(f"no such file: {given}")


def _is_among(ours: Collection[Path], path: Path) -> bool:
    if not ours:
        return False
    path = path.resolve()
    return not {path, *path.parents}.isdisjoint(own.resolve() for own in ours)


def _files_in(folder: Path, format: str | None) -> Iterator[str]:  # noqa: A002
    found = False
    for path in files_below(folder):
        # A link to nothing may have led to a folder of files: it is told of below, whatever its name.
        if format is None and _read_extension(path)[0] is None and path.exists():
            continue
        found = True
        yield str(path)
    if not found:
        raise JobInputError(f"no input in folder {folder}: expected files in {_known_extensions()}")


def _describe(path: str, format: str | None) -> InputFile:  # noqa: A002
    by_name, compression = _read_extension(Path(path))
    chosen = by_name if format is None else format
    if Path(path).is_symlink() and not Path(path).exists():
        raise JobInputError(f"{path} is a link to {Path(path).readlink()}, which is not there: mend or remove it")
    if not Path(path).is_file():
        raise JobInputError(
            f"{path} is no regular file, and a job reads its input twice: pipe it to standard input, '-'"
        )
    if chosen is None:
        raise JobInputError(
            f"{path}: unknown extension; expected {_known_extensions()}, or give the format with --input-format (a "
            ".json file with one object a line is jsonl)"
        )
    if chosen == "parquet" and compression is not None:
        raise JobInputError(f"{path}: Parquet is compressed within; decompress the file around it")
    return InputFile(path, chosen, compression, Path(path).stat().st_size)  # type: ignore[arg-type]  # checked by find_inputs


def _read_extension(path: Path) -> tuple[InputFormat | None, Compression | None]:
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    compression = _COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    if compression is not None:
        suffixes.pop()
    return _FORMATS.get(suffixes[-1]) if suffixes else None, compression


def _expect_each_once(files: Sequence[InputFile]) -> None:
    seen: dict[Path, str] = {}
    for file in files:
        path = Path(file.path).resolve()
        if path in seen:
            other = seen[path]
            names = file.path if file.path == other else f"{other} and {file.path}"
            raise JobInputError(f"one file is named twice ({names}), and its rows would be there twice: name it once")
        seen[path] = file.path


def _known_extensions() -> str:
    return f"{_either(_FORMATS)}, and all but Parquet with {_either(_COMPRESSIONS)} behind"


def _either(names: Any) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}"
