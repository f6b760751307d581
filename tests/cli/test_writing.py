"""The files that commands write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gliner_fast.cli.reading import InputError
from gliner_fast.cli.writing import check_outputs, dump_json, write_record

RECORD = {"tokenized_text": ["Ada", "sang"], "ner": [[0, 0, "person"]]}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An annotated file in the current folder, and a folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dev.jsonl").write_text(json.dumps(RECORD) + "\n", encoding="utf-8")
    (tmp_path / "labels.json").write_text('["person"]', encoding="utf-8")
    (tmp_path / "folder").mkdir()
    return tmp_path / "dev.jsonl"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["calibrate", "MODEL", "dev.jsonl", "-o", "dev.jsonl"], "DATA and --output are the same file, dev.jsonl"),
        (["calibrate", "MODEL", "dev.jsonl", "--json", "./dev.jsonl"], "DATA and --json are the same file"),
        (["calibrate", "MODEL", "dev.jsonl", "-o", "x", "--json", "x"], "--output and --json are the same file, x"),
        (
            ["calibrate", "MODEL", "dev.jsonl", "--labels-file", "labels.json", "-o", "labels.json"],
            "--labels-file and --output are the same file",
        ),
        (["calibrate", "MODEL", "dev.jsonl", "-o", "folder"], "folder is a folder: --output needs the name of a file"),
        (["evaluate", "MODEL", "dev.jsonl", "--json", "dev.jsonl"], "DATA and --json are the same file, dev.jsonl"),
        (["evaluate", "MODEL", "dev.jsonl", "--json", "x", "--chart", "x"], "--json and --chart are the same file, x"),
        (["evaluate", "MODEL", "dev.jsonl", "--chart", "folder"], "folder is a folder: --chart needs"),
        (["evaluate", "MODEL", "dev.jsonl", "--chart", "-"], "a chart is a file"),
        (["data", "convert", "dev.jsonl", "dev.jsonl", "--to", "gliner"], "IN and OUT are the same file, dev.jsonl"),
        (["data", "convert", "dev.jsonl", "folder", "--to", "gliner"], "folder is a folder: OUT needs"),
        (["data", "sample", "dev.jsonl", "x", "-k", "1", "--rest", "folder"], "folder is a folder: --rest needs"),
        (["data", "sample", "dev.jsonl", "-", "-k", "1", "--rest", "-"], "OUT and --rest would share stdout"),
    ],
    ids=" ".join,
)
def test_no_command_writes_over_its_input_or_its_other_output(run, data, arguments, message):
    before = {path: path.read_bytes() for path in data.parent.glob("*.json*")}
    code, out, err = run(*arguments)  # there is no such model: this is told before one is loaded
    assert (code, out) == (2, "")
    assert message in err
    assert {path: path.read_bytes() for path in data.parent.glob("*.json*")} == before
    assert not Path("x").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["calibrate", "MODEL", "dev.jsonl", "-o", "old"],
        ["calibrate", "MODEL", "dev.jsonl", "--json", "old"],
        ["evaluate", "MODEL", "dev.jsonl", "--json", "old"],
        ["evaluate", "MODEL", "dev.jsonl", "--chart", "old"],
        ["data", "convert", "dev.jsonl", "old", "--to", "gliner"],
        ["data", "sample", "dev.jsonl", "old", "-k", "1"],
        ["data", "sample", "dev.jsonl", "x", "-k", "1", "--rest", "old"],
    ],
    ids=" ".join,
)
def test_a_file_that_is_there_is_written_over_only_if_asked(run, data, arguments):
    Path("old").write_text("of yesterday", encoding="utf-8")
    code, out, err = run(*arguments)  # before a model is loaded, again
    assert (code, out) == (2, "")
    assert "error: old exists: choose another name for" in err
    assert "--overwrite" in err
    assert Path("old").read_text(encoding="utf-8") == "of yesterday"
    assert not Path("x").exists()
    _, _, err = run(*arguments, "--overwrite")
    assert "exists" not in err
    if arguments[0] == "data":
        assert Path("old").read_text(encoding="utf-8") != "of yesterday"


def test_devices_may_be_named_twice_and_links_are_known(tmp_path):
    check_outputs({"--json": Path("/dev/null"), "--chart": Path("/dev/null")})
    (tmp_path / "in").touch()
    (tmp_path / "link").symlink_to("in")
    with pytest.raises(InputError, match="IN and OUT are the same file"):
        check_outputs({"OUT": tmp_path / "link"}, [("IN", tmp_path / "in")])


def test_a_table_is_printed_though_a_file_cannot_be_written(run, data, monkeypatch):
    monkeypatch.setattr("gliner_fast.cli.writing.write_whole", _full)
    code, out, err = run("evaluate", "built-in", "dev.jsonl", "--json", "scores.json")
    assert code == 2
    assert "dev " in out
    assert "scores.json: No space left on device" in err


def _full(file: Path, content: bytes) -> None:
    raise OSError(28, "No space left on device", str(file))


def test_calibrate_takes_a_dash_for_standard_output(run, data):
    data.write_text((json.dumps(RECORD) + "\n") * 2, encoding="utf-8")
    code, out, _ = run("calibrate", "built-in", "dev.jsonl", "-o", "-", "--min-entities", "1")
    assert (code, list(json.loads(out))) == (0, ["person"])
    assert not Path("-").exists()


def test_a_failed_conversion_leaves_the_earlier_file(run, data, monkeypatch):
    Path("out.jsonl").write_text("before", encoding="utf-8")
    monkeypatch.setattr("gliner_fast.whole_files.sync", lambda path: _full(path, b""))
    code, _, err = run("data", "convert", "dev.jsonl", "out.jsonl", "--to", "gliner", "--overwrite")
    assert (code, err) == (2, "gliner-fast: error: out.jsonl: No space left on device\n")
    assert Path("out.jsonl").read_text(encoding="utf-8") == "before"
    assert not list(data.parent.glob("*.part"))


def test_halves_of_characters_are_escaped(tmp_path):
    write_record(tmp_path / "a.json", {"Zoë": "\ud800"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="ascii")) == {"Zoë": "\ud800"}
    assert dump_json({"text": "Zoë"}) == '{"text": "Zoë"}'
    assert dump_json({"text": "\ud800ë"}) == '{"text": "\\ud800\\u00eb"}'
