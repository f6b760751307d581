"""CSV and TSV with a header: every record behind it is a row; quoted values may hold line breaks, in TSV too.

The standard library's reader and not pyarrow's, which neither tells the line of a broken record nor goes on behind one.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing

from gliner_fast.errors import listed, shown
from gliner_fast.jobs._arrow import pa
from gliner_fast.jobs.byte_stream import ByteStream, CutLine
from gliner_fast.jobs.errors import JobInputError
from gliner_fast.jobs.inputs import InputFile
from gliner_fast.jobs.records import BadRow, Record, Row, decode, drop_line_break, show_raw
from gliner_fast.jobs.row_labels import read_row_labels
from gliner_fast.jobs.selection import Selection

# A quote that is never closed would swallow the rest of the file, whatever its size; a value beyond this is such a one.
_LONGEST_VALUE = 2**24


def plan_csv_schema(files: Sequence[InputFile], selection: Selection) -> pa.Schema:
    """The columns that pass through, all strings; empty files have none and tell nothing.

    Raises:
        JobInputError: a file without a column that is needed, or with others than the first file.
    """
    first: tuple[str, list[str]] | None = None
    for file in files:
        with closing(ByteStream(file)) as stream:
            header = CsvRecords(file, selection).read_header(stream)
        if header is None:
            continue
        if first is None:
            first = file.path, header
        elif selection.kept is None and set(header) != set(first[1]):
            raise JobInputError(
                f"{first[0]} has the columns {listed(first[1])} and {file.path} has {listed(header)}: name the "
                "columns to pass through"
            )
    return _string_schema(selection.kept if selection.kept is not None else first[1] if first else [])


class CsvRecords:
    """Reads the records of one file.

    Attributes:
        schema: columns that pass through; where none is given, the header tells them once the first record is read.
    """

    def __init__(self, file: InputFile, selection: Selection, schema: pa.Schema | None = None) -> None:
        self.schema = _string_schema(selection.kept or []) if schema is None else schema
        self._passes_all = schema is None and selection.kept is None
        self._file = file
        self._selection = selection
        self._places: dict[str, int] = {}
        self._width = 0

    def split(self, stream: ByteStream) -> Iterator[Record]:
        """Yields every record behind the header; a broken one ends with its line, and the next line begins another."""
        records = self._split_all(stream)
        if self._take_header(next(records, None)) is not None:
            yield from records

    def read_header(self, stream: ByteStream) -> list[str] | None:
        """The names of the columns; None for an empty file.

        Raises:
            JobInputError: a broken header, or one that lacks a column or has one twice.
        """
        return self._take_header(next(self._split_all(stream), None))

    def parse(self, record: Record) -> Row:
        """Reads the record's text and labels.

        Raises:
            BadRow: not UTF-8, not CSV, too few or too many values, or wrong labels. Where it covers several lines, as
                a stray quote makes it do, it says which.
        """
        try:
            return self._parse(record)
        except BadRow as error:
            last = record.line + drop_line_break(record.raw).count(b"\n")
            if last == record.line:
                raise
            raise BadRow(f"{error} (lines {record.line} to {last}, which quotes join)") from error

    def _parse(self, record: Record) -> Row:
        if record.fault is not None:  # first: a line that is too long may have been cut within a character
            raise BadRow(f"not CSV: {record.fault}")
        decode(record.raw)
        if len(record.fields) != self._width:
            raise BadRow(f"{len(record.fields)} values: expected {self._width}, as in the header")
        labels = None
        name = self._selection.labels_column
        if name is not None:
            labels = read_row_labels(record.fields[self._places[name]], name)
        kept = [record.fields[self._places[name]] for name in self.schema.names]
        return Row(record.fields[self._places[self._selection.text_column]], labels, kept)

    def gather(self, kept: list[list[str]]) -> pa.Table:
        """A table of strings."""
        columns = zip(*kept, strict=True) if kept else [()] * len(self.schema)
        return pa.Table.from_arrays([pa.array(values, pa.string()) for values in columns], schema=self.schema)

    def _split_all(self, stream: ByteStream) -> Iterator[Record]:
        # The limit is the process's: raised for good, since to lower it again would break another reader's values.
        csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_VALUE))
        taken: list[tuple[int, bytes]] = []

        def take(numbered: tuple[int, bytes]) -> str:
            taken.append(numbered)
            if type(numbered[1]) is CutLine:
                raise csv.Error(numbered[1].fault)
            # Broken bytes go through the parser as they are; `parse` sets their record apart.
            return numbered[1].decode("utf-8", "surrogateescape")

        reader = csv.reader(
            map(take, stream.lines()), delimiter="\t" if self._file.format == "tsv" else ",", strict=True
        )
        while True:
            taken.clear()
            fields: list[str] = []
            fault = None
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                fault = str(error)
            if fields or fault:  # a blank line is no record
                yield Record(taken[0][0], b"".join(line for _, line in taken), fields, fault)

    def _take_header(self, record: Record | None) -> list[str] | None:
        if record is None:
            return None
        if record.fault is not None:
            raise JobInputError(
                f"{self._file.name}: the header {shown(show_raw(record.raw))} is broken: {record.fault}"
            )
        try:
            decode(record.raw)
        except BadRow as error:
            raise JobInputError(f"{self._file.name}: the header is {error}") from error
        header = list(record.fields)
        if self._passes_all:
            self.schema = _string_schema(header)
        needed = list(dict.fromkeys([*self._selection.read, *self.schema.names]))
        times = Counter(header)  # once: to look for each name in a header of thousands would take their square
        for name in needed:
            if name not in times:
                hint = "; values are parted by commas, and not by semicolons" if ";" in header[0] else ""
                raise JobInputError(
                    f"{self._file.name} has no column {name!r} (its columns, by the first line, are "
                    f"{listed(header)}): {self._selection.name_it(name)}{hint}"
                )
            if times[name] > 1:
                raise JobInputError(
                    f"{self._file.name} has {times[name]} columns {name!r}: {self._selection.tell_apart(name)}"
                )
        places = {name: place for place, name in enumerate(header)}
        self._places = {name: places[name] for name in needed}
        self._width = len(header)
        return header


def _string_schema(names: Sequence[str]) -> pa.Schema:
    return pa.schema([(name, pa.string()) for name in names])
