"""JSON lines: which lines are rows, and which of them cannot be used."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gliner_fast.jobs.errors import JobInputError
from gliner_fast.jobs.inputs import find_inputs
from gliner_fast.jobs.sources import Selection, plan_schema
from tests.jobs.rows import read, write

GOOD = b'{"text": "good"}'

# A line that cannot be used, and what its reason must say.
BAD_LINES = {
    "broken": (b'{"text": "a"', "not JSON: Expecting ',' delimiter at character 13"),
    "single quotes": (b"{'text': 'a'}", "not JSON"),
    "two values": (b'{"text": "a"} {"text": "b"}', "not JSON: Extra data"),
    "a list": (b'["a"]', "is no JSON object"),
    "a string": (b'"text"', "is no JSON object"),
    "null": (b"null", "is no JSON object"),
    "no text": (b'{"txt": "a", "id": 1}', "no field 'text' (its fields: 'txt', 'id')"),
    "no field at all": (b"{}", "(its fields: none)"),
    "null text": (b'{"text": null}', "'text' is null: expected a string"),
    "a number for a text": (b'{"text": 3}', "'text' is 3 (int): expected a string"),
    "a list for a text": (b'{"text": ["a"]}', "(list): expected a string"),
    "not UTF-8": (b'{"text": "caf\xe9"}', "not UTF-8: invalid continuation byte at byte 14 of the row (0xe9)"),
    "cut off in a character": (b'{"text": "a", "b": "\xc3', "not UTF-8"),
    "half a character": (b'{"text": "\\ud83d"}', "\\ud83d is half a character"),
    "halves in the wrong order": (b'{"text": "\\uDE00\\uD83D"}', "\\ude00 is half a character"),
    "half a character in a key": (b'{"text": "a", "\\ud800": 1}', "half a character"),
    "NaN": (b'{"text": "a", "score": NaN}', "not JSON: NaN is no number there"),
    "infinity": (b'{"text": "a", "score": -Infinity}', "-Infinity is no number"),
    "a number beyond doubles": (b'{"text": "a", "score": 1e400}', "1e400 is beyond what doubles hold"),
    "a number beyond doubles in capitals": (b'{"text": "a", "score": 1E+400}', "1E+400 is beyond what doubles hold"),
    "a long number beyond doubles": (
        b'{"text": "a", "x": [-' + b"9" * 400 + b".0]}",
        "a number is beyond what doubles",
    ),
    "NUL": (b'\x00{"text": "a"}', "not JSON"),
    "a raw control character": (b'{"text": "a\x01"}', "not JSON: Invalid control character"),
    "a very long number": (b'{"text": "a", "n": ' + b"9" * 5000 + b"}", "4300"),
    "deep": (b'{"text": "a", "x": ' + b"[" * 200 + b"]" * 200 + b"}", "nested more than 200 deep"),
    "bottomless": (b'{"text": "a", "x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested more than 200 deep"),
}


@pytest.mark.parametrize(("line", "reason"), BAD_LINES.values(), ids=BAD_LINES)
@pytest.mark.parametrize("line_break", [b"\n", b"\r\n"])
@pytest.mark.parametrize("as_objects", [True, False])
def test_a_bad_line_is_set_apart_and_harms_no_other(tmp_path, line, reason, line_break, as_objects):
    path = write(tmp_path / "a.jsonl", line_break.join([GOOD, b"", line, GOOD]))
    rows = read(path, selection=Selection(as_objects=as_objects))
    assert (rows.count, rows.rows, rows.texts) == (3, [0, 2], ["good", "good"])
    ((line_number, why, raw),) = rows.faults
    assert (line_number, raw) == (3, line.decode("utf-8", "backslashreplace"))
    assert reason in why
    assert (rows.rejects[0].row, rows.rejects[0].file) == (1, str(path))


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"", []),
        (b"\xef\xbb\xbf", []),
        (b"\n \r\n\t\n", []),
        (b'\xef\xbb\xbf{"text": "marked"}', ["marked"]),
        (b'{"text": ""}\n{"text": " \\n"}\n', ["", " \n"]),
        (b' {"text": "indented"} \r\n', ["indented"]),
        (b'{"text": "1e400", "x": 1e308, "y": 1e-400, "z": 0.00001e310}', ["1e400"]),
        (b'{"text": "first", "text": "last"}', ["last"]),
        (b'{"text": "\\u0000 \\ud83d\\ude00 \\\\ud800"}', ["\0 \U0001f600 \\ud800"]),
        ('{"text": "line\u2028separator\x85"}'.encode(), ["line\u2028separator\x85"]),
        (b'{"text": "a", "x": ' + b"[" * 199 + b"]" * 199 + b', "y": []}', ["a"]),
        (b'{"text": "a", "x": [' + b"[], " * 500 + b"{}]}", ["a"]),
    ],
)
def test_every_line_that_is_not_blank_is_a_row(tmp_path, content, texts):
    rows = read(write(tmp_path / "a.jsonl", content), selection=Selection(as_objects=True))
    assert rows.texts == texts
    assert rows.faults == []


def test_objects_pass_through_as_they_came(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        b'{"b": [1, {"c": null}], "text": "a", "d": 1.5}\n{"text": "b", "e": 12345678901234567890}',
    )
    assert read(path, selection=Selection(as_objects=True)).columns == [
        {"b": [1, {"c": None}], "text": "a", "d": 1.5},
        {"text": "b", "e": 12345678901234567890},
    ]
    chosen = Selection(as_objects=True, columns=["d", "b"])
    assert read(path, selection=chosen).columns == [{"d": 1.5, "b": [1, {"c": None}]}, {}]


def test_a_half_character_in_a_column_that_is_left_out_harms_nothing(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"text": "a", "x": "\\ud800"}')
    assert read(path, selection=Selection(as_objects=True, columns=[])).texts == ["a"]


def test_a_half_character_in_a_text_that_does_not_pass_through_is_no_text(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"text": "\\ud800", "id": 1}')
    ((_, reason, _),) = read(path, selection=Selection(as_objects=True, columns=["id"])).faults
    assert "half a character" in reason


def test_a_row_needs_its_id(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"text": "a", "id": 7, "x": 1}\n{"text": "b"}')
    rows = read(path, selection=Selection(as_objects=True, id_column="id", columns=["x"]))
    assert rows.columns == [{"id": 7, "x": 1}]
    assert "no field 'id'" in rows.faults[0][1]


def test_a_field_of_a_reserved_name_is_not_written_over(tmp_path):
    far = b'{"text": "a"}\n' * 1000 + b'{"text": "b", "entities": []}'  # behind the rows that are looked at beforehand
    path = write(tmp_path / "a.jsonl", far)
    rows = read(path, selection=Selection(as_objects=True, reserved=["entities"]))
    assert rows.texts == ["a"] * 1000
    assert "it has a field 'entities'" in rows.faults[0][1]
    assert len(read(path, selection=Selection(as_objects=True, columns=[], reserved=["entities"])).texts) == 1001


@pytest.mark.parametrize("as_objects", [True, False])
@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(text_column="body"), "no row has a field 'body'; the first rows have 'text', 'id'"),
        (Selection(id_column="key"), "no row has a field 'key'"),
        (Selection(reserved=["id"]), "a field 'id', the name of one that the output adds"),
        (Selection(columns=["id"], reserved=["id"]), "a field 'id', the name of one that the output adds"),
    ],
)
def test_wrong_names_are_told_before_any_row_is_rejected(selection, message, as_objects, tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"text": "a", "id": 1}\n{\n')
    with pytest.raises(JobInputError, match=message):
        plan_schema(find_inputs([str(path)]), replace(selection, as_objects=as_objects))


def test_the_file_that_has_a_reserved_field_is_named(tmp_path):
    one, two = write(tmp_path / "a.jsonl", b'{"text": "a"}\n'), write(tmp_path / "b.jsonl", b'{"text": "b", "id": 1}\n')
    with pytest.raises(JobInputError, match=r"b\.jsonl: the rows have a field 'id'"):
        plan_schema(find_inputs([str(one), str(two)]), Selection(reserved=["id"], as_objects=True))


def test_a_column_that_no_first_row_has_is_warned_about(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"text": "a", "id": 1}')
    with pytest.warns(UserWarning, match="none of the first rows has a field 'nope'"):
        plan_schema(find_inputs([str(path)]), Selection(columns=["nope"], as_objects=True))
