"""Files that are whole or absent, whatever moment the process dies at: written aside, synced and renamed."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_aside(path: Path, part: Path, write: Callable[[Path], Any]) -> None:
    """Has `write` fill `part`, on the same file system, and gives it the name `path` once it is on the disk.

    Raises:
        OSError: it cannot be written. Nothing half written stays, and an earlier file stays as it was.
    """
    try:
        write(part)
        sync(part)
        part.replace(path)
        sync(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file in the place of an earlier one, with its permissions; where it is a link, what that leads to.

    Raises:
        OSError: it cannot be written; names it. An earlier file stays as it was.
    """

    def write(part: Path) -> None:
        part.write_bytes(content)
        if target.exists():
            shutil.copymode(target, part)

    try:
        target = path.resolve()
        if target.exists() and not target.is_file():  # a pipe or a device must not become a file
            target.write_bytes(content)
        else:
            write_aside(target, target.with_name(f"{secrets.token_hex(6)}.part"), write)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def errors_of_system(path: Path) -> Iterator[None]:
    """Has what the system refuses be an OSError that names the file, as writers of tensors do not have it.

    Raises:
        OSError: in the place of safetensors' error, and of torch's where it writes to a file that Python opened.
    """
    try:
        yield
    except Exception as error:
        by_rust = re.search(r"(?:\(os error |Os \{ code: )(\d+)", str(error))  # the second until safetensors 0.6
        cause = error if isinstance(error, OSError) else error.__context__
        number = int(by_rust[1]) if by_rust else cause.errno if isinstance(cause, OSError) else None
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def sync(path: Path) -> None:
    """Brings a file, or the names in a folder, to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders, and needs no such sync
    # Windows syncs no file that is open for reading alone.
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
