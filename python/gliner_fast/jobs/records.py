"""Formats that come line by line: records of a file -> rows, with those that are broken set apart."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from gliner_fast.jobs.block import Block, Columns, Labels, Reject
from gliner_fast.jobs.byte_stream import ByteStream, CutLine
from gliner_fast.jobs.inputs import InputFile
from gliner_fast.jobs.stopping import InputStopped, Stop

# Says why a row of this text and these labels of its own, if any, cannot be used; None: it can.
RowCheck: TypeAlias = Callable[[str, Labels | None], str | None]


class BadRow(Exception):  # noqa: N818  # no failure of the program: it becomes a reject
    """A row that cannot be used; the message is the reason."""


class Record(NamedTuple):
    """What a file has for one row, not yet looked into.

    Attributes:
        line: its first line, from 1.
        raw: its bytes, line breaks included; a `CutLine` for a line that is too long.
        fields: a CSV record's values; its borders are known only once it is parsed.
        fault: why it is no CSV record.
    """

    line: int
    raw: bytes
    fields: Sequence[str] = ()
    fault: str | None = None


class Row(NamedTuple):
    """A good row: its text, its own labels if there is a labels column, and its values that pass through."""

    text: str
    labels: Labels | None
    kept: Any


class RecordFormat(Protocol):
    """How a format's records are told apart, read and put together again."""

    def split(self, stream: ByteStream) -> Iterator[Record]:
        """Yields the records of a file; what is no row, such as a blank line of JSON lines, is left out."""

    def parse(self, record: Record) -> Row:
        """Reads one record.

        Raises:
            BadRow: it cannot be used.
        """

    def gather(self, kept: list[Any]) -> Columns:
        """Makes columns of what rows keep."""


class RecordReader:
    """The rows of one file of records, read once from the start; `check` may reject more of them.

    Once `stop` is set, standard input ends with what was taken of it.
    """

    def __init__(
        self,
        file: InputFile,
        record_format: RecordFormat,
        check: RowCheck | None = None,
        stop: Stop | None = None,
    ) -> None:
        self.format = record_format
        self._path = file.path
        self._check = check
        self._stream = ByteStream(file, stop)
        self._records = _until_stopped(record_format.split(self._stream))

    @property
    def bytes_read(self) -> int:
        """Bytes taken from the disk so far."""
        return self._stream.bytes_read

    def peek(self, count: int) -> list[Record]:
        """The next records, up to `count`; they will be read again."""
        head = list(islice(self._records, count))
        self._records = chain(head, self._records)
        return head

    def read(self, count: int, first_row: int) -> Block:
        """Reads the next `count` rows, fewer only where the file ends; `first_row` is the next one's number."""
        numbers, lines, rows, rejects = [], [], [], []
        for number, record in enumerate(islice(self._records, count), start=first_row):
            try:
                if type(record.raw) is CutLine:
                    raise BadRow(record.raw.fault)  # noqa: TRY301  # a function would cost a call a row
                row = self.format.parse(record)
                expect_usable(row.text, row.labels, self._check)
            except BadRow as error:  # noqa: PERF203  # each row for itself
                rejects.append(Reject(number, self._path, record.line, str(error), show_raw(record.raw)))
            else:
                numbers.append(number)
                lines.append(record.line)
                rows.append(row)
        return Block(
            count=len(rows) + len(rejects),
            rows=np.array(numbers, np.int64),
            texts=[row.text for row in rows],
            labels=[row.labels for row in rows if row.labels is not None],
            columns=self.format.gather([row.kept for row in rows]),
            rejects=rejects,
            files=[self._path] * len(rows),
            lines=np.array(lines, np.int64),
        )

    def skip(self, count: int) -> int:
        """Passes over the next `count` rows without looking into them; returns how many there were."""
        return sum(1 for _ in islice(self._records, count))

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()


def _until_stopped(records: Iterator[Record]) -> Iterator[Record]:
    with suppress(InputStopped):
        yield from records


def expect_usable(text: str, labels: Labels | None, check: RowCheck | None) -> None:
    """Raises BadRow for what a check refuses."""
    if check is not None and (reason := check(text, labels)) is not None:
        raise BadRow(reason)


def decode(raw: bytes) -> str:
    """Decodes a line.

    Raises:
        BadRow: it is not UTF-8.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRow(
            f"not UTF-8: {error.reason} at byte {error.start + 1} of the row (0x{raw[error.start]:02x})"
        ) from error


def expect_whole_characters(values: Any) -> None:
    """Checks JSON values for halves of characters, which JSON can escape but no UTF-8 can hold.

    Raises:
        BadRow: there is one, in a key or a value.
    """
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        code = ord(error.object[error.start])
        raise BadRow(f"\\u{code:04x} is half a character (a lone surrogate), which no text can hold") from error


def drop_line_break(line: bytes) -> bytes:
    """The line without its break, in the manner of Unix or of Windows."""
    return line.removesuffix(b"\n").removesuffix(b"\r")


def show_raw(raw: bytes) -> str:
    r"""A line as people can read it; bytes that are no UTF-8 as escapes such as \xff."""
    return drop_line_break(raw).decode("utf-8", "backslashreplace")
