"""JSON lines: every line that is not blank is a row, an object."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from gliner_fast.errors import shown
from gliner_fast.jobs._arrow import pa
from gliner_fast.jobs.block import Columns
from gliner_fast.jobs.byte_stream import ByteStream
from gliner_fast.jobs.errors import JobInputError
from gliner_fast.jobs.json_columns import JsonColumns, plan_json_columns
from gliner_fast.jobs.records import (
    BadRow,
    Record,
    Row,
    decode,
    drop_line_break,
    expect_whole_characters,
)
from gliner_fast.jobs.row_labels import read_row_labels
from gliner_fast.jobs.selection import Selection

# Deeper values would break the interpreter's stack somewhere on their way, sooner on a deep stack than on a flat one:
# the same row must be good everywhere.
_MAX_DEPTH = 200


def plan_json_schema(records: Sequence[Record], selection: Selection) -> pa.Schema:
    """Decides the columns that pass through, and their types, from the first records that can be used."""
    reader = JsonLines(replace(selection, reserved=()), None)
    rows: list[dict[str, Any]] = []
    for record in records:
        with suppress(BadRow):
            rows.append(reader.parse(record).kept)
    return plan_json_columns(rows, selection.kept)


def fields_of(record: Record) -> list[str] | None:
    """The names of the fields of a line that holds a JSON object; None for any other line."""
    try:
        return list(_read_object(record.raw))
    except BadRow:
        return None


class JsonFields:
    """The fields of the first rows: they tell a wrong name, which no row has, from bad rows."""

    def __init__(self, selection: Selection, place: str) -> None:
        """Begins with no row; `place` is where they all come from, for messages."""
        self._selection = selection
        self._place = place
        self._seen: dict[str, None] = {}

    def add(self, records: Iterable[Record], place: str) -> None:
        """Looks at some more rows, of a file whose name messages give.

        Raises:
            JobInputError: they have a field of the name of one that the output adds.
        """
        seen: dict[str, None] = {}
        for record in records:
            with suppress(BadRow):
                seen |= dict.fromkeys(_read_object(record.raw))
        kept = self._selection.kept
        for name in self._selection.reserved:
            if name in (seen if kept is None else kept):
                raise JobInputError(
                    f"{place}: the rows have a field {name!r}, the name of one that the output adds: leave it "
                    "out of the columns that pass through, or rename either"
                )
        self._seen |= seen

    def expect_all(self) -> None:
        """Asks whether what is read was there, now that enough rows were looked at; warns of what passes through.

        Raises:
            JobInputError: no row had a field that every row needs.
        """
        if not self._seen:
            return
        fields = ", ".join(map(repr, self._seen))
        for name in self._selection.read:
            if name not in self._seen:
                raise JobInputError(
                    f"{self._place}: no row has a field {name!r}; the first rows have {fields}: "
                    f"{self._selection.name_it(name)}"
                )
        for name in self._selection.kept or ():
            if name not in self._seen:
                warnings.warn(
                    f"{self._place}: none of the first rows has a field {name!r}; they have {fields}", stacklevel=2
                )


class JsonLines:
    """Reads JSON lines; their values pass through in the columns of a schema or, without one, as objects."""

    def __init__(self, selection: Selection, schema: pa.Schema | None) -> None:
        self._selection = selection
        self._kept = selection.kept
        self._reserved = frozenset(selection.reserved)
        self._columns = None if schema is None else JsonColumns(schema, is_closed=self._kept is None)

    def split(self, stream: ByteStream) -> Iterator[Record]:
        """Yields every line that is not blank."""
        return (Record(number, line) for number, line in stream.lines() if line.strip())

    def parse(self, record: Record) -> Row:
        """Reads the line's object.

        Raises:
            BadRow: no JSON object, no text in it, wrong labels, or values that the output cannot hold.
        """
        values = _read_object(record.raw)
        selection = self._selection
        text = self._field(values, selection.text_column)
        if not isinstance(text, str):
            raise BadRow(f"{selection.text_column!r} is {'null' if text is None else shown(text)}: expected a string")
        labels = None
        if selection.labels_column is not None:
            labels = read_row_labels(self._field(values, selection.labels_column), selection.labels_column)
        if selection.id_column is not None:
            self._field(values, selection.id_column)
        kept = values if self._kept is None else {name: values[name] for name in self._kept if name in values}
        if b"\\ud" in record.raw or b"\\uD" in record.raw:
            expect_whole_characters([text, kept])
        if self._columns is not None:
            return Row(text, labels, self._columns.read(kept))
        for name in self._reserved.intersection(kept):
            raise BadRow(
                f"it has a field {name!r}, the name of one that the output adds: leave it out, or rename either"
            )
        return Row(text, labels, kept)

    def gather(self, kept: list[Any]) -> Columns:
        """A table in the planned schema, or the objects."""
        return kept if self._columns is None else self._columns.gather(kept)

    def _field(self, values: Mapping[str, Any], name: str) -> Any:
        try:
            return values[name]
        except KeyError:
            fields = ", ".join(map(repr, values)) or "none"
            raise BadRow(f"this row has no field {name!r} (its fields: {fields})") from None


def _read_object(raw: bytes) -> dict[str, Any]:
    line = decode(drop_line_break(raw))
    try:
        values = (_CAREFUL_DECODER if _MAY_OVERFLOW.search(raw) else _DECODER).decode(line)
    except json.JSONDecodeError as error:
        raise BadRow(f"not JSON: {error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise BadRow(_TOO_DEEP) from error
    except ValueError as error:  # a whole number of more than 4,300 digits
        raise BadRow(f"not to be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise BadRow(f'{shown(values)} is no JSON object: expected one such as {{"text": "..."}}')
    if raw.count(b"[") + raw.count(b"{") > _MAX_DEPTH and _depth(values) > _MAX_DEPTH:
        raise BadRow(_TOO_DEEP)
    return values


_TOO_DEEP = f"JSON values are nested more than {_MAX_DEPTH} deep"


def _refuse_constant(name: str) -> None:
    raise BadRow(f"not JSON: {name} is no number there; expected null")


def _read_finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise BadRow(
            f"not to be read as JSON: {digits if len(digits) <= 80 else 'a number'} is beyond what doubles hold"
        )
    return number


# Made once: json.loads would make one for each line. That which looks at each number is slower, and is taken where a
# line holds the digits of one that could be infinite.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_CAREFUL_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_read_finite)
_MAY_OVERFLOW = re.compile(rb"\d[eE]\+?\d{3}|\d{200}")


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            item
            for outer in level
            for item in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(item, (dict, list))
        ]
    return depth
