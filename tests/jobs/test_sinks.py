"""Shards: what is in them, byte for byte, and how they become one file."""

from __future__ import annotations

import errno
import gzip
import json
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliner_fast.entity import Entity
from gliner_fast.jobs.arrow_types import relations_type
from gliner_fast.jobs.block import Block, Reject
from gliner_fast.jobs.sinks import ShardFormat, added_columns, join_shards, write_rejects, write_shard
from gliner_fast.jobs.sources import Selection
from gliner_fast.relations.relation import LinkedEntities, Relation, end_of
from tests.jobs.rows import open_rows, write
from tests.reference.examples import examples

FORMATS = get_args(ShardFormat)


def entity(text: str, start: int, end: int, label: str = "thing", score: float = 0.75) -> Entity:
    return {"start": start, "end": end, "text": text[start:end], "label": label, "score": score}


def make_block(columns: Any, rows: list[int], texts: list[str]) -> Block:
    return Block(len(rows), np.array(rows, np.int64), texts, None, columns, [], [], np.array([], np.int64))


TEXTS = ["Ada \U0001f680 wrote\n", "", "\0 é"]
ENTITIES = [[entity(TEXTS[0], 0, 3, "person", 0.1), entity(TEXTS[0], 4, 5)], [], [entity(TEXTS[2], 2, 3)]]
TABLE = make_block(pa.table({"id": [7, 8, 9], "text": TEXTS}), [0, 2, 3], TEXTS)
OBJECTS = make_block([{"text": text, "tags": [{}]} for text in TEXTS], [0, 2, 3], TEXTS)


def read_lines(path: Path, shard_format: str) -> list[Any]:
    if shard_format == "jsonl.zst":
        content = pa.CompressedInputStream(pa.OSFile(str(path)), "zstd").read()
    else:
        content = gzip.decompress(path.read_bytes()) if shard_format == "jsonl.gz" else path.read_bytes()
    return [json.loads(line) for line in content.decode("utf-8").split("\n")[:-1]]


def read_shard(path: Path, shard_format: str) -> list[Any]:
    return pq.read_table(path).to_pylist() if shard_format == "parquet" else read_lines(path, shard_format)


@pytest.mark.parametrize("shard_format", FORMATS)
def test_a_list_of_entities_goes_with_each_row(tmp_path, shard_format):
    write_shard(tmp_path / "shard", TABLE, ENTITIES, format=shard_format)
    rows = read_shard(tmp_path / "shard", shard_format)
    assert [(row["id"], row["text"]) for row in rows] == list(zip([7, 8, 9], TEXTS, strict=True))
    assert [[{**one, "score": np.float32(one["score"])} for one in row["entities"]] for row in rows] == [
        [{**one, "score": np.float32(one["score"])} for one in own] for own in ENTITIES
    ]


def linked(entities: list[Entity], *found: tuple[int, str, int, float]) -> LinkedEntities:
    """Entities with relations from (head, relation, tail, score)."""
    relations: list[Relation] = [
        {
            "head": end_of(entities[head], head),
            "tail": end_of(entities[tail], tail),
            "relation": relation,
            "score": score,
        }
        for head, relation, tail, score in found
    ]
    return LinkedEntities(entities, relations)


LINKED = [linked(ENTITIES[0], (0, "wröte", 1, 0.1), (1, "by", 0, 0.75)), [], linked(ENTITIES[2])]


@pytest.mark.parametrize(
    ("shard_format", "block"),
    [*((name, TABLE) for name in FORMATS), *((name, OBJECTS) for name in FORMATS if name != "parquet")],
)
def test_a_list_of_relations_stands_beside_that_of_entities(tmp_path, shard_format, block):
    write_shard(tmp_path / "shard", block, LINKED, format=shard_format, relations_column="links")
    rows = read_shard(tmp_path / "shard", shard_format)
    assert list(rows[0])[-2:] == added_columns("list", "entities", "links") == ["entities", "links"]
    ada = {"start": 0, "end": 3, "text": "Ada", "type": "person", "entity_idx": 0}
    rocket = {"start": 4, "end": 5, "text": "\U0001f680", "type": "thing", "entity_idx": 1}
    assert [[{**one, "score": np.float32(one["score"])} for one in row["links"]] for row in rows] == [
        [
            {"head": ada, "tail": rocket, "relation": "wröte", "score": np.float32(0.1)},
            {"head": rocket, "tail": ada, "relation": "by", "score": np.float32(0.75)},
        ],
        [],
        [],
    ]
    write_shard(tmp_path / "plain", block, LINKED, format=shard_format)
    assert read_shard(tmp_path / "plain", shard_format) == [
        {name: value for name, value in row.items() if name != "links"} for row in rows
    ]


