"""Input files -> their rows as one sequence, in blocks."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import closing

import numpy as np

from gliner_fast.jobs._arrow import pa
from gliner_fast.jobs.block import Block, Columns
from gliner_fast.jobs.csv_records import CsvRecords, plan_csv_schema
from gliner_fast.jobs.errors import JobInputError
from gliner_fast.jobs.inputs import InputFile
from gliner_fast.jobs.json_lines import JsonFields, JsonLines, plan_json_schema
from gliner_fast.jobs.parquet_rows import ParquetRows, count_parquet_rows, plan_parquet_schema
from gliner_fast.jobs.records import Record, RecordReader, RowCheck
from gliner_fast.jobs.selection import Selection
from gliner_fast.jobs.stopping import Stop
from gliner_fast.jobs.text_lines import TextLines, expect_no_json_lines, plan_text_schema

__all__ = ["SAMPLE", "RowReader", "Selection", "count_rows", "plan_schema"]

# Rows of JSON lines that decide the types of columns.
SAMPLE = 1000

_Reader = RecordReader | ParquetRows


def plan_schema(files: Sequence[InputFile], selection: Selection) -> str | None:
    """Decides the columns that pass through, and checks that all files have what is needed.

    Returns:
        Their Arrow schema, as text. None where JSON lines pass through as objects, and for standard input, whose reader
        decides on its own when the first rows are there.

    Raises:
        JobInputError: a file that cannot be read or lacks a column, files that differ, or a column of a reserved name.
    """
    if files[0].is_stdin:
        return None
    if files[0].format == "jsonl":
        _expect_fields(_read_sample(files, selection), selection)
        if selection.as_objects:
            return None
    schema = _plan(files, selection)
    _expect_no_reserved(schema, selection)
    return base64.b64encode(schema.serialize().to_pybytes()).decode("ascii")


def count_rows(files: Sequence[InputFile], selection: Selection) -> int:
    """Rows of all files: of Parquet by its index, of others by reading, without looking into rows.

    Raises:
        JobInputError: a file that cannot be read, or standard input, which can be read once only.
    """
    if files[0].is_stdin:
        raise JobInputError("the rows of standard input cannot be counted before they are read: give a file")
    count = 0
    for file in files:
        if file.format == "parquet":
            count += count_parquet_rows(file)
        else:
            with closing(_open(file, selection, pa.schema([]))) as reader:
                while skipped := reader.skip(2**20):
                    count += skipped
    return count


class RowReader:
    """The rows of all files, numbered from 0, read once from the start.

    Memory is bounded by a block and by the files' own longest line (up to 2**28 bytes) or largest page, never by their
    size.

    Attributes:
        bytes_total: of all files, as they lie on the disk; 0 for standard input.
        schema: of the columns that pass through; None where they pass as objects.
    """

    def __init__(
        self,
        files: Sequence[InputFile],
        selection: Selection,
        schema: str | None = None,
        check: RowCheck | None = None,
        stop: Stop | None = None,
    ) -> None:
        """Opens the first file.

        Args:
            files: of one format.
            selection: what is read of each row.
            schema: as `plan_schema` gave it; None plans it now.
            check: rejects rows that could be read.
            stop: once set, standard input ends with what was taken of it; other files are read on.

        Raises:
            JobInputError: the first file cannot be read, or lacks a column; or standard input, of whose format nothing
                was said, is JSON lines.
        """
        self.bytes_total = sum(file.size or 0 for file in files)
        self._files = files
        self._selection = selection
        self._check = check
        self._stop = stop
        self._next_file = 0
        self._reader: _Reader | None = None
        self._bytes_finished = 0
        self._row = 0
        self._fields: JsonFields | None = None  # of standard input, as long as they are looked at as they come
        self.schema: pa.Schema | None = None
        if schema is not None:
            self.schema = _read_schema(schema)
        elif files[0].is_stdin:
            self._plan_standard_input()
        elif not (files[0].format == "jsonl" and selection.as_objects):
            self.schema = _plan(files, selection)
        if self.schema is not None:
            _expect_no_reserved(self.schema, selection)

    @property
    def bytes_read(self) -> int:
        """Bytes of the files behind the rows so far, as they lie on the disk."""
        return self._bytes_finished + (0 if self._reader is None else self._reader.bytes_read)

    def read(self, count: int) -> Block:
        """Reads the next `count` rows, fewer only where the input ends; none at all is a block of no rows.

        Raises:
            JobInputError: a file is damaged, or the first `SAMPLE` rows of standard input all lack a field.
            OSError: it cannot be read.
        """
        if self._fields is not None:
            self._look_at_fields(self._fields, count)
        first_row = self._row
        parts: list[Block] = []  # one for each file that is reached
        while (missing := count - (self._row - first_row)) and (reader := self._current()) is not None:
            parts.append(reader.read(missing, self._row))
            self._advance(parts[-1].count, missing)
        has_labels = self._selection.labels_column is not None
        none = np.zeros(0, np.int64)
        return Block(
            count=self._row - first_row,
            rows=np.concatenate([none, *(part.rows for part in parts)]),
            texts=[text for part in parts for text in part.texts],
            labels=[own for part in parts for own in part.labels or ()] if has_labels else None,
            columns=self._join([part.columns for part in parts]),
            rejects=[reject for part in parts for reject in part.rejects],
            files=[path for part in parts for path in part.files],
            lines=np.concatenate([none, *(part.lines for part in parts)]),
        )

    def skip(self, count: int) -> int:
        """Passes over the next `count` rows, cheaper than `read`; returns how many there were."""
        first_row = self._row
        while (missing := count - (self._row - first_row)) and (reader := self._current()) is not None:
            self._advance(reader.skip(missing), missing)
        return self._row - first_row

    def close(self) -> None:
        """Closes the file that is open."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _current(self) -> _Reader | None:
        """The reader of the file that is open, or else of the next; None behind the last."""
        if self._reader is None and self._next_file < len(self._files):
            self._reader = self._open(self._files[self._next_file])
            self._next_file += 1
        return self._reader

    def _open(self, file: InputFile) -> _Reader:
        return _open(file, self._selection, self.schema, self._check, self._stop)

    def _advance(self, count: int, asked: int) -> None:
        self._row += count
        if count < asked:
            self.close()
            self._bytes_finished += self._files[self._next_file - 1].size or 0

    def _join(self, columns: Sequence[Columns]) -> Columns:
        if self.schema is None:
            return [row for rows in columns for row in rows]
        # Parts have the schema. Not empty_table(): lists of an extension type have no empty array.
        return pa.concat_tables(columns) if columns else pa.Table.from_batches([], self.schema)

    def _look_at_fields(self, fields: JsonFields, count: int) -> None:
        """Checks the fields of the rows that are read next, no others: who sends rows may wait for the answers."""
        assert isinstance(self._reader, RecordReader), "standard input is open until its rows end"
        head = self._reader.peek(count)
        fields.add(head, self._files[0].name)
        if len(head) < count or self._row + len(head) >= SAMPLE:
            fields.expect_all()
            self._fields = None

    def _plan_standard_input(self) -> None:
        """Decides on columns by the first rows, which stay to be read."""
        if self._files[0].format == "text":
            self.schema = plan_text_schema(self._files[0], self._selection)
        reader = self._open(self._files[0])
        assert isinstance(reader, RecordReader), "Parquet is not read from standard input"
        self._reader, self._next_file = reader, 1
        if isinstance(reader.format, TextLines):
            for first in reader.peek(1) if self._files[0].is_assumed else ():
                expect_no_json_lines(first, self._selection)
        elif isinstance(reader.format, CsvRecords):
            reader.peek(1)
            self.schema = reader.format.schema
        elif self._selection.as_objects:
            self._fields = JsonFields(self._selection, self._files[0].name)
        else:
            sample = reader.peek(SAMPLE)
            _expect_fields([(self._files[0], sample)], self._selection)
            self.schema = plan_json_schema(sample, self._selection)
            reader.format = JsonLines(self._selection, self.schema)


