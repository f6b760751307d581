"""Parquet: rows by row groups, which can be passed over without being read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gliner_fast.errors import is_of_system, listed
from gliner_fast.jobs._arrow import pa, pq
from gliner_fast.jobs.arrow_types import as_labels, holds_labels, holds_strings, plain_type
from gliner_fast.jobs.block import Block, Labels, Reject
from gliner_fast.jobs.errors import JobInputError
from gliner_fast.jobs.inputs import InputFile
from gliner_fast.jobs.json_values import dump_json, read_json_rows, without_json
from gliner_fast.jobs.records import BadRow, RowCheck, expect_usable
from gliner_fast.jobs.row_labels import read_row_labels
from gliner_fast.jobs.selection import Selection

# Rows decoded at a time: few, since a row may hold a book.
_BATCH = 256
# Column chunks are read through a buffer and not ahead: by itself pyarrow takes in a row group as a whole.
_BUFFER = 2**20


def plan_parquet_schema(files: Sequence[InputFile], selection: Selection) -> pa.Schema:
    """The columns that pass through, with the types of all files: the widest, where every other fits in without loss.

    Raises:
        JobInputError: no Parquet file, a column that is needed and missing or of an unfit type, or files that differ.
    """
    planned: dict[str, tuple[pa.DataType, InputFile]] = {}
    first: tuple[InputFile, pa.Schema] | None = None
    for file in files:
        with _open(file) as opened:
            schema = opened.schema_arrow
        _expect_columns(file, schema, selection)
        if first is None:
            first = file, schema
        elif selection.kept is None and set(schema.names) != set(first[1].names):
            raise JobInputError(
                f"{first[0].path} has the columns {listed(first[1].names)} and {file.path} has "
                f"{listed(schema.names)}: name the columns to pass through"
            )
        for name in first[1].names if selection.kept is None else selection.kept:
            kind = plain_type(schema.field(name).type)
            if selection.as_objects and (fault := without_json(kind)) is not None:
                raise JobInputError(
                    f"{file.path}: the column {name!r} cannot be written as JSON ({fault}): leave it out of the "
                    "columns that pass through (--columns), or write Parquet"
                )
            planned[name] = _widest(name, planned.get(name, (kind, file)), (kind, file))
    return pa.schema([(name, kind) for name, (kind, _) in planned.items()])


def count_parquet_rows(file: InputFile) -> int:
    """Rows in the file, by its index."""
    with _open(file) as opened:
        return int(opened.metadata.num_rows)


class ParquetRows:
    """The rows of one file, read once from the start, in memory that a batch bounds; `check` may reject more."""

    def __init__(self, file: InputFile, selection: Selection, schema: pa.Schema, check: RowCheck | None = None) -> None:
        self._file = file
        self._check = check
        self._selection = selection
        self._schema = schema
        self._opened = _open(file)
        _expect_columns(file, self._opened.schema_arrow, selection)
        self._names = list(dict.fromkeys([*selection.read, *schema.names]))
        read = self._opened.schema_arrow
        self._plain_schema = pa.schema([(name, plain_type(read.field(name).type)) for name in self._names])
        self._rows: int = self._opened.metadata.num_rows
        self._row = 0
        self._next_group = 0
        self._left_in_group = 0
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._rest: pa.RecordBatch | None = None  # rows decoded and not yet given out

    @property
    def bytes_read(self) -> int:
        """The share of the file's bytes that the rows so far stand for."""
        return (self._file.size or 0) * self._row // max(1, self._rows)

    def read(self, count: int, first_row: int) -> Block:
        """Reads the next `count` rows, fewer only where the file ends; `first_row` is the next one's number."""
        first_line = self._row + 1
        end = min(self._row + count, self._rows)
        pieces = []
        while self._row < end:
            pieces.append(self._take(end - self._row))
        # Not empty_table(): lists of an extension type have no empty array.
        table = pa.Table.from_batches(pieces, None if pieces else self._opened.schema_arrow).select(self._names)
        try:
            return self._make_block(table.cast(self._plain_schema), first_line, first_row)
        except pa.ArrowException as error:
            odd = [name for name in self._names if not self._can_be_read(table.select([name]))]
            raise JobInputError(
                f"{self._file.path}, rows from {first_line:,} on: the columns {listed(odd or self._names)} cannot be "
                f"read ({error}): leave them out of the columns that pass through (--columns), or give them another "
                "type"
            ) from error

    def skip(self, count: int) -> int:
        """Passes over the next `count` rows, whole row groups without reading them; returns how many there were."""
        begin, end = self._row, min(self._row + count, self._rows)
        while self._row < end:
            missing = end - self._row
            if self._left_in_group == 0 and (group := self._rows_in_next_group()) <= missing:
                self._next_group += 1
                self._row += group
            else:
                self._take(missing)
        return end - begin

    def close(self) -> None:
        """Closes the file."""
        self._opened.close()

    def _rows_in_next_group(self) -> int:
        return int(self._opened.metadata.row_group(self._next_group).num_rows)

    def _take(self, most: int) -> pa.RecordBatch:
        """The next rows, from one up to `most`; there must be some left."""
        while self._left_in_group == 0:
            self._left_in_group = self._rows_in_next_group()
            self._batches = self._opened.iter_batches(_BATCH, row_groups=[self._next_group], columns=self._names)
            self._next_group += 1
        batch = self._decode_batch() if self._rest is None else self._rest
        piece = batch.slice(0, most)
        self._rest = batch.slice(most) if most < batch.num_rows else None
        self._left_in_group -= piece.num_rows
        self._row += piece.num_rows
        return piece

    def _decode_batch(self) -> pa.RecordBatch:
        try:
            return next(self._batches)
        except (OSError, StopIteration, pa.ArrowException) as error:
            if is_of_system(error):
                raise
            raise JobInputError(
                f"{self._file.path} is damaged in row group {self._next_group - 1} ({error}): write it anew"
            ) from error

    def _can_be_read(self, table: pa.Table) -> bool:
        try:
            _pick(table.cast(pa.schema([self._plain_schema.field(table.column_names[0])])), [])
        except pa.ArrowException:
            return False
        return True

    def _make_block(self, table: pa.Table, first_line: int, first_row: int) -> Block:
        selection = self._selection
        reasons = _find_broken_strings(table)
        whole = [position for position in range(table.num_rows) if position not in reasons]
        sound = _pick(table, whole)
        own_labels = [None] * len(whole)
        if selection.labels_column is not None:
            own_labels = sound.column(selection.labels_column).to_pylist()
        positions: list[int] = []
        texts: list[str] = []
        labels: list[Labels] = []
        for position, text, own in zip(whole, sound.column(selection.text_column).to_pylist(), own_labels, strict=True):
            try:
                row_labels = _read_row(text, own, selection)
                expect_usable(text, row_labels, self._check)
            except BadRow as error:  # noqa: PERF203  # each row for itself
                reasons[position] = str(error)
            else:
                positions.append(position)
                texts.append(text)
                if row_labels is not None:
                    labels.append(row_labels)
        path, good = self._file.path, np.array(positions, np.int64)
        return Block(
            count=table.num_rows,
            rows=first_row + good,
            texts=texts,
            labels=labels,
            columns=_pick(table, positions).select(self._schema.names).cast(self._schema),
            rejects=[
                Reject(first_row + position, path, first_line + position, reasons[position], _show_row(table, position))
                for position in sorted(reasons)
            ],
            files=[path] * len(positions),
            lines=first_line + good,
        )


