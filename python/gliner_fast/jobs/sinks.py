"""Rows and their entities -> shards; shards -> one file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from gliner_fast.entity import Entity
from gliner_fast.jobs._arrow import pa, pq
from gliner_fast.jobs.arrow_types import ENTITY_FIELDS, RELATION_FIELDS
from gliner_fast.jobs.block import Block, Reject
from gliner_fast.jobs.json_values import dump_json_line, read_json_rows
from gliner_fast.relations.relation import relations_of

ShardFormat = Literal["parquet", "jsonl", "jsonl.gz", "jsonl.zst"]
Layout = Literal["list", "rows"]

CODECS = {"jsonl.gz": "gzip", "jsonl.zst": "zstd"}
"""Of compressed JSON lines, by their format."""


def added_columns(layout: Layout, entities_column: str, relations_column: str | None = None) -> list[str]:
    """Names of the columns that a shard has beside those that pass through; relations have one where it is named."""
    if layout == "rows":
        return ["row", *(name for name, _ in ENTITY_FIELDS)]
    return [entities_column] if relations_column is None else [entities_column, relations_column]


def write_shard(
    path: Path,
    block: Block,
    entities: Sequence[Sequence[Entity]],
    *,
    format: ShardFormat,  # noqa: A002  # the option's name
    layout: Layout = "list",
    entities_column: str = "entities",
    relations_column: str | None = None,
) -> None:
    """Writes a block's good rows with their entities; equal rows give equal bytes, however they were read.

    Scores are single precision: in JSON the shortest digits that mean the same float32.

    Args:
        path: written over; whoever calls syncs and renames it.
        block: R good rows.
        entities: of each good row; with their relations, where these are written.
        format: Parquet (zstd within), or JSON lines, plain or compressed.
        layout: "list" gives each row its entities in one column; "rows" writes a row for each entity: the columns that
            pass through, the row's number in the whole input (`row`), and the entity's fields.
        entities_column: name of the column of entities, in the layout "list".
        relations_column: name of the column of relations beside it; None: none is written.

    Raises:
        OSError: the file cannot be written.
    """
    if format == "parquet":
        if layout == "list":
            table = _make_list_table(block, entities, entities_column, relations_column)
        else:
            table = _make_rows_table(block, entities)
        # Pages end where chunks do: without this, the bytes would tell in which pieces the rows were read.
        with path.open("wb") as file:
            pq.write_table(table.combine_chunks(), file, compression="zstd")
        return
    with path.open("wb") as file, _compressed(file, CODECS.get(format)) as out:
        for line in json_lines(block, entities, layout, entities_column, relations_column):
            out.write(line)


def json_lines(
    block: Block,
    entities: Sequence[Sequence[Entity]],
    layout: Layout,
    entities_column: str,
    relations_column: str | None = None,
) -> Iterator[bytes]:
    """Yields the lines of a block's JSON lines; `write_shard` says what is in them."""
    if layout == "list":
        rows = _make_list_objects(block, entities, entities_column, relations_column)
    else:
        rows = _make_rows_objects(block, entities)
    for row in rows:
        yield dump_json_line(row)


