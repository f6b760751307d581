"""What a job says of itself at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gliner_fast.errors import count
from gliner_fast.jobs.job_folder import Paths, SliceRecord
from gliner_fast.jobs.report import JobReport

REPORT: dict[str, Any] = {
    "output": "out",
    "is_complete": True,
    "rows": 50,
    "rejects": 0,
    "rejects_file": None,
    "entities": 400,
    "shards": 2,
    "rows_here": 50,
    "seconds": 2.0,
    "stats": {"texts": 50, "computed_texts": 50, "words": 1_000, "read_seconds": 1.0},
}


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, ["done: 50 rows, 400 entities in out", "2.0 s: 25.0 rows/s, 500 words/s, 0% padding; read 100%"]),
        (
            {"rejects": 4, "rejects_file": "r.jsonl"},
            ["done: 46 of 50 rows, 400 entities in out", "2.0 s: ", "4 rows rejected, see r.jsonl"],
        ),
        ({"rows_here": 0}, ["already complete: 50 rows, 400 entities in out"]),
        (
            {"rows_here": 0, "rejects": 1, "rejects_file": "r"},
            ["already complete: 49 of 50 rows, 400 entities in out", "1 row rejected, see r"],
        ),
        (
            {"is_complete": False, "rows_here": 10},
            ["stopped: 50 rows (40 of them before), 400 entities", "2.0 s: 5.0 rows/s, 0% padding"],
        ),
        ({"is_complete": False, "rows_here": 0, "rows": 0, "entities": 0}, ["stopped: 0 rows, 0 entities"]),
        ({"rows_here": 0, "rows": 0, "entities": 0}, ["done: 0 rows, 0 entities in out"]),
        ({"seconds": 0.0}, ["done: ", "0.0 s: 0% padding; read 100%"]),  # of a clock that did not move meanwhile
        (
            {"stats": {"read_seconds": 0.004, "encode_seconds": 1.0}},
            ["done: ", "2.0 s: 25.0 rows/s, 0% padding; encode"],
        ),
        (
            {"rows": 1, "rows_here": 1, "entities": 1},
            ["done: 1 row, 1 entity in out", "2.0 s: 0.5 rows/s, 500 words/s, "],
        ),
        ({"relations": 0}, ["done: 50 rows, 400 entities, 0 relations in out", "2.0 s: "]),
        ({"relations": 1_000}, ["done: 50 rows, 400 entities, 1,000 relations in out", "2.0 s: "]),
        ({"stats": {"subwords": 750, "padded_subwords": 1_000}}, ["done: ", "2.0 s: 25.0 rows/s, 25% padding; "]),
        ({"stats": {"words": 2}}, ["done: ", "2.0 s: 25.0 rows/s, 1 word/s, "]),
        (
            {"stats": {"texts": 1_003, "computed_texts": 1, "words": 16}},
            ["done: ", "2.0 s: 25.0 rows/s, 8 words/s (in 1 text of 1,003: the others are blank or repeat one), "],
        ),
    ],
)
def test_a_report_tells_what_is_in_the_output_and_what_was_done_for_it(changes: dict[str, Any], lines: list[str]):
    shown = str(JobReport(**(REPORT | changes))).splitlines()
    assert len(shown) == len(lines)
    assert all(line.startswith(begin) for line, begin in zip(shown, lines, strict=True))


@pytest.mark.parametrize("rejects", [0, 1])
def test_a_file_of_rejects_is_named_where_there_are_any(rejects: int):
    records, paths = [SliceRecord(0, 2, "shard-0000000.jsonl", 9, rejects, 1)], Paths(Path("found.jsonl"), is_file=True)
    report = JobReport.of(records, paths, is_complete=True, rows_before=0, seconds=1.0, has_relations=False)
    assert report.rejects_file == (str(paths.all_rejects) if rejects else None)


def test_numbers_have_their_nouns():
    assert [count("row", number) for number in (0, 1, 2, 1_003)] == ["0 rows", "1 row", "2 rows", "1,003 rows"]
    assert [count("entity", number) for number in (1, 2)] == ["1 entity", "2 entities"]
