"""Standard streams that are closed, full or not read to their end."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gliner_fast.cli import main
from gliner_fast.cli.standard_streams import NAME, mended

MAIN = "from gliner_fast.cli import main; main()"
TEXT = "Ada Lovelace lived in London."


def shell(command: str, folder: Path) -> tuple[int, str]:
    """Runs a command line of sh, in which $G is gliner-fast; gives its exit code and its complaints."""
    paths = os.pathsep.join(str(Path(path).resolve()) for path in os.environ.get("PYTHONPATH", "").split(":") if path)
    environment = os.environ | {"PYTHONPATH": paths, "PYTHON": sys.executable, "MAIN": MAIN}
    line = command.replace("$G", '"$PYTHON" -c "$MAIN"')
    done = subprocess.run(["sh", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.fixture
def closed(monkeypatch):
    """Runs a command in this process, some of its standard streams closed; gives its exit code."""

    def runner(*arguments, streams):
        with monkeypatch.context() as patch:
            for stream in streams:
                patch.setattr(sys, stream, None)
            with pytest.raises(SystemExit) as end:
                main([str(argument) for argument in arguments])
            for stream in streams:
                getattr(sys, stream).close()  # what stood in its place
        return end.value.code

    return runner


@pytest.mark.parametrize(
    "arguments",
    [["predict", TEXT, "-l", "person"], ["extract", "in.txt", "-l", "person", "-q"], ["info"], ["train", "--show"]],
    ids=" ".join,
)
def test_a_closed_standard_output_is_told_in_one_line(closed, arguments, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text(TEXT + "\n", encoding="utf-8")
    assert closed(*arguments, streams=["stdout"]) == 2
    assert capfd.readouterr().err.startswith("gliner-fast: error: standard output is closed, and the answers go there")


def test_what_writes_nothing_there_needs_no_standard_streams(closed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text(TEXT + "\n", encoding="utf-8")
    arguments = ["extract", "in.txt", "-l", "person", "-o", "out.jsonl"]
    assert closed(*arguments, streams=["stdin", "stdout", "stderr"]) == 0
    assert json.loads(Path("out.jsonl").read_text(encoding="utf-8"))["text"] == TEXT


@pytest.mark.parametrize("arguments", [["predict", "-l", "person"], ["extract", "-l", "person", "-q"]], ids=" ".join)
def test_a_closed_standard_input_is_an_empty_one(closed, arguments, capfd):
    assert closed(*arguments, streams=["stdin"]) == 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full disk")
@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", TEXT, "-l", "person"],
        ["extract", "in.txt", "-l", "person", "-q"],
        ["train", "--show"],
        ["--version"],
    ],
    ids=" ".join,
)
def test_a_full_standard_output_is_named(arguments, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text(TEXT + "\n", encoding="utf-8")
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as end:
            main(arguments)
        sys.stdout.close()  # what stands in its place now
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            full.close()
    assert end.value.code == 2
    assert capfd.readouterr().err == "gliner-fast: error: standard output: No space left on device\n"


@pytest.mark.skipif(os.name == "nt", reason="needs a shell")
def test_a_shell_s_own_closing_and_a_reader_that_goes(tmp_path):
    code, err = shell("$G --version >&-", tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("gliner-fast: error: standard output is closed, and the answers go there: leave it open")
    assert shell("{ $G --version; echo $? >&2; } | true", tmp_path) in {(0, "1\n"), (0, "0\n")}


@pytest.mark.parametrize(
    ("encoding", "shown"), [("utf-8", rb"pers\xc3\xb6nlich\\ud800 1"), ("ascii", rb"pers\\xf6nlich\\ud800 1")]
)
def test_what_the_encoding_has_no_bytes_for_is_escaped(encoding, shown, tmp_path, monkeypatch):
    row = {"tokenized_text": ["Ada"], "ner": [[0, 0, "pers\u00f6nlich\ud800"]]}
    (tmp_path / "in.jsonl").write_text(json.dumps(row), encoding="utf-8")
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding=encoding))
    with pytest.raises(SystemExit) as end:
        main(["data", "stats", str(tmp_path / "in.jsonl")])
    assert end.value.code == 0
    assert re.search(shown, out.getvalue())


@pytest.mark.skipif(os.name == "nt", reason="needs a pipe that does not wait")
@pytest.mark.parametrize("of_bytes", [False, True])
def test_without_a_buffer_a_part_is_not_taken_for_all(of_bytes, monkeypatch):
    end, begin = os.pipe()
    os.set_blocking(begin, False)
    text = "a" * 2**20
    with io.FileIO(begin, "w") as raw, io.FileIO(end):
        unbuffered = io.TextIOWrapper(raw, write_through=True)  # as under `python -u`
        monkeypatch.setattr(sys, "stdout", unbuffered)
        with mended():
            stream, data = (sys.stdout.buffer, text.encode()) if of_bytes else (sys.stdout, text)
            with pytest.raises(OSError, match=NAME):
                stream.write(data)
        assert sys.stdout is unbuffered
        assert not raw.closed
        unbuffered.detach()


@pytest.mark.skipif(os.name == "nt", reason="needs a shell")
def test_without_a_buffer_all_arrives(tmp_path):
    row = json.dumps({"tokenized_text": ["Ada"], "ner": [[0, 0, "person"]]})
    (tmp_path / "in.jsonl").write_text(f"{row}\n" * 5000, encoding="utf-8")
    code, err = shell("PYTHONUNBUFFERED=1 $G data convert in.jsonl - --to gliner | cat > out.jsonl", tmp_path)
    assert (code, err) == (0, "-: 5,000 examples, 5,000 spans\n")
    assert len((tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()) == 5000
    limited = "ulimit -f 100; PYTHONUNBUFFERED=1 $G data convert in.jsonl - --to gliner > cut.jsonl"
    assert shell(limited, tmp_path) == (2, "gliner-fast: error: standard output: File too large\n")
