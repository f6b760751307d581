"""A file, gzipped or not -> its lines, numbered."""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from gliner_fast.annotated.example import DataError

_GZIP_MARK = b"\x1f\x8b"
# How a JSON file begins: an object, or a list of records. A column file may well begin with the word "[" or "{}".
_JSON_START = re.compile(rb'\s*(\{\s*"|\[\s*(\{\s*["}]|\[\s*["\[{\]]|"\S)|(\{\s*\}|\[\s*\])[ \t]*([\r\n]|\Z))')
_PEEKED = 2**12
_JSON_NAMES = frozenset({".json", ".jsonl", ".ndjson"})
# A sentence of columns may begin with the words '{' and '"', as JSON does.
_COLUMN_NAMES = frozenset({".conll", ".bio", ".iob", ".iob2", ".bioes", ".tsv"})


def first_bytes(path: Path, count: int) -> bytes:
    """The first bytes of a file as it lies on the disk."""
    with path.open("rb") as file:
        return file.read(count)


def looks_like_json(path: Path) -> bool:
    """Whether a file is JSON by its name, or begins as JSON does and has no name of column files."""
    suffixes = {suffix.lower() for suffix in path.suffixes}
    if suffixes & (_JSON_NAMES | _COLUMN_NAMES):
        return not suffixes.isdisjoint(_JSON_NAMES)
    with _open(path) as file:
        return _JSON_START.match(file.read(_PEEKED).removeprefix(codecs.BOM_UTF8)) is not None


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the number of each line, from 1, and the line without its line break.

    Raises:
        DataError: a line that is not UTF-8, or a broken gzip file.
    """
    with _open(path) as file:
        number = 0
        try:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)  # noqa: PLW2901
                yield number, line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}, line {number}: not UTF-8 ({error.reason} at byte {error.start + 1} of the line)"
            ) from error
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{path}, after line {number}: broken gzip file ({error})") from error


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    if first_bytes(path, 2) == _GZIP_MARK:
        return gzip.open(path, "rb")
    return path.open("rb")