def _open(
    file: InputFile,
    selection: Selection,
    schema: pa.Schema | None,
    check: RowCheck | None = None,
    stop: Stop | None = None,
) -> _Reader:
    if file.format == "jsonl":
        return RecordReader(file, JsonLines(selection, schema), check, stop)
    if file.format in {"csv", "tsv"}:
        return RecordReader(file, CsvRecords(file, selection, schema), check, stop)
    assert schema is not None, "the columns of plain text and Parquet are planned before they are opened"
    if file.format == "text":
        return RecordReader(file, TextLines(schema), check, stop)
    return ParquetRows(file, selection, schema, check)


def _plan(files: Sequence[InputFile], selection: Selection) -> pa.Schema:
    file_format = files[0].format
    if file_format == "parquet":
        return plan_parquet_schema(files, selection)
    if file_format == "jsonl":
        return plan_json_schema([record for _, own in _read_sample(files, selection) for record in own], selection)
    if file_format == "text":
        return plan_text_schema(files[0], selection)
    return plan_csv_schema(files, selection)


def _expect_fields(sample: Sequence[tuple[InputFile, Sequence[Record]]], selection: Selection) -> None:
    """Asks of the first rows all that `JsonFields` does."""
    fields = JsonFields(selection, sample[0][0].name)
    for file, records in sample:
        fields.add(records, file.name)
    fields.expect_all()


def _read_sample(files: Sequence[InputFile], selection: Selection) -> list[tuple[InputFile, list[Record]]]:
    """The first rows, by their files."""
    sample: list[tuple[InputFile, list[Record]]] = []
    missing = SAMPLE
    for file in files:
        with closing(RecordReader(file, JsonLines(selection, None))) as reader:
            sample.append((file, reader.peek(missing)))
        missing -= len(sample[-1][1])
        if not missing:
            break
    return sample


def _expect_no_reserved(schema: pa.Schema, selection: Selection) -> None:
    for name in schema.names:
        if name in selection.reserved:
            raise JobInputError(
                f"the input has a column {name!r}, the name of one that the output adds: leave it out of the columns "
                "that pass through, or rename either"
            )


def _read_schema(text: str) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))