def _open(file: InputFile) -> pq.ParquetFile:
    try:
        opened = pq.ParquetFile(file.path, buffer_size=_BUFFER, pre_buffer=False)
        opened.schema_arrow  # noqa: B018  # it is read here, and may be damaged, too
    except (OSError, pa.ArrowException) as error:
        if is_of_system(error):
            raise
        raise JobInputError(f"{file.path} is no Parquet file ({error}): is it cut off, or misnamed?") from error
    return opened


def _expect_columns(file: InputFile, schema: pa.Schema, selection: Selection) -> None:
    needed = [*selection.read, *(schema.names if selection.kept is None else selection.kept)]
    for name in needed:
        count = schema.names.count(name)
        if count == 0:
            raise JobInputError(
                f"{file.path} has no column {name!r} (its columns: {listed(schema.names)}): {selection.name_it(name)}"
            )
        if count > 1:
            raise JobInputError(f"{file.path} has {count} columns {name!r}: {selection.tell_apart(name)}")
    kind = schema.field(selection.text_column).type
    if not holds_strings(kind):
        raise JobInputError(f"{file.path}: the text column {selection.text_column!r} is {kind}: expected string")
    if selection.labels_column is not None:
        kind = schema.field(selection.labels_column).type
        if not holds_labels(kind):
            raise JobInputError(
                f"{file.path}: the labels column {selection.labels_column!r} is {kind}: expected list<string>, "
                "map<string, string>, a struct of strings, or string"
            )


