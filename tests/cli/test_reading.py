"""Labels and texts that commands cannot read: told by file."""

from __future__ import annotations

import json
import os

import pytest

from gliner_fast.cli.reading import InputError, read_labels


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 200_000, "labels.json is nested deeper than JSON is read"),
        ('{"a": {"threshold": ' + "9" * 5000 + "}}", "labels.json is not JSON .*4300"),
        ('{"PER": "person", "HUM": "person"}', "'PER' and 'HUM' are both described as 'person'"),
        ('{"PER": "person", "person": {}}', "'PER' and 'person' are both described as 'person'"),
        ('["\\ud800"]', r"labels.json: '\\ud800' is not UTF-8"),
        ('{"a": "\\ud800"}', "is not UTF-8, and no model can read it"),
    ],
)
def test_a_labels_file_is_told_by_its_name(tmp_path, content, message):
    file = tmp_path / "labels.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message) as told:
        read_labels([], file)
    assert str(file) in str(told.value)


def test_a_label_of_bytes_that_are_no_utf8_is_refused():
    with pytest.raises(InputError, match=r"an option: 'caf\\udce9' is not UTF-8"):
        read_labels([os.fsdecode(b"person,caf\xe9")], None)


def test_labels_that_semicolons_part_are_told_of():
    with pytest.warns(UserWarning, match="^'person; city' is one label: several are parted by commas$"):
        assert read_labels(["person; city"], None).names == ["person; city"]
    assert read_labels(["a;b,c"], None).names == ["a;b", "c"]


def test_a_group_of_commands_alone_says_that_one_is_missing(run):
    code, _, err = run("data")
    assert (code, err) == (2, "gliner-fast: error: no command is named: choose one of those above\n")


def test_verify_needs_a_text(run, tmp_path):
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    (tmp_path / "blank.jsonl").write_text(json.dumps({"text": " "}) + "\n", encoding="utf-8")
    for name in ("empty.jsonl", "blank.jsonl"):
        code, out, err = run("verify", "no-model", "-l", "person", "--texts", tmp_path / name)
        assert (code, out) == (2, "")
        assert f"{name} has nothing to compare: give at least one text that is not empty" in err


def test_a_device_that_computes_nothing_is_refused(run, tmp_path):
    (tmp_path / "in.txt").write_text("Ada\n", encoding="utf-8")
    told = (2, "gliner-fast: error: device 'meta' cannot be used: it has shapes and computes nothing\n")
    for arguments in (["predict", "Ada"], ["extract", tmp_path / "in.txt"]):
        for device in ("meta", "cpu,meta")[: 1 if arguments[0] == "predict" else 2]:
            code, _, err = run(*arguments, "-l", "person", "--device", device)
            assert (code, err) == told
