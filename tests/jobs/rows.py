"""What tests of reading share: files with content, and all rows of some files."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gliner_fast.jobs.block import Block, Reject
from gliner_fast.jobs.inputs import find_inputs
from gliner_fast.jobs.sources import RowReader, Selection, plan_schema


@dataclass(frozen=True)
class Rows:
    """All rows of some files."""

    count: int
    rows: list[int]
    texts: list[str]
    labels: list[Any]
    columns: list[dict[str, Any]]
    rejects: list[Reject]

    @property
    def faults(self) -> list[tuple[int, str, str]]:
        """Line, reason and raw line of each reject."""
        return [(reject.line, reject.reason, reject.raw) for reject in self.rejects]


def save(path: Path, columns: dict[str, Any] | pa.Table, **options: Any) -> Path:
    """Writes a Parquet file; skips the test where this pyarrow cannot."""
    try:
        pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path, **options)
    except pa.ArrowNotImplementedError as error:  # as pyarrow 18 has it of string_view
        pytest.skip(f"this pyarrow cannot write it: {error}")
    return path


def write(path: Path, content: bytes) -> Path:
    """Writes a file, compressed as its name says."""
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".zst":
        content = pa.compress(content, codec="zstd", asbytes=True)
    path.write_bytes(content)
    return path


def open_rows(
    paths: Sequence[Path], selection: Selection | None = None, *, file_format: str | None = None
) -> RowReader:
    """Opens files in the manner of a job: the columns are planned first, and handed over as text."""
    chosen = selection or Selection()
    files = find_inputs([str(path) for path in paths], file_format)
    return RowReader(files, chosen, plan_schema(files, chosen))


def read(*paths: Path, selection: Selection | None = None, file_format: str | None = None, piece: int = 3) -> Rows:
    """Reads all rows of files, some at a time."""
    blocks: list[Block] = []
    with closing(open_rows(paths, selection, file_format=file_format)) as reader:
        while (block := reader.read(piece)).count:
            blocks.append(block)
    return join(blocks)


def join(blocks: Sequence[Block]) -> Rows:
    """The rows of consecutive blocks."""
    assert all(len(block.texts) == len(block.rows) for block in blocks)
    return Rows(
        sum(block.count for block in blocks),
        [int(row) for block in blocks for row in block.rows],
        [text for block in blocks for text in block.texts],
        [labels for block in blocks for labels in block.labels or ()],
        [row for block in blocks for row in objects(block.columns)],
        [reject for block in blocks for reject in block.rejects],
    )


def objects(columns: pa.Table | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that pass through, as objects."""
    return columns if isinstance(columns, list) else columns.to_pylist()