def write_rejects(path: Path, rejects: Sequence[Reject]) -> None:
    """Writes rejects as JSON lines with the fields of `Reject`; the caller syncs and renames."""
    with path.open("wb") as file:
        for reject in rejects:
            # The name of a file may hold bytes that are no UTF-8, which Python keeps as lone surrogates.
            file.write(json.dumps(asdict(reject), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")


def join_shards(shards: Sequence[Path], out: Path, format: ShardFormat) -> None:  # noqa: A002
    """Makes one file of shards, in their order, in memory that the largest row group bounds.

    Raises:
        OSError: a shard cannot be read, or the file not written.
    """
    with out.open("wb") as file:
        if format != "parquet":
            for shard in shards:  # members of gzip and frames of zstd may follow each other
                with shard.open("rb") as source:
                    shutil.copyfileobj(source, file)
            return
        with pq.ParquetFile(shards[0]) as first:
            schema = first.schema_arrow
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for shard in shards:
                with pq.ParquetFile(shard) as source:
                    for group in range(source.num_row_groups):
                        writer.write_table(source.read_row_group(group))


def _make_list_table(
    block: Block, entities: Sequence[Sequence[Entity]], entities_column: str, relations_column: str | None
) -> pa.Table:
    added = [(entities_column, _list_array(entities, ENTITY_FIELDS))]
    if relations_column is not None:
        added.append((relations_column, _list_array([relations_of(own) for own in entities], RELATION_FIELDS)))
    return _with_columns(block.columns, added)


def _list_array(rows: Sequence[Sequence[Mapping[str, Any]]], fields: Sequence[tuple[str, pa.DataType]]) -> pa.Array:
    """A list of structs for each row."""
    structs = pa.StructArray.from_arrays(_field_arrays(rows, fields), fields=[pa.field(*field) for field in fields])
    return pa.ListArray.from_arrays(pa.array([0, *accumulate(map(len, rows))], pa.int32()), structs)


def _make_rows_table(block: Block, entities: Sequence[Sequence[Entity]]) -> pa.Table:
    assert not isinstance(block.columns, list), "objects pass through to JSON lines only"
    row_of = [row for row, own in enumerate(entities) for _ in own]  # of each entity
    arrays = _field_arrays(entities, ENTITY_FIELDS)
    added = [("row", pa.array(block.rows[row_of], pa.int64()))]
    added += [(name, array) for (name, _), array in zip(ENTITY_FIELDS, arrays, strict=True)]
    return _with_columns(block.columns.take(pa.array(row_of, pa.int64())), added)


def _with_columns(kept: pa.Table, added: Sequence[tuple[str, pa.Array]]) -> pa.Table:
    # The fields of what is kept, and not their names alone: they say which columns hold JSON text.
    schema = pa.schema([*kept.schema, *(pa.field(name, array.type) for name, array in added)])
    return pa.Table.from_arrays([*kept.columns, *(array for _, array in added)], schema=schema)


def _field_arrays(
    rows: Sequence[Sequence[Mapping[str, Any]]], fields: Sequence[tuple[str, pa.DataType]]
) -> list[pa.Array]:
    """The fields of what all rows have, one array each."""
    flat = [one for own in rows for one in own]
    return [pa.array([one[name] for one in flat], kind) for name, kind in fields]


def _make_list_objects(
    block: Block, entities: Sequence[Sequence[Entity]], entities_column: str, relations_column: str | None
) -> Iterator[dict[str, Any]]:
    columns = {entities_column: _objects(entities, ENTITY_FIELDS)}
    if relations_column is not None:
        columns[relations_column] = _objects([relations_of(own) for own in entities], RELATION_FIELDS)
    for row, *values in zip(_read_kept(block), *columns.values(), strict=True):
        row.update(zip(columns, values, strict=True))
        yield row


def _make_rows_objects(block: Block, entities: Sequence[Sequence[Entity]]) -> Iterator[dict[str, Any]]:
    found = _objects(entities, ENTITY_FIELDS)
    for number, row, own in zip(block.rows.tolist(), _read_kept(block), found, strict=True):
        for entity in own:
            yield {**row, "row": number, **entity}


def _read_kept(block: Block) -> Iterator[dict[str, Any]]:
    """Copies of what each row passes through."""
    if isinstance(block.columns, list):
        return map(dict, block.columns)
    if block.columns.num_columns == 0:  # such a table has no rows either
        return ({} for _ in block.rows)
    return iter(read_json_rows(block.columns))


def _objects(
    rows: Sequence[Sequence[Mapping[str, Any]]], fields: Sequence[tuple[str, pa.DataType]]
) -> Iterator[list[dict[str, Any]]]:
    """What each row has, with the fields in their order; scores, the last of them, are rounded."""
    names, rounded = [name for name, _ in fields], _rounded_scores(rows)
    for own in rows:
        yield [{**{name: one[name] for name in names}, "score": next(rounded)} for one in own]


def _rounded_scores(rows: Sequence[Sequence[Mapping[str, Any]]]) -> Iterator[float]:
    """The scores of what all rows have; numpy's text of a float32 has the shortest digits that mean it."""
    scores: NDArray[np.float32] = np.array([one["score"] for own in rows for one in own], np.float32)
    return map(float, scores.astype(np.str_))


@contextmanager
def _compressed(file: IO[bytes], codec: str | None) -> Iterator[Any]:
    """What writes into a file, through a codec if there is one; gzip's header has no time, so that bytes are equal."""
    if codec is None:
        yield file
        return
    with pa.CompressedOutputStream(pa.PythonFile(file, "w"), codec) as stream:
        yield stream
