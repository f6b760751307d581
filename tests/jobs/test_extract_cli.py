"""`gliner-fast extract`: what it reads and writes, what it says, and how it ends."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import signal
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gliner_fast.cli import main
from tests.jobs.conftest import read_jsonl, write_jsonl

ADA = "Ada Lovelace lived in London."


@pytest.fixture
def run(capfd, monkeypatch, tmp_path):
    """Runs `gliner-fast extract` in an empty folder; gives its exit code, what it wrote, and its complaints."""
    monkeypatch.chdir(tmp_path)

    def runner(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as end:
            main(["extract", *map(str, arguments)])
        out, err = capfd.readouterr()
        return end.value.code, out, err

    return runner


def _found(row):
    return [(entity["text"], entity["label"]) for entity in row["entities"]]


def test_a_file_to_a_file(run, tmp_path):
    write_jsonl(tmp_path / "in.jsonl", [{"id": 7, "body": ADA, "tags": ["x"]}, {"id": 8, "body": ""}])
    code, out, err = run("in.jsonl", "-o", "out.parquet", "-l", "person,city", "--text-column", "body")
    assert (code, out) == (0, "")
    assert "done: 2 rows, 2 entities in out.parquet\n" in err  # on a slow machine behind lines of progress
    first, second = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert list(first) == ["id", "body", "tags", "entities"]
    assert _found(first) == [("Ada Lovelace", "person"), ("London", "city")]
    assert second["entities"] == []
    code, _, err = run("in.jsonl", "-o", "out.parquet", "-l", "person,city", "--text-column", "body")
    assert (code, err) == (0, "already complete: 2 rows, 2 entities in out.parquet\n")


def test_standard_input_to_standard_output(run):
    for arguments in ([], ["-"], ["-", "-o", "-"]):
        code, out, _ = run(*arguments, "-l", "city", "-q", stdin=f"{ADA}\n\nParis\u2028x\r\n".encode())
        rows = [json.loads(line) for line in out.split("\n") if line]
        assert code == 0
        assert [row["text"] for row in rows] == [ADA, "", "Paris\u2028x"]
        assert _found(rows[0]) == [("London", "city")]
    code, out, _ = run("--input-format", "jsonl", "-l", "city", "-q", stdin=json.dumps({"n": 1, "text": ADA}).encode())
    assert (code, list(json.loads(out))) == (0, ["n", "text", "entities"])


@pytest.mark.filterwarnings("default:standard input is read as plain text")
def test_json_lines_on_standard_input_are_not_read_as_text(run, tmp_path):
    stdin = json.dumps({"body": ADA}).encode()
    code, out, err = run("-", "-l", "person", "--text-column", "body", "-q", stdin=stdin)
    assert (code, out) == (2, "")
    assert "give --input-format jsonl" in err
    code, out, err = run("-", "-l", "person", "-q", stdin=stdin)
    assert (code, list(json.loads(out)), json.loads(out)["text"]) == (0, ["text", "entities"], stdin.decode())
    assert "gliner-fast: warning: standard input is read as plain text" in err
    code, out, err = run("-", "-l", "person", "--text-column", "body", "-q", stdin=ADA.encode())
    assert (code, json.loads(out)["body"], err) == (0, ADA, "")


@pytest.mark.filterwarnings("ignore:.*is left out")
def test_an_input_without_a_usable_row_is_no_success(run, tmp_path):
    bad = [{"text": None}] * 9
    write_jsonl(tmp_path / "in.jsonl", bad)
    for _ in range(2):
        code, _, err = run("in.jsonl", "-o", "out.jsonl", "-l", "city", "-q")
        assert (code, err) == (
            2,
            f"gliner-fast: error: not one of the 9 rows could be used: see {Path('out.jsonl.job/rejects.jsonl')}\n",
        )
    stdin = "".join(json.dumps(row) + "\n" for row in bad).encode()
    code, out, err = run("-", "--input-format", "jsonl", "-l", "city", "-q", stdin=stdin)
    assert (code, out) == (2, "")
    assert err.endswith("gliner-fast: error: not one of the 9 rows could be used\n")
    write_jsonl(tmp_path / "in.jsonl", bad[:1])
    code, _, err = run("in.jsonl", "-o", "one.jsonl", "-l", "city")
    rejects = Path("one.jsonl.job/rejects.jsonl")
    assert "done: 0 of 1 row, 0 entities in one.jsonl\n" in err
    assert err.endswith(
        f"1 row rejected, see {rejects}\ngliner-fast: error: the only row could not be used: see {rejects}\n"
    )
    write_jsonl(tmp_path / "in.jsonl", [])
    code, _, err = run("in.jsonl", "-o", "none.jsonl", "-l", "city")
    assert (code, err) == (0, "done: 0 rows, 0 entities in none.jsonl\n")


def test_columns_layout_and_quiet(run, tmp_path):
    (tmp_path / "a.csv").write_text(f"id,text,more\n1,{ADA},x\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text(f'id,text,more\n2,"{ADA}\nIn Paris",y\n', encoding="utf-8")
    options = ("-l", "city", "--layout", "rows", "--id-column", "id", "--columns", "more", "--quiet")
    code, out, err = run("*.csv", "-o", "found", "--output-format", "jsonl", *options)
    assert (code, out, err) == (0, "", "")
    (shard,) = (tmp_path / "found").glob("shard-*.jsonl")
    rows = read_jsonl(shard)
    assert [(row["id"], row["more"], row["row"], row["text"]) for row in rows] == [
        ("1", "x", 0, "London"),
        ("2", "y", 1, "London"),
        ("2", "y", 1, "Paris"),
    ]


def test_redaction_with_a_key_from_the_environment(run, tmp_path, monkeypatch):
    (tmp_path / "in.txt").write_text(f"{ADA}\n", encoding="utf-8")
    code, out, _ = run("in.txt", "-l", "person,city", "--redact", "label", "-q")
    assert (code, json.loads(out)["text"]) == (0, "[PERSON] lived in [CITY].")
    monkeypatch.setenv("MY_KEY", "k" * 32)
    options = ("-l", "person", "--redact", "hash", "--redact-key-env", "MY_KEY", "-q", "-o", "out.jsonl")
    code, _, _ = run("in.txt", *options)
    assert code == 0
    assert "k" * 32 not in (tmp_path / "out.jsonl.job" / "manifest.jsonl").read_text(encoding="utf-8")
    monkeypatch.setenv("MY_KEY", "l" * 32)
    code, _, err = run("in.txt", *options)
    assert code == 2
    assert "redaction was" in err


def test_labels_file_with_thresholds(run, tmp_path):
    (tmp_path / "in.txt").write_text(f"{ADA}\n", encoding="utf-8")
    labels = {"PER": {"description": "person", "threshold": 0.99}, "LOC": {"description": "city"}}
    (tmp_path / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    _, out, _ = run("in.txt", "--labels-file", "labels.json", "-q")
    assert _found(json.loads(out)) == [("London", "LOC")]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["in.txt"], "no labels"),
        (["no.txt", "-l", "a"], "no such file: no.txt"),
        (["*.parquet", "-l", "a"], "no file matches *.parquet"),
        (["in.bin", "-l", "a"], "unknown extension"),
        (["in.txt", "-l", "a", "-o", "out.csv"], "extension .csv"),
        (["in.csv", "-l", "a", "--text-column", "body"], "'body'"),
        (["in.txt", "-l", "a", "--label-threshold", "b=0.5"], "'b' is not among the labels"),
        (["in.txt", "-l", "a", "--redact-template", "x"], "belong to --redact"),
        (["in.txt", "-l", "a", "--redact", "hash"], "environment variable and name that, as in --redact-key-env"),
        (["in.txt", "-l", "a", "--output-format", "jsonl.gz"], "a stream gets plain JSON lines, not jsonl.gz"),
        (["in.txt", "-l", "a", "--actors", "2"], "belong to --engine ray"),
        (["in.txt", "-l", "a", "--on-error", "ignore"], "--on-error"),
        (["bad.jsonl", "-l", "a", "--on-error", "fail", "-o", "x.jsonl", "-q"], "bad.jsonl, line 1: "),
    ],
)
def test_errors_are_one_line_and_code_2(arguments, complaint, run, tmp_path):
    (tmp_path / "in.txt").write_text("x\n", encoding="utf-8")
    (tmp_path / "in.csv").write_text("id,text\n1,x\n", encoding="utf-8")
    (tmp_path / "in.bin").write_bytes(b"\0")
    (tmp_path / "bad.jsonl").write_text("{\n", encoding="utf-8")
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("gliner-fast: error: ")
    assert err.count("\n") == 1
    assert complaint in err


def test_without_ray_its_own_extra_is_named(run, tmp_path, monkeypatch):
    (tmp_path / "in.txt").write_text("x\n", encoding="utf-8")
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = run("in.txt", "-l", "person", "-o", "out", "--engine", "ray")
    assert (code, err) == (2, "gliner-fast: error: jobs on Ray need it: pip install 'gliner-fast[ray]'\n")


@pytest.fixture
def start(nursery, tmp_path):
    """Starts `gliner-fast extract` in a process of its own, with those open files as its streams that are given."""
    with Path(os.devnull).open("r+b") as nothing:

        def starter(*arguments, stdin=nothing, stdout=nothing, stderr=nothing, **environment):
            streams = [stream.fileno() for stream in (stdin, stdout, stderr)]
            return nursery.command("extract", *arguments, streams=streams, folder=tmp_path, **environment)

        yield starter


@contextlib.contextmanager
def pipe():
    """The two ends of a pipe."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as read, os.fdopen(writer, "wb", buffering=0) as write:
        yield read, write


