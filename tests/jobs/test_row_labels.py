"""Labels that each row brings along."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gliner_fast.jobs.errors import JobInputError
from gliner_fast.jobs.records import BadRow
from gliner_fast.jobs.row_labels import read_row_labels
from gliner_fast.jobs.sources import Selection
from gliner_fast.labels import plan_labels
from tests.jobs.rows import open_rows, read, save, write


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        (["person", "city"], ["person", "city"]),
        ("person", ["person"]),
        (" person, city of birth ,", ["person", "city of birth"]),
        ('["a, b", "c"]', ["a, b", "c"]),
        ('\n ["a, b", "c"]', ["a, b", "c"]),
        ({"person": "a human being"}, {"person": "a human being"}),
        ('{"person": "a human being"}', {"person": "a human being"}),
        (["person", "person"], ["person", "person"]),
    ],
)
def test_labels_are_a_list_a_mapping_or_text(value, labels):
    assert read_row_labels(value, "labels") == labels
    assert plan_labels([labels], 1).sets[0].names  # the model takes them


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "'labels' is None (NoneType): expected a list"),
        (3, "'labels' is 3 (int)"),
        ("", "with no label"),
        (" , ,", "with no label"),
        ([], "with no label"),
        ({}, "with no label"),
        (["person", ""], "with an empty label"),
        (["person", " "], "with an empty label"),
        ({"person": ""}, "with an empty label"),
        (["person", None], "expected a list"),
        ([["person"]], "expected a list"),
        ({"person": 1}, "expected a list"),
        ('["person"', "expected a list"),
        ("[" * 100_000, "expected a list"),
        ({"a": "same", "b": "same"}, "one description twice"),
        ('["\\ud800"]', "half a character"),
        ('{"person": "\\ud800"}', "half a character"),
    ],
)
def test_other_values_are_refused_with_the_reason(value, reason):
    with pytest.raises(BadRow) as caught:
        read_row_labels(value, "labels")
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 250


def test_each_row_has_its_own_in_json_lines_and_csv(tmp_path):
    selection = Selection(labels_column="labels", columns=[])
    labels = [["a"], {"a": "first"}, "a, b", None, ["c"]]
    lines = "\n".join(json.dumps({"text": "x", "labels": own}) for own in labels)
    rows = read(write(tmp_path / "a.jsonl", lines.encode() + b'\n{"text": "x"}'), selection=selection)
    assert rows.labels == [["a"], {"a": "first"}, ["a", "b"], ["c"]]
    assert [line for line, _, _ in rows.faults] == [4, 6]
    rows = read(write(tmp_path / "a.csv", b'text,labels\nx,a\nx,"a, b"\nx,\nx,"[""a, b""]"\n'), selection=selection)
    assert rows.labels == [["a"], ["a", "b"], ["a, b"]]
    assert [line for line, _, _ in rows.faults] == [4]


@pytest.mark.parametrize(
    ("column", "labels"),
    [
        (pa.array([["a", "b"], None, ["c"]]), [["a", "b"], ["c"]]),
        (pa.array([["a", "b"], [], ["c"]], pa.large_list(pa.large_string())), [["a", "b"], ["c"]]),
        (pa.array([["a", "b"], None, ["c", "d"]], pa.list_(pa.string(), 2)), [["a", "b"], ["c", "d"]]),
        (pa.array(["a, b", None, "c"]), [["a", "b"], ["c"]]),
        (pa.array(["a, b", None, "c"]).dictionary_encode(), [["a", "b"], ["c"]]),
        (
            pa.array([[("a", "x"), ("b", "y")], [], [("c", "z")]], pa.map_(pa.string(), pa.string())),
            [{"a": "x", "b": "y"}, {"c": "z"}],
        ),
        (pa.array([{"a": "x", "b": "y"}, {"a": None, "b": None}, {"b": "z"}]), [{"a": "x", "b": "y"}, {"b": "z"}]),
    ],
)
def test_each_row_has_its_own_in_parquet(tmp_path, column, labels):
    save(tmp_path / "a.parquet", {"text": ["x", "y", "z"], "labels": column})
    rows = read(tmp_path / "a.parquet", selection=Selection(labels_column="labels", columns=[]))
    assert (rows.labels, rows.texts) == (labels, ["x", "z"])
    assert [line for line, _, _ in rows.faults] == [2]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([[1]]), "list<element: int64>"),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), "map<string, int64"),
        (pa.array([[(1, "a")]], pa.map_(pa.int64(), pa.string())), "map<int64, string"),
        (pa.array([{"a": "x", "b": 1}]), "struct<a: string, b: int64>"),
    ],
)
def test_a_labels_column_of_numbers_is_refused_as_a_whole(tmp_path, column, kind):
    pq.write_table(pa.table({"text": ["x"], "labels": column}), tmp_path / "a.parquet")
    with pytest.raises(JobInputError, match=f"the labels column 'labels' is {kind}.*: expected list<string>"):
        open_rows([tmp_path / "a.parquet"], Selection(labels_column="labels"))
