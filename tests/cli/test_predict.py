"""`gliner-fast predict`, and what all commands have in common: errors, help, closed streams."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gliner_fast import __version__

ADA = "Ada Lovelace lived in London."


def _rows(out):
    return [json.loads(line) for line in out.splitlines()]


def _found(row):
    return [(entity["text"], entity["label"]) for entity in row["entities"]]


def test_texts_as_arguments_give_json_lines_in_a_pipe(run):
    code, out, err = run("predict", ADA, "Nothing.", "-l", "person,city")
    assert (code, err) == (0, "")
    first, second = _rows(out)
    assert list(first) == ["text", "entities"]
    assert _found(first) == [("Ada Lovelace", "person"), ("London", "city")]
    assert list(first["entities"][0]) == ["start", "end", "text", "label", "score"]
    assert second == {"text": "Nothing.", "entities": []}


def test_lines_of_stdin_answer_line_by_line(run):
    text = f"{ADA}\n\nMarie Curie\u2028in Paris\r\nZoë".encode()
    code, out, _ = run("predict", "--labels", "person", "-l", " city ,, ", stdin=text)
    assert code == 0
    rows = [json.loads(line) for line in out.split("\n") if line]
    assert [row["text"] for row in rows] == [ADA, "", "Marie Curie\u2028in Paris", "Zoë"]
    assert ("Paris", "city") in _found(rows[2])


def test_labels_with_descriptions_come_from_a_file(run, tmp_path):
    file = tmp_path / "labels.json"
    file.write_text('{"LOC": "city", "PER": "person"}')
    _, out, _ = run("predict", ADA, "--labels-file", file)
    assert _found(_rows(out)[0]) == [("Ada Lovelace", "PER"), ("London", "LOC")]
    file.write_text('["person, living or dead", "city"]')
    _, out, _ = run("predict", ADA, "--labels-file", file)
    assert ("London", "city") in _found(_rows(out)[0])


def test_thresholds_of_all_labels_and_of_one(run):
    scores = {e["label"]: e["score"] for e in _rows(run("predict", ADA, "-l", "person,city")[1])[0]["entities"]}
    between = sum(scores.values()) / 2
    _, out, _ = run("predict", ADA, "-l", "person,city", "-t", str(between))
    assert [label for _, label in _found(_rows(out)[0])] == [max(scores, key=scores.__getitem__)]
    _, out, _ = run("predict", ADA, "-l", "person,city", "--label-threshold", "city=1", "--label-threshold", "person=0")
    assert {label for _, label in _found(_rows(out)[0])} == {"person"}


def test_nested_and_multi_label_find_more(run):
    def found(*options):
        arguments = ("The University of Oxford in England", "-l", "city,place,university", "-t", "0.02")
        return set(_found(_rows(run("predict", *arguments, *options)[1])[0]))

    flat = found()
    assert found("--nested") > flat
    assert found("--multi-label") > flat


def test_a_checkpoint_device_and_dtype(run, checkpoint):
    options = ("--model", checkpoint("deberta"), "--device", "cpu", "--dtype", "bf16")
    code, out, _ = run("predict", ADA, "x", "y", "-l", "person,city", "-t", "0", *options)
    assert code == 0
    assert _rows(out)[0]["entities"]


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line(run):
    code, _, err = run("predict", ADA, "-l", ",".join(f"label number {number}" for number in range(200)))
    assert code == 0
    assert re.fullmatch(r"gliner-fast: warning: .* pass the tokenizer's limit of 512 subwords; .*\n", err)


def test_a_file_that_is_given_as_a_text_is_told(run, tmp_path):
    (tmp_path / "notes.txt").write_text(ADA, encoding="utf-8")
    code, out, err = run("predict", str(tmp_path / "notes.txt"), "-l", "person")
    assert code == 0
    assert _rows(out)[0]["text"].endswith("notes.txt")
    assert "is a file, but read as a text: for files see gliner-fast extract" in err


def test_long_texts_are_read_whole(run):
    text = " ".join([ADA] * 80)  # 480 words, of which the model reads 384 at a time
    code, out, err = run("predict", text, "-l", "person,city")
    assert code == 0
    assert max(entity["end"] for entity in _rows(out)[0]["entities"]) > len(text) - len(ADA)
    assert not err


@pytest.mark.parametrize(
    ("arguments", "stdin", "complaint"),
    [
        (["predict", ADA], b"", "no labels: name what to look for, such as --labels person,city"),
        (["predict", ADA, "-l", " , "], b"", "no labels"),
        (["predict", ADA, "--labels-file", os.devnull], b"", "names no labels: expected one a line, or a JSON list"),
        (["predict", ADA, "-l", "a", "--device", "gpu"], b"", "expected auto, cpu, cuda, cuda:1 or mps"),
        (["predict", ADA, "-l", "a", "--labels-file", "x.json"], b"", "name the labels in one place"),
        (["predict", ADA, "--labels-file", "no.json"], b"", "no.json: No such file or directory"),
        (["predict", ADA, "-l", "a", "-t", "2"], b"", "--threshold"),
        (["predict", ADA, "-l", "a", "-t", "x"], b"", "--threshold"),
        (["predict", ADA, "-l", "a", "-t", "nan"], b"", "threshold"),
        (["predict", ADA, "-l", "a", "--label-threshold", "a"], b"", "expected LABEL=NUMBER"),
        (["predict", ADA, "-l", "a", "--label-threshold", "a=2"], b"", "expected LABEL=NUMBER"),
        (["predict", ADA, "-l", "a", "--label-threshold", "a=nan"], b"", "expected LABEL=NUMBER"),
        (["predict", ADA, "-l", "a", "--label-threshold", "b=0.5"], b"", "'b' is not among the labels"),
        (["predict", ADA, "-l", "a", "--relations", " ,"], b"", "--relations names none"),
        (["predict", ADA, "-l", "a", "--relation-threshold", "0.3"], b"", "belong to --relations"),
        (["predict", ADA, "-l", "a", "--adjacency-threshold", "0.3"], b"", "belong to --relations"),
        (["predict", ADA, "-l", "a", "--relations", "b", "--adjacency-threshold", "2"], b"", "--adjacency-threshold"),
        (["predict", ADA, "-l", "a", "--relations", "b", "--relation-threshold", "x"], b"", "--relation-threshold"),
        (["predict", ADA, "-l", "a", "--relations", "b"], b"", "this model finds entities alone"),
        (["predict", ADA, "-l", "a", "-m", "no/such/folder"], b"", "no/such/folder does not exist"),
        (["predict", ADA, "-l", "a", "-m", "."], b"", "No config file found"),
        (["predict", ADA, "-l", "a", "--device", "quantum"], b"", "device 'quantum'"),
        (["predict", ADA, "-l", "a", "--dtype", "fp7"], b"", "fp7"),
        (["predict", ADA, "-l", "a", "--wrong"], b"", "No such option"),
        (["predict", "-l", "a"], b"fine\n\xff\xfe\n", "stdin, line 2 is not UTF-8"),
        (["wrong"], b"", "No such command"),
        (["extrcat"], b"", "No such command 'extrcat'. Did you mean 'extract'?"),
        (
            ["evaluate", "test.jsonl"],
            b"",
            "annotated sentences: see gliner-fast data --help. Usage: gliner-fast evaluate MODEL DATA... [OPTIONS]",
        ),
        (["data", "sample", "a", "b"], b"", "Missing option '--examples' / '-k'. How many to draw."),
        (["verify", "no/such/folder", "-l", "a"], b"", "no/such/folder does not exist"),
        (["verify", "-l", "a", "--texts", "no.txt"], b"", "no such file: no.txt"),
        (["verify"], b"", "no labels"),
        (["info", "no/such/folder"], b"", "no/such/folder does not exist"),
    ],
)  # fmt: skip
def test_errors_are_one_line_and_code_2(arguments, stdin, complaint, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments, stdin=stdin)
    assert code == 2
    assert out == ""
    assert err.startswith("gliner-fast: error: ")
    assert err.count("\n") == 1
    assert complaint in err


def test_a_labels_file_with_a_slip_is_not_one_odd_label(run, tmp_path):
    file = tmp_path / "labels.txt"
    for content in ('["person", "city",]', '{"person": {"threshold": 0.3,}}', "[\n  'person'\n]"):
        file.write_text(content)
        code, _, err = run("predict", ADA, "--labels-file", file)
        assert code == 2
        assert f"{file} is not JSON" in err


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "3",
        '["a", 1]',
        '["a", " "]',
        '{"a": ""}',
        '{" ": "a"}',
        '{"a": null}',
        '"a"',
        "[]",
        '{"a": {"limit": 1}}',
        '{"a": {"threshold": 2}}',
    ],
)
def test_labels_files_of_another_form_are_refused(content, run, tmp_path):
    file = tmp_path / "labels.json"
    file.write_text(content)
    code, _, err = run("predict", ADA, "--labels-file", file)
    assert code == 2
    assert "no labels" in err or str(file) in err


def test_a_job_runs_where_standard_error_is_closed(tmp_path):
    (tmp_path / "in.txt").write_text("Ada", encoding="utf-8")
    code = "from gliner_fast.cli import main; main()"
    for name, expected in (("in.txt", (0, 1)), ("no.txt", (2, 0))):
        command = [
            "sh",
            "-c",
            '"$@" 2>&-',
            "sh",
            sys.executable,
            "-c",
            code,
            "extract",
            tmp_path / name,
            "-l",
            "person",
        ]
        process = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        assert (process.returncode, len(_rows(process.stdout))) == expected


def test_version_and_help(run):
    assert run("--version") == (0, f"gliner-fast {__version__}\n", "")
    for command in ("predict", "extract", "verify", "info"):
        code, out, _ = run(command, "--help")
        assert code == 0
        assert f"gliner-fast {command} " in out  # an example to start from
    for arguments in ([], ["--help"]):
        assert "gliner-fast predict " in run(*arguments)[1]


def test_help_imports_nothing_heavy():
    check = (
        "import sys; from gliner_fast.cli import main\n"
        "try: main(['extract', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'transformers', 'tokenizers', 'gliner_fast._rust'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", check], check=True, stdout=subprocess.DEVNULL)


def test_a_terminal_shows_colours_and_a_closed_pipe_is_left_in_silence(nursery, tmp_path):
    def predict(stdout, stderr):
        with Path(os.devnull).open("rb") as nothing:
            streams = (nothing.fileno(), stdout, stderr)
            return nursery.command(
                "predict", ADA, "-l", "person,city", streams=streams, folder=tmp_path, TERM="xterm-256color"
            )

    parent, child = pty.openpty()
    process = predict(child, 2)
    os.close(child)
    shown = b""
    try:
        while block := os.read(parent, 4096):
            shown += block
    except OSError:  # Linux says so when the other end has closed
        pass
    assert nursery.wait(process) == 0
    assert re.search(rb"\x1b\[[\d;]+mAda Lovelace\x1b\[0m.* person.*lived in .*London.* city.*\.", shown)
    assert b"{" not in shown
    os.close(parent)

    reader, writer = os.pipe()
    os.close(reader)
    with (tmp_path / "told").open("w+b") as told:
        process = predict(writer, told.fileno())
        os.close(writer)
        assert nursery.wait(process) == 1
        told.seek(0)
        assert told.read() == b""


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (RuntimeError("who \x1b]0;knows"), 2, "RuntimeError: who \u241b]0;knows\n"),
        (AssertionError(), 2, "AssertionError\n"),
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(5), 5, ""),
    ],
)
def test_a_fault_of_our_own_is_told_whole_and_is_no_answer(error, code, told, run, monkeypatch):
    def fail(*arguments):
        raise error

    monkeypatch.setattr("gliner_fast.cli.options.load_model", fail)
    ended, out, err = run("verify", "-l", "person")  # whose 1 says that the answers differ
    assert (ended, out) == (code, "")
    assert err.endswith(told)
    assert err.startswith("Traceback (most recent call last):\n") == bool(told) == ("in fail\n" in err)


def test_an_error_without_words_is_called_by_its_name(run, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr("gliner_fast.cli.options.load_model", fail)
    assert run("verify", "-l", "person") == (2, "", "gliner-fast: error: MemoryError\n")
