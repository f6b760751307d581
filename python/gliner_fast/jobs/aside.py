"""Files that are whole or absent, and errors of the disk that say what becomes of the job."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gliner_fast import whole_files


def write_aside(path: Path, write: Callable[[Path], Any], part: Path | None = None) -> None:
    """Has `write` fill a file beside `path`, or that of the name `part`, and renames it once it is on the disk.

    Raises:
        OSError: it cannot be written; names the file. Nothing half written stays.
    """
    with errors_naming(path):
        whole_files.write_aside(path, part or path.with_name(f"{path.name}.{secrets.token_hex(6)}.part"), write)


# What the same call would meet again, and what to do about it.
_LASTING = {
    errno.ENAMETOOLONG: "but the name needs to be shorter",
    errno.EACCES: "and the same call goes on once it may be written",
    errno.EPERM: "and the same call goes on once it may be written",
    errno.EROFS: "and the same call goes on once it may be written",
}


@contextmanager
def errors_naming(path: Path) -> Iterator[None]:
    """Has errors of the disk name the file, which those of a write do not, and say what becomes of the job."""
    try:
        yield
    except OSError as error:
        way_on = _LASTING.get(error.errno or 0, "and the same call goes on from there")
        reason = f"{error.strerror or error}; what is finished stays, {way_on}"
        raise OSError(error.errno, reason, str(path)) from error
