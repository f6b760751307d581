"""Jobs that find relations between the entities of each row."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gliner_fast import GLiNER, JobError, JobInputError, Redaction, extract_files
from gliner_fast.relations.relation import end_of
from tests.jobs.conftest import as_told, read_jsonl, texts_of, write_jsonl
from tests.nursery import COMPLETE, Nursery

LABELS = ["person", "organization", "location", "date"]
RELATIONS = ["works for", "located in"]
THRESHOLDS: dict[str, Any] = {"threshold": 0.3, "adjacency_threshold": 0.4, "relation_threshold": 0.2}
OPTIONS: dict[str, Any] = {"labels": LABELS, "relations": RELATIONS, "rows_per_shard": 32, **THRESHOLDS}
TEXTS = texts_of(80)


@pytest.fixture(scope="module")
def model(checkpoint: Callable[[str], Path]) -> GLiNER:
    return GLiNER.from_pretrained(checkpoint("relex"))


@pytest.fixture(scope="module")
def expected(model: Any) -> list[tuple[Any, Any]]:
    """Entities and relations of each text."""
    found, relations = model.inference(TEXTS, LABELS, RELATIONS, **THRESHOLDS)
    assert sum(map(len, relations)) > 10
    assert not all(relations)
    return [(as_told(own), links(linked)) for own, linked in zip(found, relations, strict=True)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "in.jsonl", [{"id": number, "text": text} for number, text in enumerate(TEXTS)])


def links(relations: list[Any]) -> list[tuple[Any, ...]]:
    """Relations as tuples; scores of batches of another size may round differently."""
    return [
        (one["head"]["entity_idx"], one["relation"], one["tail"]["entity_idx"], pytest.approx(one["score"], abs=1e-4))
        for one in relations
    ]


def told(rows: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
    """What `expected` has; asks whether the ends of relations are entities of their rows."""
    for row in rows:
        for end in (relation[role] for relation in row["relations"] for role in ("head", "tail")):
            assert end == end_of(row["entities"][end["entity_idx"]], end["entity_idx"])
    return [(as_told(row["entities"]), links(row["relations"])) for row in rows]


def read_output(output: Path) -> list[dict[str, Any]]:
    files = sorted(output.glob("shard-*")) if output.is_dir() else [output]
    return [
        row
        for file in files
        for row in (pq.read_table(file).to_pylist() if file.suffix == ".parquet" else read_jsonl(file))
    ]


# --- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["found.parquet", "found.jsonl", "found"])
def test_each_row_has_its_relations_beside_its_entities(
    output: str, model: GLiNER, source: Path, expected: list[Any], tmp_path: Path
):
    report = extract_files(source, tmp_path / output, model=model.source, **OPTIONS)
    rows = read_output(tmp_path / output)
    assert list(rows[0]) == ["id", "text", "entities", "relations"]
    assert told(rows) == expected
    count = sum(len(linked) for _, linked in expected)
    assert report.relations == count
    assert f" entities, {count} relations in " in str(report)
    job = tmp_path / "found" / "_job" if output == "found" else tmp_path / f"{output}.job"
    assert json.loads((job / "report.json").read_text())["relations"] == count


def test_a_stream_has_relations_too(model: GLiNER, source: Path, expected: list[Any]):
    stream = io.BytesIO()
    report = extract_files(source, stream, model=model, **OPTIONS)
    assert told([json.loads(line) for line in stream.getvalue().splitlines()]) == expected
    assert report.relations == sum(len(linked) for _, linked in expected)


def test_several_devices_find_the_same(model: GLiNER, source: Path, expected: list[Any], tmp_path: Path):
    extract_files(source, tmp_path / "out.jsonl", model=model.source, device="cpu,cpu", **OPTIONS)
    assert told(read_jsonl(tmp_path / "out.jsonl")) == expected


def test_without_relations_a_model_that_finds_them_does_as_any_other(model: Any, source: Path, tmp_path: Path):
    rows = [{"text": text, "relations": "mine"} for text in TEXTS]
    source = write_jsonl(tmp_path / "own.jsonl", rows)
    report = extract_files(source, tmp_path / "out.parquet", LABELS, model=model, threshold=0.3, rows_per_shard=32)
    found = model.inference(TEXTS, LABELS, threshold=0.3, return_relations=False)
    rows = read_output(tmp_path / "out.parquet")
    assert list(rows[0]) == ["text", "relations", "entities"]
    assert [as_told(row["entities"]) for row in rows] == [as_told(own) for own in found]
    assert {row["relations"] for row in rows} == {"mine"}
    assert report.relations is None
    assert " relations in " not in str(report)


def test_rows_may_have_labels_of_their_own(model: Any, tmp_path: Path):
    own = [LABELS if number % 2 else LABELS[:2] for number in range(len(TEXTS))]
    rows = [{"text": text, "own": labels} for text, labels in zip(TEXTS, own, strict=True)]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    options = OPTIONS | {"labels": None, "labels_column": "own"}
    extract_files(source, tmp_path / "out.jsonl", model=model, **options)
    found, linked = model.inference(TEXTS, own, RELATIONS, **THRESHOLDS)
    assert any(linked)
    assert told(read_jsonl(tmp_path / "out.jsonl")) == [
        (as_told(e), links(r)) for e, r in zip(found, linked, strict=True)
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"relations": "works for"},
        {"relation_threshold": {"works for": 0.05, "located in": 0.6}},
        {"adjacency_threshold": None, "relation_threshold": None},
        {"adjacency_threshold": 0.9},
        {"flat_ner": False, "multi_label": True},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_options_mean_what_they_mean_for_inference(
    changes: dict[str, Any], model: Any, source: Path, expected: list[Any], tmp_path: Path
):
    options = OPTIONS | changes
    extract_files(source, tmp_path / "out.jsonl", model=model, **options)
    del options["rows_per_shard"]
    found, linked = model.inference(TEXTS, **options)
    answers = [(as_told(e), links(r)) for e, r in zip(found, linked, strict=True)]
    assert told(read_jsonl(tmp_path / "out.jsonl")) == answers
    assert answers != expected


def test_relations_of_long_texts_are_found_in_windows(checkpoint: Callable[[str], Path], tmp_path: Path):
    model: Any = GLiNER.from_pretrained(checkpoint("relex"), max_length=40)
    text = " ".join(TEXTS[:40])
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "short"}, {"text": text}])
    extract_files(source, tmp_path / "out.jsonl", model=model, **OPTIONS)
    row = read_jsonl(tmp_path / "out.jsonl")[1]
    assert max(relation["head"]["start"] for relation in row["relations"]) > len(text) / 2
    ((found, linked),) = model.stream([text], LABELS, relations=RELATIONS, **THRESHOLDS)
    assert told([row]) == [(as_told(found), links(linked))]


# --- names of columns -------------------------------------------------------------------------------------------------


def test_the_column_may_have_another_name(model: GLiNER, source: Path, tmp_path: Path):
    names = {"entities_column": "found", "relations_column": "links"}
    extract_files(source, tmp_path / "out.parquet", model=model, **names, **OPTIONS)
    assert pq.read_table(tmp_path / "out.parquet").column_names == ["id", "text", "found", "links"]


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
def test_a_column_of_that_name_must_give_way(kind: str, model: GLiNER, tmp_path: Path):
    source = tmp_path / f"in.{kind}"
    if kind == "jsonl":
        write_jsonl(source, [{"text": "Ada", "relations": 1}])
    elif kind == "parquet":
        pq.write_table(pa.table({"text": ["Ada"], "relations": [1]}), source)
    else:
        source.write_text("text,relations\nAda,1\n", encoding="utf-8")
    for output in ("out.parquet", "out.jsonl"):
        with pytest.raises(JobInputError, match="'relations', the name of one that the output adds"):
            extract_files(source, tmp_path / output, model=model, **OPTIONS)
        extract_files(source, tmp_path / output, model=model, columns=["text"], **OPTIONS)
        assert list(read_output(tmp_path / output)[0]) == ["text", "entities", "relations"]


# --- redaction --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["out.parquet", "out.jsonl"])
@pytest.mark.parametrize("changes", [{}, {"flat_ner": False, "multi_label": True}], ids=["flat", "nested"])
def test_redacted_rows_have_relations_of_what_stands_in_them(
    output: str, changes: dict[str, Any], model: GLiNER, source: Path, tmp_path: Path
):
    options = OPTIONS | changes | {"model": model}
    extract_files(source, tmp_path / "plain.jsonl", **options)
    redaction = Redaction("hash", key="correct horse battery staple")
    report = extract_files(source, tmp_path / output, redaction=redaction, **options)
    rows, plain = read_output(tmp_path / output), read_jsonl(tmp_path / "plain.jsonl")
    answers = [redaction.apply(row["text"], row["entities"], row["relations"]) for row in plain]
    assert [row["text"] for row in rows] == [own.text for own in answers]
    assert told(rows) == [(as_told(own.entities), links(own.relations)) for own in answers]
    assert report.relations == sum(len(own.relations) for own in answers) > 0
    for row, original in zip(rows, plain, strict=True):
        ends = [end["text"] for relation in row["relations"] for end in (relation["head"], relation["tail"])]
        assert not {entity["text"] for entity in original["entities"]} & set(ends)
        assert all(row["text"].count(text) for text in ends)


# --- again and again --------------------------------------------------------------------------------------------------


def test_a_job_goes_on_with_the_same_relations_alone(model: GLiNER, source: Path, expected: list[Any], tmp_path: Path):
    with source.open("a", encoding="utf-8") as file:
        file.write("no JSON\n")
    output, options = tmp_path / "out.jsonl", OPTIONS | {"model": model}
    with pytest.raises(JobError, match="line 81"):
        extract_files(source, output, on_error="fail", **options)
    with pytest.raises(JobError, match="relations was .* and is None"):
        extract_files(source, output, LABELS, model=model, threshold=0.3, rows_per_shard=32)
    for changes, message in (
        ({"relations": RELATIONS[:1]}, r"relations was \['works for', 'located in'\] and is \['works for'\]"),
        ({"adjacency_threshold": 0.5}, "adjacency_threshold was 0.4 and is 0.5"),
        ({"relation_threshold": {"works for": 0.2, "located in": 0.3}}, "relation_threshold was 0.2 and is {"),
        ({"relations_column": "links"}, "relations_column was 'relations' and is 'links'"),
    ):
        with pytest.raises(JobError, match=f"was begun as another job: {message}"):
            extract_files(source, output, **(options | changes))
    report = extract_files(source, output, **options)
    assert report.rows_here < report.rows == 81
    assert report.relations == sum(len(linked) for _, linked in expected)
    assert told(read_jsonl(output)) == expected
    again = extract_files(source, output, **options)
    assert (again.rows_here, again.relations) == (0, report.relations)


@pytest.fixture(scope="module")
def nursery_of_relations(checkpoint: Callable[[str], Path]) -> Iterator[Nursery]:
    nursery = Nursery(checkpoint("relex"))
    yield nursery
    nursery.close()


@pytest.mark.parametrize("name", ["found.parquet", "found.jsonl"])
def test_a_job_that_died_goes_on_to_the_same_bytes(
    name: str, nursery_of_relations: Nursery, source: Path, tmp_path: Path
):
    outputs = []
    for step in (None, 4, 9):
        output = tmp_path / str(step) / name
        output.parent.mkdir()
        arguments: dict[str, Any] = {"inputs": str(source), "output": str(output), **OPTIONS}
        if step is not None:
            assert nursery_of_relations.run(die_at=step, **arguments) == -signal.SIGKILL
        assert nursery_of_relations.run(**arguments) == COMPLETE
        outputs.append(output.read_bytes())
    assert len(set(outputs)) == 1


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["loaded", "folder", "stream"])
def test_a_model_that_finds_no_relations_is_refused_before_anything_is_written(
    given: str, small_model: GLiNER, source: Path, tmp_path: Path
):
    output = io.BytesIO() if given == "stream" else tmp_path / "out.jsonl"
    model = small_model.source if given == "folder" else small_model
    with pytest.raises(JobError, match="this model finds entities alone, and no relations: leave them out, or take"):
        extract_files(source, output, model=model, **OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"relations": []}, "relations is empty"),
        ({"relations": None}, "adjacency_threshold is given without relations"),
        ({"relations": {"works for": "a job"}}, "relations is a dict: expected a list of names"),
        ({"relations": [["works for"]]}, "relations is .*: expected strings"),
        ({"layout": "rows"}, "use 'list'"),
        ({"relations_column": "entities"}, "are both 'entities'"),
        ({"relation_threshold": {"works for": 0.5}}, "no value for the relation 'located in'"),
        ({"adjacency_threshold": [0.5]}, "adjacency_threshold is .*: expected a number"),
    ],
)
def test_choices_that_do_not_go_together_leave_nothing_behind(
    changes: dict[str, Any], message: str, model: GLiNER, source: Path, tmp_path: Path
):
    with pytest.raises(JobError, match=message):
        extract_files(source, tmp_path / "out.jsonl", model=model, **(OPTIONS | changes))
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
