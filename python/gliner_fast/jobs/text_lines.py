"""Plain text: every line is a row, blank ones too."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from gliner_fast.errors import listed
from gliner_fast.jobs._arrow import pa
from gliner_fast.jobs.byte_stream import ByteStream
from gliner_fast.jobs.errors import JobInputError
from gliner_fast.jobs.inputs import InputFile
from gliner_fast.jobs.json_lines import fields_of
from gliner_fast.jobs.records import Record, Row, decode, drop_line_break
from gliner_fast.jobs.selection import Selection


def plan_text_schema(file: InputFile, selection: Selection) -> pa.Schema:
    """The one column that plain text has, if it passes through.

    Raises:
        JobInputError: another column is asked for.
    """
    asked = [*selection.read, *(selection.kept or [])]
    for name in asked:
        if name != selection.text_column:
            raise JobInputError(
                f"{file.name} is plain text, which has no column {name!r}, only its lines as "
                f"{selection.text_column!r}: use JSON lines, CSV or Parquet"
            )
    kept = [selection.text_column] if selection.kept is None else selection.kept
    return pa.schema([(name, pa.string()) for name in kept])


def expect_no_json_lines(first: Record, selection: Selection) -> None:
    """Asks whether standard input, of whose format nothing was said, is JSON lines; warns where it may be.

    Raises:
        JobInputError: it must be: its first line is an object, with the text's field or for a job that named one.
    """
    fields = fields_of(first)
    if fields is None:
        return
    found = (
        "standard input is read as plain text, where nothing says otherwise, and its first line is a JSON object"
        f" (its fields: {listed(fields) or 'none'})"
    )
    is_named = selection.text_column != Selection.text_column
    if is_named or selection.text_column in fields:
        raise JobInputError(
            f"{found}, while the text is in {selection.text_column!r}: give --input-format jsonl, or --input-format "
            "text if whole lines are the texts"
        )
    warnings.warn(f"{found}: give --input-format jsonl and --text-column if each line is one", stacklevel=2)


class TextLines:
    """Reads lines of plain text."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema

    def split(self, stream: ByteStream) -> Iterator[Record]:
        """Yields every line."""
        return (Record(number, line) for number, line in stream.lines())

    def parse(self, record: Record) -> Row:
        """The line is the text.

        Raises:
            BadRow: it is not UTF-8.
        """
        text = decode(drop_line_break(record.raw))
        return Row(text, None, text)

    def gather(self, kept: list[str]) -> pa.Table:
        """The texts, if they pass through."""
        return pa.Table.from_arrays([pa.array(kept, pa.string()) for _ in self._schema], schema=self._schema)