def test_ctrl_c_stops_and_says_how_to_go_on(start, nursery, checkpoint, tmp_path):
    write_jsonl(tmp_path / "in.jsonl", [{"text": f"{ADA} Number {number}."} for number in range(200)])
    arguments = ["in.jsonl", "-o", "out.jsonl", "-l", "person", "-m", checkpoint("deberta"), "--rows-per-shard", "4"]
    manifest = tmp_path / "out.jsonl.job" / "manifest.jsonl"
    with (tmp_path / "told").open("w+", encoding="utf-8") as told:
        process = start(*arguments, stderr=told)
        while not manifest.exists() or manifest.read_bytes().count(b"\n") < 3:
            assert nursery.poll(process) is None
            time.sleep(0.01)
        os.kill(process, signal.SIGINT)
        assert nursery.wait(process) == 130
        err = (tmp_path / "told").read_text(encoding="utf-8")
        assert "stopped: " in err
        assert err.endswith("gliner-fast: stopped. The same command goes on from here.\n")
        assert nursery.wait(start(*arguments, stderr=told)) == 0
    assert "done: 200 rows" in (tmp_path / "told").read_text(encoding="utf-8")
    assert len(read_jsonl(tmp_path / "out.jsonl")) == 200


def test_a_second_sigterm_stops_at_once(start, nursery, checkpoint, tmp_path):
    write_jsonl(tmp_path / "in.jsonl", [{"text": f"{ADA} Number {number}. " * 40} for number in range(168)])
    manifest = tmp_path / "out.jsonl.job" / "manifest.jsonl"
    with (tmp_path / "told").open("w+", encoding="utf-8") as told:
        process = start("in.jsonl", "-o", "out.jsonl", "-l", "person", "-m", checkpoint("deberta"), stderr=told)
        while not manifest.exists() or manifest.read_bytes().count(b"\n") < 3:
            assert nursery.poll(process) is None
            time.sleep(0.01)
        os.kill(process, signal.SIGTERM)
        while "again stops at once" not in (tmp_path / "told").read_text(encoding="utf-8"):
            time.sleep(0.01)
        os.kill(process, signal.SIGTERM)
        assert nursery.wait(process) == 130
    # The slice at work, of 128 rows that take seconds, is not there.
    assert manifest.read_bytes().count(b"\n") == 3


