"""Input files -> their bytes, decompressed and counted, line by line."""

from __future__ import annotations

import codecs
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

from gliner_fast.errors import is_of_system
from gliner_fast.jobs._arrow import pa
from gliner_fast.jobs.errors import JobInputError
from gliner_fast.jobs.inputs import InputFile
from gliner_fast.jobs.stopping import Stop

_BUFFER = 2**18
# Compressed, a line of gigabytes takes a few megabytes of the disk, and to read it many times its length in memory.
_LONGEST_LINE = 2**28
# Bytes of a longer line that are kept, for people to know it by.
_LONGEST_CUT = 1000


class CutLine(bytes):
    """The beginning of a line that is too long to be a row, with an ellipsis for the rest, which is passed over."""

    __slots__ = ()

    @property
    def fault(self) -> str:
        """Why it is no row."""
        return f"a line of more than {_LONGEST_LINE:,} bytes, too long to be read: break it up"


class ByteStream:
    """One pass over an input's lines, in memory that the longest line bounds, up to `_LONGEST_LINE`."""

    def __init__(self, file: InputFile, stop: Stop | None = None) -> None:
        """Opens an input; once `stop` is set, nothing more is taken from standard input."""
        self._file = file
        self._opened = _open(file)
        self._counted = _CountedFile(self._opened, stop if file.is_stdin else None)
        self._plain = self._counted  # what leaves the decompressor, if there is one
        if file.compression == "gzip":
            # Not pyarrow's, which takes the zeros that tapes and some tools put behind a file for a broken one.
            self._plain = _CountedFile(gzip.GzipFile(fileobj=self._counted))
        elif file.compression is not None:
            # pyarrow's own type is no io.RawIOBase to the type checker.
            decompressed: Any = pa.CompressedInputStream(pa.PythonFile(self._counted, "r"), file.compression)
            self._plain = _CountedFile(decompressed)
        self._buffer = io.BufferedReader(self._plain, _BUFFER)
        self._given = 0  # bytes of the lines so far

    @property
    def bytes_read(self) -> int:
        """The bytes on the disk that the lines so far stand for, without those that wait in buffers."""
        return self._counted.count * self._given // max(1, self._plain.count)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yields the number of each line, from 1, and the line with its line break; a byte order mark is dropped.

        Of a line that is too long there is a `CutLine`.

        Raises:
            JobInputError: broken compression, or UTF-16.
            OSError: the disk cannot be read.
            InputStopped: standard input is left; what has come of the next line is dropped.
        """
        try:
            longest = _LONGEST_LINE
            # Some 40 ns a line more than to iterate over the buffer, which would take a line of any length.
            for number, line in enumerate(iter(partial(self._buffer.readline, longest), b""), start=1):
                size = len(line)
                self._given += size
                content = self._drop_mark(line) if number == 1 else line
                if size == longest and self._pass_over_rest(line):
                    content = CutLine(content[:_LONGEST_CUT] + b"...")
                if content:  # a file that holds but a mark is empty
                    yield number, content
        except (OSError, EOFError, zlib.error) as error:
            if is_of_system(error):
                raise
            raise JobInputError(
                f"{self._file.name} cannot be decompressed as {self._file.compression} ({error}): is it cut off, or "
                "misnamed?"
            ) from error

    def close(self) -> None:
        """Closes the file; standard input, which is not ours, stays open."""
        if not self._file.is_stdin:
            self._opened.close()

    def _pass_over_rest(self, line: bytes) -> bool:
        """Reads on to the end of a line that has come in part; whether there was more of it."""
        piece, had_more = line, False
        while not piece.endswith(b"\n") and (piece := self._buffer.readline(_BUFFER)):
            self._given += len(piece)
            had_more = True
        return had_more

    def _drop_mark(self, line: bytes) -> bytes:
        if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise JobInputError(
                f"{self._file.name} is UTF-16: expected UTF-8, such as iconv -f UTF-16 -t UTF-8 makes of it"
            )
        return line.removeprefix(codecs.BOM_UTF8)


def _open(file: InputFile) -> IO[bytes]:
    if not file.is_stdin:
        return Path(file.path).open("rb", buffering=0)
    if sys.stdin is None:
        raise JobInputError("standard input is closed: give a file, or leave it open")
    return sys.stdin.buffer


class _CountedFile(io.RawIOBase):
    """Counts what is read of a file, for the time that is left: a decompressor does not tell."""

    def __init__(self, source: Any, stop: Stop | None = None) -> None:
        self.count = 0
        self._stop = stop
        self._source = source
        # Of standard input take what is there: waiting for a full buffer would hold back the rows of a slow pipe.
        self._read_into = getattr(source, "readinto1", source.readinto)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._stop is not None and not hasattr(self._source, "peek"):  # what stands for standard input may have none
            if self._stop.is_set():
                self._stop.cut_input()
        elif self._stop is not None:
            # A look takes nothing out, so that whatever interrupts it loses nothing.
            seen = self._stop.wait_for(self._look)
            if seen:
                buffer = memoryview(buffer)[: len(seen)]  # for more it would wait
            elif self._source.isatty():  # would be asked for its end once more
                return 0
        count: int = self._read_into(buffer)
        self.count += count
        return count

    def _look(self) -> bytes:
        seen: bytes = self._source.peek(1)
        return seen
