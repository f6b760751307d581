"""Folders and globs -> what is in them: a folder that cannot be read is an error, since its rows would be missing."""

from __future__ import annotations

import errno
import fnmatch
import glob
import os
from collections.abc import Iterator
from pathlib import Path

# What is simply not there, or no folder: such names go by no glob.
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


def files_below(folder: Path) -> list[Path]:
    """All files of a folder and its subfolders, sorted; what links lead to, too.

    Names that begin with "." or "_" are passed over, and folders with such names are not looked into.

    Raises:
        OSError: a folder cannot be read; names it.
    """
    return sorted(Path(name) for name, is_folder in _walk(str(folder), hidden=(".", "_")) if not is_folder)


def files_by_glob(pattern: str) -> list[str]:
    """The files that go by a glob, sorted, as `glob.glob` finds them; no folder is gone through twice by one `**`.

    Raises:
        OSError: a folder on the way cannot be read; names it.
    """
    return sorted(name for name in set(_by_glob(pattern)) if name and not Path(name).is_dir())


def _by_glob(pattern: str) -> Iterator[str]:
    """Files and folders, from left to right; `glob.glob` passes over what it cannot read."""
    above, last = os.path.split(pattern)
    if above == pattern:  # the root, or a drive
        folders = [above]
    elif glob.has_magic(above):
        folders = list(dict.fromkeys(_by_glob(above)))
    else:
        folders = [above]
    for folder in folders:
        if last == "**":
            yield from (name for name, _ in _walk(folder, hidden=(".",)))
        elif glob.has_magic(last):
            names = (entry.name for entry in _entries(folder, may_be_absent=True))
            shown = (name for name in names if last.startswith(".") or not name.startswith("."))
            yield from (os.path.join(folder, name) for name in fnmatch.filter(shown, last))  # noqa: PTH118  # as given
        elif _is_there(name := os.path.join(folder, last)):  # noqa: PTH118
            yield name


def _walk(start: str, hidden: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
    """Yields a folder and all that is below it, and whether it is a folder.

    Links to folders are followed once the other folders are done, and no folder is looked into twice, whatever leads
    to it: a link may lead back to where it lies, and rows must not come twice.
    """
    if not Path(start).is_dir():
        return
    folders, links = [start], list[str]()
    seen = set()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        status = os.stat(folder or ".")  # noqa: PTH116
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        yield folder, True
        for entry in _entries(folder):
            name = os.path.join(folder, entry.name)  # noqa: PTH118
            if entry.name.startswith(hidden):
                continue
            if not _is_folder(entry, name):
                yield name, False
            elif entry.is_symlink():
                links.append(name)
            else:
                folders.append(name)


def _entries(folder: str, *, may_be_absent: bool = False) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder or ".") as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if may_be_absent and error.errno in _ABSENT:
            return []
        raise _unreadable(folder or ".", error) from error


def _is_folder(entry: os.DirEntry[str], name: str) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno in _ABSENT:
            return False
        raise _unreadable(name, error) from error


def _is_there(name: str) -> bool:
    try:
        os.lstat(name)
    except OSError as error:
        if error.errno in _ABSENT:
            return False
        raise _unreadable(name, error) from error
    return True


def _unreadable(name: str, error: OSError) -> OSError:
    reason = f"{error.strerror}, and rows would be missing: make it readable, or name inputs that leave it out"
    return OSError(error.errno, reason, name)