@pytest.mark.parametrize("input_format", ["jsonl", "text"])
def test_who_sends_rows_may_wait_for_the_answer_to_each(input_format, start, nursery, checkpoint):
    options = ("-", "-l", "person", "-q", "-m", checkpoint("deberta"), "--input-format", input_format)
    with pipe() as (stdin, rows), pipe() as (answers, stdout):
        process = start(*options, "--rows-per-shard", "1", stdin=stdin, stdout=stdout)
        for name in ("Ada Lovelace", "Charles Babbage"):
            row = json.dumps({"text": name}) if input_format == "jsonl" else name
            rows.write(f"{row}\n".encode())
            assert json.loads(answers.readline())["text"] == name
        rows.close()
        assert nursery.wait(process) == 0


def test_a_terminal_shows_a_bar(start, nursery, tmp_path):
    write_jsonl(tmp_path / "in.jsonl", [{"text": f"{ADA} Number {number}."} for number in range(300)])
    parent, child = pty.openpty()
    with os.fdopen(child, "wb") as terminal:
        process = start(
            "in.jsonl", "-o", "out.jsonl", "-l", "person", stderr=terminal, TERM="xterm-256color", COLUMNS="140"
        )
    shown = b""
    with contextlib.suppress(OSError):  # Linux says so when the other end has closed
        while block := os.read(parent, 4096):
            shown += block
    os.close(parent)
    assert nursery.wait(process) == 0
    assert b"loading the model" in shown
    assert b"rows/s" in shown
    assert b"done: 300 rows" in shown


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at Linux's times of a process")
@pytest.mark.parametrize("sent", [b"", b"Ada Lovelace\n"])
def test_a_sigterm_ends_a_job_that_waits_for_standard_input(sent, start, nursery, tmp_path):
    with pipe() as (stdin, rows), (tmp_path / "out").open("wb") as out, (tmp_path / "told").open("wb") as told:
        process = start("-", "-l", "person", "-q", stdin=stdin, stdout=out, stderr=told)
        rows.write(sent)
        spent, idle = -1, 0
        while idle < 8:  # while it loads it takes time, and then none
            time.sleep(0.25)
            stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            before, spent = spent, int(stat[11]) + int(stat[12])
            idle = idle + 1 if before == spent and spent > 5 else 0
        os.kill(process, signal.SIGTERM)
        assert nursery.wait(process) == 130  # while standard input stays open
    assert (tmp_path / "out").read_bytes().count(b"\n") == sent.count(b"\n")  # what came is answered
    assert (tmp_path / "told").read_bytes().endswith(b"gliner-fast: stopped.\n")


