"""Standard streams that the caller closed, or that take nothing more."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class _Closed(io.TextIOBase):
    """Stands for a closed standard output: a command that writes nothing there needs none."""

    @property
    def buffer(self) -> Any:
        """The bytes beneath.

        Raises:
            OSError: always.
        """
        raise _closed()

    def write(self, text: str) -> int:  # noqa: ARG002  # as any stream has it
        """Writes nothing.

        Raises:
            OSError: always.
        """
        raise _closed()


def _closed() -> OSError:
    return OSError("standard output is closed, and the answers go there: leave it open, or send it to a file (> FILE)")


NAME = "standard output"


class _Named:
    """Standard output, whose errors say what it was that took nothing more; all else is the stream's own."""

    def __init__(self, stream: Any) -> None:
        self._stream = self._taker = stream
        buffer = None if isinstance(stream, _Closed) else getattr(stream, "buffer", None)
        self._is_unbuffered = isinstance(buffer, io.RawIOBase)
        if isinstance(buffer, io.RawIOBase):
            # `python -u`: a write may end midway (a full disk, a pipe that does not wait), and nothing would tell.
            coding = {"encoding": stream.encoding, "errors": stream.errors}
            self._taker = os.fdopen(buffer.fileno(), "w", closefd=False, **coding)

    def __getattr__(self, name: str) -> Any:
        """Whatever is not here."""
        return getattr(self._stream, name)

    @property
    def buffer(self) -> Any:
        """The bytes beneath."""
        return _Named(self._taker.buffer)

    def write(self, data: Any) -> Any:
        """Writes, as the stream does; what its encoding has no bytes for is escaped, as on standard error."""
        try:
            written = _naming(self._taker.write, data)
        except UnicodeEncodeError as error:
            escaped = data.encode(error.encoding, "backslashreplace").decode(error.encoding)
            written = _naming(self._taker.write, escaped)
        if self._is_unbuffered:
            self.flush()
        return written

    def writelines(self, lines: Iterable[Any]) -> None:
        """Writes each; what the lines themselves raise is not the stream's."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Brings out what waits in the buffer."""
        _naming(self._taker.flush)


def _naming(write: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return write(*arguments)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, NAME) from error


@contextmanager
def mended() -> Iterator[None]:
    """Puts something in the place of each standard stream that is closed, which Python has as None.

    Errors of standard output name it, and where it takes nothing more, Python does not try again at its end.
    """
    if sys.stderr is None:  # print would write to standard output in its place
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # for as long as the process lives
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = _Closed()
    stdout, named = sys.stdout, _Named(sys.stdout)
    sys.stdout = named
    try:
        yield
    finally:
        if sys.stdout is named:
            sys.stdout = stdout


def flush() -> bool:
    """Brings to standard output what waits in its buffer; False where its reader has gone.

    Raises:
        OSError: it takes nothing more; names it.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        give_up()
        return False
    return True


def give_up() -> None:
    """Takes standard output away, if it has failed: Python would flush it once more at its end, and complain."""
    sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