def test_relations_have_the_types_and_digits_that_are_promised(tmp_path):
    write_shard(tmp_path / "shard", TABLE, LINKED, format="parquet", relations_column="links")
    end = "struct<start: int64, end: int64, text: string, type: string, entity_idx: int64>"
    type_ = pq.read_schema(tmp_path / "shard").field("links").type
    assert type_ == relations_type()
    element = type_.value_type
    assert [(field.name, str(field.type)) for field in element] == [
        ("head", end), ("tail", end), ("relation", "string"), ("score", "float")
    ]  # fmt: skip
    write_shard(tmp_path / "lines", OBJECTS, LINKED, format="jsonl", relations_column="links")
    assert '"relation":"wröte","score":0.1}' in (tmp_path / "lines").read_text(encoding="utf-8")


@pytest.mark.parametrize("shard_format", FORMATS)
def test_relations_need_no_columns_and_no_rows(tmp_path, shard_format):
    no_columns = make_block(pa.table({}), [4, 5, 6], TEXTS)
    write_shard(tmp_path / "shard", no_columns, LINKED, format=shard_format, relations_column="links")
    assert [list(row) for row in read_shard(tmp_path / "shard", shard_format)] == [["entities", "links"]] * 3
    no_rows = make_block(pa.table({"id": pa.array([], pa.int8())}), [], [])
    write_shard(tmp_path / "shard", no_rows, [], format=shard_format, relations_column="links")
    assert read_shard(tmp_path / "shard", shard_format) == []


@pytest.mark.parametrize("shard_format", FORMATS)
def test_a_row_goes_with_each_entity(tmp_path, shard_format):
    block = make_block(TABLE.columns.select(["id"]), [0, 2, 3], TEXTS)
    write_shard(tmp_path / "shard", block, ENTITIES, format=shard_format, layout="rows")
    rows = read_shard(tmp_path / "shard", shard_format)
    assert list(rows[0]) == ["id", *added_columns("rows", "entities")]
    assert [list(row.values())[:-1] for row in rows] == [
        [7, 0, 0, 3, "Ada", "person"],
        [7, 0, 4, 5, "\U0001f680", "thing"],
        [9, 3, 2, 3, "é", "thing"],
    ]


def test_parquet_has_the_types_that_are_promised(tmp_path):
    write_shard(tmp_path / "shard", TABLE, ENTITIES, format="parquet", entities_column="found")
    fields = "start: int64, end: int64, text: string, label: string, score: float"
    assert str(pq.read_schema(tmp_path / "shard").field("found").type) == f"list<element: struct<{fields}>>"
    assert pq.read_metadata(tmp_path / "shard").row_group(0).column(0).compression == "ZSTD"
    block = make_block(TABLE.columns.select(["id"]), [0, 2, 3], TEXTS)
    write_shard(tmp_path / "shard", block, [[], [], []], format="parquet", layout="rows")
    assert pq.read_table(tmp_path / "shard", columns=["row", "score"]).schema.types == [pa.int64(), pa.float32()]


def test_json_lines_have_the_shortest_scores_and_plain_characters(tmp_path):
    scores = [0.1, 0.9876543283462524, 1.0, 1e-7, 0.0]
    entities = [[entity("é", 0, 1, score=score) for score in scores]]
    write_shard(tmp_path / "shard", make_block([{"text": "é"}], [0], ["é"]), entities, format="jsonl")
    line = (tmp_path / "shard").read_text(encoding="utf-8")
    assert line.startswith('{"text":"é","entities":[{"start":0,"end":1,"text":"é","label":"thing","score":0.1}')
    written = [one["score"] for one in json.loads(line)["entities"]]
    assert written == [0.1, 0.9876543, 1.0, 1e-7, 0.0]
    assert [np.float32(score) for score in written] == [np.float32(score) for score in scores]