def _read_row(text: str | None, labels: Any, selection: Selection) -> Labels | None:
    """Checks a row's text, and reads its own labels if there is a column of them."""
    if text is None:
        raise BadRow(f"{selection.text_column!r} is null: expected a string")
    if selection.labels_column is None:
        return None
    return read_row_labels(as_labels(labels), selection.labels_column)


def _find_broken_strings(table: pa.Table) -> dict[int, str]:
    """Reasons for the rows that hold a string which is not UTF-8: writers may put anything there."""
    if _is_valid(table):
        return {}
    return {
        position: f"{name!r} is not UTF-8"
        for name in reversed(table.column_names)  # the first column's reason stays
        for position in range(table.num_rows)
        if not _is_valid(_pick(table.select([name]), [position]))
    }


def _is_valid(table: pa.Table) -> bool:
    try:
        table.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _pick(table: pa.Table, positions: Sequence[int]) -> pa.Table:
    return table if len(positions) == table.num_rows else table.take(pa.array(positions, pa.int64()))


def _show_row(table: pa.Table, position: int) -> str:
    """A row as JSON; bytes that are no UTF-8 as escapes."""
    row: dict[str, Any] = {}
    for name in table.column_names:
        value = table.select([name]).slice(position, 1)
        try:
            row.update(read_json_rows(value)[0])
        except UnicodeDecodeError as error:
            row[name] = error.object.decode("utf-8", "backslashreplace")
        except ValueError as error:  # pa.ArrowInvalid is one, too
            row[name] = f"cannot be shown ({error})"
    return dump_json(row)


def _widest(
    name: str, one: tuple[pa.DataType, InputFile], other: tuple[pa.DataType, InputFile]
) -> tuple[pa.DataType, InputFile]:
    if _holds_all(one[0], other[0]):
        return one
    if _holds_all(other[0], one[0]):
        return other
    raise JobInputError(
        f"column {name!r} is {one[0]} in {one[1].path} and {other[0]} in {other[1].path}, and neither holds all values "
        "of the other: leave the column out, or give the files one type"
    )


def _holds_all(wide: pa.DataType, narrow: pa.DataType) -> bool:
    """Whether every value of the narrow type stands for itself in the wide one."""
    types = pa.types
    if wide.equals(narrow) or types.is_null(narrow):
        return True
    if types.is_integer(wide) and types.is_integer(narrow):
        signs_differ = types.is_signed_integer(wide) != types.is_signed_integer(narrow)
        return wide.bit_width > narrow.bit_width and not (signs_differ and types.is_unsigned_integer(wide))
    if types.is_floating(wide) and types.is_floating(narrow):
        return bool(wide.bit_width > narrow.bit_width)
    if types.is_float64(wide) and types.is_integer(narrow):
        return bool(narrow.bit_width <= 32)
    return bool(
        (types.is_large_string(wide) and types.is_string(narrow))
        or (types.is_large_binary(wide) and types.is_binary(narrow))
    )
