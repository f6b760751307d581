"""One process at a time works at a job."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from gliner_fast.jobs.aside import write_aside
from gliner_fast.jobs.errors import JobError

if TYPE_CHECKING:
    from filelock import FileLock

# Of the file that names the holder: more than a number and the name of a machine.
_LONGEST_HOLDER = 200


class JobLock:
    """The lock of a job's folder, which goes with the process that holds it."""

    def __init__(self, folder: Path, output: Path) -> None:
        """A lock in the job's `folder`; the `output` is named to whom it is refused."""
        self._lock_file = folder / "lock"
        self._holder_file = folder / "holder"
        self._output = output
        self._lock: FileLock | None = None

    @property
    def files(self) -> tuple[Path, Path]:
        """What is locked, and what says who has locked it."""
        return self._lock_file, self._holder_file

    def take(self) -> None:
        """Takes the lock, in a folder that is there.

        Raises:
            JobError: another process has it; names that.
            OSError: the folder cannot be written.
        """
        from filelock import FileLock, Timeout

        self._lock = FileLock(self._lock_file)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise JobError(f"{self._output} is being written by another process{self._holder()}: wait") from error
        holder = f"{os.getpid()} on {socket.gethostname()}"
        try:
            write_aside(self._holder_file, lambda path: path.write_text(holder, encoding="utf-8"))
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Gives the lock back, where it was taken."""
        if self._lock is not None:
            self._lock.release()

    def _holder(self) -> str:
        """Who holds the lock, in brackets; nothing where that is not known."""
        try:
            if not self._holder_file.is_file():  # a pipe would be waited for
                return ""
            with self._holder_file.open(encoding="utf-8", errors="backslashreplace") as stream:
                holder = stream.read(_LONGEST_HOLDER)
        except OSError:
            return ""
        # Whoever can write there could have put in what moves the terminal's cursor.
        return f" ({''.join(char if char.isprintable() else repr(char)[1:-1] for char in holder)})"