def test_objects_stay_as_they_are_and_are_not_changed(tmp_path):
    write_shard(tmp_path / "shard", OBJECTS, ENTITIES, format="jsonl")
    assert [
        {key: row[key] for key in ("text", "tags")} for row in read_lines(tmp_path / "shard", "jsonl")
    ] == OBJECTS.columns
    assert OBJECTS.columns[0] == {"text": TEXTS[0], "tags": [{}]}


def test_what_else_an_entity_knows_is_left_out(tmp_path):
    richer = [[{**ENTITIES[0][0], "class_probs": {"person": 0.1}, "vector": np.zeros(3)}], [], []]
    for shard_format in ("parquet", "jsonl"):
        write_shard(tmp_path / "shard", TABLE, richer, format=shard_format)
        assert list(read_shard(tmp_path / "shard", shard_format)[0]["entities"][0]) == [
            "start",
            "end",
            "text",
            "label",
            "score",
        ]


@pytest.mark.parametrize("shard_format", FORMATS)
@pytest.mark.parametrize("layout", ["list", "rows"])
def test_no_columns_and_no_rows_are_fine(tmp_path, shard_format, layout):
    no_columns = make_block(pa.table({}), [4, 5], ["a", "b"])
    write_shard(tmp_path / "shard", no_columns, [[entity("a", 0, 1)], []], format=shard_format, layout=layout)
    rows = read_shard(tmp_path / "shard", shard_format)
    assert [list(row) for row in rows] == [added_columns(layout, "entities")] * (2 if layout == "list" else 1)
    no_rows = make_block(pa.table({"id": pa.array([], pa.int8())}), [], [])
    write_shard(tmp_path / "shard", no_rows, [], format=shard_format, layout=layout)
    assert read_shard(tmp_path / "shard", shard_format) == []
    if shard_format == "parquet":
        assert pq.read_schema(tmp_path / "shard").names == ["id", *added_columns(layout, "entities")]


# --- equal rows, equal bytes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shard_format", FORMATS)
@pytest.mark.parametrize("layout", ["list", "rows"])
def test_bytes_do_not_tell_how_the_rows_were_read(tmp_path, shard_format, layout):
    count = 700  # more than the reader decodes at a time
    table = pa.table({
        "text": [f"text {i}" for i in range(count)],
        "kind": pa.array([f"kind {i % 7}" for i in range(count)]).dictionary_encode(),
        "n": [None if i % 5 == 0 else i for i in range(count)],
        "tags": [["x"] * (i % 3) for i in range(count)],
        "long": [f"{i}" * 1000 for i in range(count)],  # several pages
    })  # fmt: skip
    whole, groups, halves = tmp_path / "whole.parquet", tmp_path / "groups.parquet", tmp_path / "halves"
    pq.write_table(table, whole)
    pq.write_table(table, groups, row_group_size=9, use_dictionary=False)
    halves.mkdir()
    pq.write_table(table.slice(0, 300), halves / "1.parquet")
    pq.write_table(table.slice(300), halves / "2.parquet", compression="gzip")
    shards = []
    selection = Selection(columns=["kind", "n", "tags", "long"])
    for number, (paths, skipped) in enumerate(
        [([whole], 0), ([whole], 1), ([groups], 5), (sorted(halves.iterdir()), 5)]
    ):
        with closing(open_rows(paths, selection)) as reader:
            assert reader.read(skipped).count + reader.skip(5 - skipped) == 5
            block = reader.read(650)
        entities = [[entity(text, 0, 4)] * (len(text) % 3) for text in block.texts]
        write_shard(tmp_path / f"{number}", block, entities, format=shard_format, layout=layout)
        shards.append((tmp_path / f"{number}").read_bytes())
    assert len(set(shards)) == 1


def test_a_compressed_shard_has_no_time_in_it(tmp_path):
    write_shard(tmp_path / "shard", OBJECTS, ENTITIES, format="jsonl.gz")
    assert (tmp_path / "shard").read_bytes()[4:8] == bytes(4)  # mtime, RFC 1952


SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NAMES = WORDS.filter(lambda name: name not in {"text", "entities"})
VALUES = st.recursive(
    SCALARS | WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=4
)