@pytest.mark.parametrize("extension", ["xz", "bz2", "lz4", "zip", "tar", "7z", "orc"])
def test_an_extension_that_is_not_written_makes_no_folder(extension, run, tmp_path):
    (tmp_path / "in.txt").write_text("x\n", encoding="utf-8")
    code, _, err = run("in.txt", "-l", "a", "-o", f"found.jsonl.{extension}")
    assert code == 2
    assert f"has the extension .{extension}: expected .parquet, .jsonl" in err
    assert not list(tmp_path.glob("found*"))


@pytest.mark.parametrize(
    ("arguments", "place"), [(["", "-o", "out.jsonl"], "an input"), (["in.txt", "-o", ""], "output")]
)
def test_an_empty_name_does_not_mean_the_current_folder(arguments, place, run, tmp_path):
    (tmp_path / "in.txt").write_text("x\n", encoding="utf-8")
    code, _, err = run(*arguments, "-l", "a")
    assert code == 2
    assert f"{place} has an empty name" in err
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]


@pytest.mark.filterwarnings("ignore:standard input, line 2 is left out")
def test_standard_input_is_called_so(run):
    options = ("-", "--input-format", "jsonl", "-l", "city", "-q")
    code, _, err = run(*options, stdin=b'{"text": "Paris"}\n{\n{"text": "Rome"}\n')
    assert code == 0
    code, _, err = run(*options, "--on-error", "fail", stdin=b'{"body": "Paris"}\n')
    assert err.startswith("gliner-fast: error: standard input: no row has a field 'text'")