@examples
@given(
    rows=st.lists(
        st.dictionaries(WORDS.filter(lambda name: name not in {"text", "entities"}), VALUES, max_size=4), max_size=6
    )
)
def test_objects_come_through_from_file_to_shard_without_loss(rows):
    content = "".join(json.dumps({**row, "text": "a"}) + "\n" for row in rows)
    with TemporaryDirectory() as name:
        path, shard = write(Path(name) / "a.jsonl", content.encode()), Path(name) / "shard"
        with closing(open_rows([path], Selection(as_objects=True))) as reader:
            block = reader.read(100)
        write_shard(shard, block, [[]] * len(rows), format="jsonl")
        assert read_lines(shard, "jsonl") == [{**row, "text": "a", "entities": []} for row in rows]


# --- shards -> one file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shard_format", FORMATS)
def test_joined_shards_hold_all_rows_in_order(tmp_path, shard_format):
    shards = []
    for number in range(4):  # the last one is empty
        shards.append(tmp_path / f"{number}")
        texts = [f"{number} {row}" for row in range(3 - number)]
        block = make_block(pa.table({"text": pa.array(texts, pa.string())}), list(range(len(texts))), texts)
        write_shard(shards[-1], block, [[entity(text, 0, 1)] for text in texts], format=shard_format)
    join_shards(shards, tmp_path / "joined", shard_format)
    assert read_shard(tmp_path / "joined", shard_format) == [
        row for path in shards for row in read_shard(path, shard_format)
    ]
    assert len(read_shard(tmp_path / "joined", shard_format)) == 6
    again = tmp_path / "again"
    join_shards(shards, again, shard_format)
    assert again.read_bytes() == (tmp_path / "joined").read_bytes()
    if shard_format == "parquet":
        assert pq.read_schema(again).equals(pq.read_schema(shards[0]), check_metadata=True)


def test_a_shard_of_several_row_groups_is_joined_whole_and_compressed(tmp_path):
    table = pa.table({"text": list("abcde")})  # as a shard has of more than a million rows
    pq.write_table(table, tmp_path / "shard", row_group_size=2)
    join_shards([tmp_path / "shard"], tmp_path / "joined", "parquet")
    assert pq.read_table(tmp_path / "joined").equals(table)
    groups = pq.read_metadata(tmp_path / "joined")
    assert [groups.row_group(number).num_rows for number in range(groups.num_row_groups)] == [2, 2, 1]
    assert groups.row_group(0).column(0).compression == "ZSTD"


def test_a_column_of_json_text_stays_marked(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"text": "a", "x": {"y": 1}}')
    with closing(open_rows([path])) as reader:
        write_shard(tmp_path / "shard", reader.read(1), [[]], format="parquet")
    join_shards([tmp_path / "shard"], tmp_path / "joined", "parquet")
    assert pq.read_schema(tmp_path / "joined").field("x").metadata[b"gliner_fast"] == b"json"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("shard_format", FORMATS)
def test_a_full_disk_is_an_error_of_the_system(tmp_path, shard_format):
    full = Path("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        write_shard(full, TABLE, ENTITIES, format=shard_format)
    assert caught.value.errno == errno.ENOSPC
    write_shard(tmp_path / "shard", TABLE, ENTITIES, format=shard_format)
    with pytest.raises(OSError, match="No space left"):
        join_shards([tmp_path / "shard"], full, shard_format)


# --- rejects ----------------------------------------------------------------------------------------------------------


def test_rejects_are_json_lines(tmp_path):
    rejects = [Reject(3, "a.jsonl", 5, "not JSON", '{"té\\xff\n'), Reject(9, "b\udcff.jsonl", 1, "why", "")]
    write_rejects(tmp_path / "rejects", rejects)
    lines = [json.loads(line) for line in (tmp_path / "rejects").read_text(encoding="utf-8").splitlines()]
    assert lines[0] == {"row": 3, "file": "a.jsonl", "line": 5, "reason": "not JSON", "raw": '{"té\\xff\n'}
    assert lines[1]["file"] == "b\udcff.jsonl"
    assert "té".encode() in (tmp_path / "rejects").read_bytes()  # for people, too
