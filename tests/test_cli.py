"""`gliner-fast`: what it reads, what it writes, and that its errors are one line."""

import gzip
import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gliner_fast import __version__
from gliner_fast.cli import main
from gliner_fast.cli.reading import WantedLabels, in_chunks, read_labels, read_texts, read_thresholds
from gliner_fast.cli.showing import coloured, json_line
from gliner_fast.comparing import verification

ADA = "Ada Lovelace lived in London."


@pytest.fixture
def run(capfd, monkeypatch):
    """Runs the command line; gives its exit code, what it wrote, and its complaints."""

    def runner(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return end.value.code, out, err

    return runner


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
        (["predict", ADA, "-l", "a", "--labels-file", "x.json"], b"", "name the labels in one place"),
        (["predict", ADA, "--labels-file", "no.json"], b"", "no.json: No such file or directory"),
        (["predict", ADA, "-l", "a", "-t", "2"], b"", "--threshold"),
        (["predict", ADA, "-l", "a", "-t", "x"], b"", "--threshold"),
        (["predict", ADA, "-l", "a", "-t", "nan"], b"", "--threshold"),
        (["predict", ADA, "-l", "a", "--label-threshold", "a"], b"", "expected LABEL=NUMBER"),
        (["predict", ADA, "-l", "a", "--label-threshold", "a=2"], b"", "expected LABEL=NUMBER"),
        (["predict", ADA, "-l", "a", "--label-threshold", "a=nan"], b"", "expected LABEL=NUMBER"),
        (["predict", ADA, "-l", "a", "--label-threshold", "b=0.5"], b"", "'b' is not among the labels"),
        (["predict", ADA, "-l", "a", "-m", "no/such/folder"], b"", "no/such/folder does not exist"),
        (["predict", ADA, "-l", "a", "-m", "."], b"", "No config file found"),
        (["predict", ADA, "-l", "a", "--device", "quantum"], b"", "device 'quantum'"),
        (["predict", ADA, "-l", "a", "--dtype", "fp7"], b"", "fp7"),
        (["predict", ADA, "-l", "a", "--wrong"], b"", "No such option"),
        (["predict", "-l", "a"], b"fine\n\xff\xfe\n", "stdin, line 2 is not UTF-8"),
        (["wrong"], b"", "No such command"),
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


def test_info_says_what_is_here_and_what_the_checkpoint_is(run):
    code, out, _ = run("info")
    assert code == 0
    for line in (
        f"gliner-fast +{__version__}", "torch +2", "cpu +.*threads", "kind +uni-encoder, span", "runs here +yes",
        "encoder +bert", "parameters +[0-9,]{10}",
    ):  # fmt: skip
        assert re.search(line, out), line


@pytest.mark.gliner
@pytest.mark.parametrize(
    ("kind", "era", "encoder"),
    [
        ("era-v1", "gliner 0.1 (first era)", "deberta-v2"),
        ("era-has-rnn", "gliner 0.2.0 to 0.2.22", "deberta-v2"),
        ("bert", "gliner 0.2.23 or later", "bert"),
    ],
)
def test_info_names_the_era_and_counts_parameters(kind, era, encoder, run, checkpoint):
    from gliner_fast import GLiNER

    code, out, _ = run("info", checkpoint(kind), "--json")
    assert code == 0
    found = json.loads(out)["checkpoint"]
    assert found["written by"] == era
    assert found["encoder"].startswith(encoder)
    assert found["folder"] == str(checkpoint(kind))
    network = GLiNER.from_pretrained(checkpoint(kind)).model
    assert int(found["parameters"].replace(",", "")) == sum(p.numel() for p in network.parameters())


def test_info_counts_no_scales_of_rows(run):
    from gliner_fast import GLiNER

    _, out, _ = run("info", "--json", "built-in")
    counted = json.loads(out)["checkpoint"]["parameters"].replace(",", "")
    assert int(counted) == sum(p.numel() for p in GLiNER.from_pretrained().model.parameters())


def test_info_describes_kinds_that_do_not_run_here(run, tmp_path):
    (tmp_path / "gliner_config.json").write_text(
        json.dumps({"span_mode": "token_level", "relations_layer": "x", "encoder_config": {"model_type": "bert"}})
    )
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    code, out, _ = run("info", tmp_path)
    assert code == 0
    assert re.search("kind +relation extraction, token-level", out)
    assert re.search("runs here +no: .*relation extraction", out)


@pytest.mark.parametrize(
    ("kind", "told", "head", "label_vector"),
    [
        ("token", "uni-encoder, token-level", "marks where entities start, end and go on", "the entity token"),
        ("bi", "bi-encoder, span", "spans of up to 12 words", "by an encoder of its own, bert"),
    ],
)
def test_info_describes_other_kinds_that_run_here(run, checkpoint, kind, told, head, label_vector):
    code, out, _ = run("info", checkpoint(kind))
    assert code == 0
    assert re.search("runs here +yes", out)
    assert re.search(f"kind +{told}", out)
    assert re.search(f"head +.*{head}", out)
    assert re.search(f"label vector +{label_vector}", out)
    assert re.search(r"written by +gliner 0\.2\.23 or later", out)


@pytest.mark.parametrize(
    ("splitter", "told"),
    [
        ("whitespace", None),
        ("janome", "split by janome, for which pip install janome"),
        ("moses", "split by moses, which nobody knows"),
    ],
)
def test_info_names_a_word_splitter_that_is_not_the_usual_one(splitter, told, run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "janome", None)  # not installed
    config = {"words_splitter_type": splitter, "encoder_config": {"model_type": "bert"}}
    (tmp_path / "gliner_config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    code, out, _ = run("info", "--json", tmp_path)
    assert code == 0
    assert json.loads(out)["checkpoint"].get("words") == told


def test_info_of_a_broken_file_is_an_error(run, tmp_path):
    (tmp_path / "gliner_config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes((100).to_bytes(8, "little") + b'{"a')
    code, _, err = run("info", tmp_path)
    assert code == 2
    assert "broken or cut off" in err


@pytest.mark.gliner
def test_verify_says_whether_the_answers_are_the_same(run, checkpoint, tmp_path):
    code, out, _ = run("verify", checkpoint("deberta"), "-l", "person,city")
    assert code == 0
    assert out.endswith("The same answers.\n")
    texts = tmp_path / "texts.jsonl"
    texts.write_text(json.dumps({"body": ADA}))
    code, out, _ = run(
        "verify", checkpoint("deberta"), "-l", "person", "--texts", texts, "--text-column", "body", "--json", "-t", "0"
    )
    assert code == 0
    report = json.loads(out)
    assert (report["ok"], report["texts"]) == (True, 1)
    assert report["entities"] > 0


@pytest.mark.parametrize("name", ["in.jsonl", "in.parquet", "in.csv", "in.txt", "in.jsonl.gz", "in", "-"])
def test_texts_come_from_whatever_a_job_reads(name, tmp_path, monkeypatch):
    texts, path = ["Ada", "Zoë, Łódź", "我在"], tmp_path / name
    rows = "".join(json.dumps({"body": text}) + "\n" for text in texts)
    column, input_format = "body", None
    if name == "in.parquet":
        pq.write_table(pa.table({"body": texts}), path)
    elif name == "in.csv":
        path.write_text("n,body\n" + "".join(f'1,"{text}"\n' for text in texts), encoding="utf-8")
    elif name == "in.jsonl.gz":
        path.write_bytes(gzip.compress(rows.encode()))
    elif name == "in.jsonl":
        path.write_text(rows, encoding="utf-8")
    elif name == "-":
        lines = io.TextIOWrapper(io.BytesIO("\n".join(texts).encode()))
        monkeypatch.setattr("sys.stdin", lines)
        path, column = Path("-"), "text"
    else:
        path.write_text("\n".join(texts), encoding="utf-8")
        column, input_format = "text", "text" if name == "in" else None
    assert read_texts(str(path), column, input_format=input_format) == texts
    if name != "-":
        assert read_texts(str(path), column, input_format=input_format, limit=2) == texts[:2]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ('{"text": "a"}\n{"text": 5}\n', "in.jsonl, line 2: 'text' is 5 (int): expected a string"),
        ('{"text": "a"}\n[]\n', "in.jsonl, line 2: [] (list) is no JSON object"),
        ('{"body": "a"}\n', "no field 'text' (its fields: 'body')"),
    ],
)
def test_a_row_without_a_text_is_named(rows, complaint, run, tmp_path):
    (tmp_path / "in.jsonl").write_text(rows)
    code, _, err = run("bench", tmp_path / "in.jsonl", "-l", "person")
    assert code == 2
    assert complaint in err


@pytest.mark.gliner
def test_verify_exits_with_1_where_answers_differ(run, checkpoint):
    code, out, _ = run("verify", checkpoint("deberta"), "-l", "person,city", "-t", "0.1", "--tolerance", "0")
    assert code == 1
    assert "NOT the same answers." in out


@pytest.mark.gliner
def test_verify_takes_the_first_texts_and_says_so(run, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "_REFERENCE_TEXTS", 2)
    monkeypatch.setattr(verification, "_SECONDS_OF_SILENCE", -1)
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"{ADA} {number}\n" for number in range(6)))
    arguments = ("verify", checkpoint("deberta"), "-l", "person", "--texts", texts)
    code, out, err = run(*arguments, "--limit", "5")
    assert code == 0
    assert out.startswith("5 texts")
    assert "the first 5 texts are compared: --limit takes more" in err
    assert [line for line in err.splitlines() if "gliner: " in line] == [
        f"gliner-fast: gliner: {count} of 5 texts" for count in (2, 4, 5)
    ]
    _, out, err = run(*arguments)
    assert out.startswith("6 texts")
    assert "--limit" not in err


def test_verify_names_the_option_for_texts_where_a_model_was_expected(run, tmp_path):
    (tmp_path / "articles.jsonl").write_text("{}")
    code, _, err = run("verify", tmp_path / "articles.jsonl", "-l", "person")
    assert code == 2
    assert "texts are given with --texts" in err


@pytest.mark.parametrize(
    ("given", "tolerance"),
    [
        ((), 1e-4),
        (("--dtype", "bf16"), 0.05),
        (("--dtype", "fp16"), 0.01),
        (("--dtype", "int16"), 0.01),
        (("--dtype", "bf16", "--tolerance", "0"), 0),
    ],
)
@pytest.mark.filterwarnings("ignore:int16 is made for x86")
def test_verify_expects_no_more_of_scores_than_their_precision_has(given, tolerance, run, monkeypatch):
    seen = []
    report = verification.VerificationReport(1, 9, 9, 0, 0, 0, 0.0, 1e-4, (), "0.2.29")
    monkeypatch.setattr(verification, "verify", lambda *_, **options: seen.append(options["tolerance"]) or report)
    assert run("verify", "-l", "person", *given)[0] == 0
    assert seen == [tolerance]


@pytest.mark.parametrize(
    ("dtype", "moved", "unexplained", "hints"),
    [("bf16", 2, 0, True), ("bf16", 2, 1, False), ("bf16", 0, 1, False), ("fp32", 2, 0, False)],
)
def test_verify_says_where_a_larger_tolerance_is_all_that_it_takes(dtype, moved, unexplained, hints, run, monkeypatch):
    report = verification.VerificationReport(1, 9, 9 - moved, moved, 0, unexplained, 0.01, 1e-4, (), "0.2.29")
    monkeypatch.setattr(verification, "verify", lambda *_, **__: report)
    code, _, err = run("verify", "-l", "person", "--dtype", dtype)
    assert code == 1
    assert ("only scores moved" in err) is ("--tolerance" in err) is hints


def test_a_terminal_shows_colours_and_a_closed_pipe_is_left_in_silence():
    command = [sys.executable, "-c", "from gliner_fast.cli import main; main()", "predict", ADA, "-l", "person,city"]
    parent, child = pty.openpty()
    with subprocess.Popen(command, stdout=child, env=os.environ | {"TERM": "xterm-256color"}) as process:
        os.close(child)
        shown = b""
        try:
            while block := os.read(parent, 4096):
                shown += block
        except OSError:  # Linux says so when the other end has closed
            pass
    assert process.returncode == 0
    assert re.search(rb"\x1b\[[\d;]+mAda Lovelace\x1b\[0m.* person.*lived in .*London.* city.*\.", shown)
    assert b"{" not in shown
    os.close(parent)

    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (process.returncode, process.stderr) == (1, b"")


def _plain(text, spans):
    entities = [{"start": s, "end": e, "label": label, "score": 0.5, "text": text[s:e]} for s, e, label in spans]
    return coloured(text, entities, ["a", "b"]).plain


@pytest.mark.parametrize(
    ("text", "spans", "shown"),
    [
        ("Ada in Rome", [(0, 3, "a"), (7, 11, "b")], "Ada a 0.50 in Rome b 0.50"),
        ("Ada in Rome", [], "Ada in Rome"),
        ("", [], ""),
        ("New York City", [(0, 13, "a"), (0, 8, "b")], "New York b 0.50 City a 0.50"),
        ("New York", [(0, 8, "a"), (0, 8, "b")], "New York a 0.50 b 0.50"),
        ("x\x1b[31mred\x07\r", [(0, 1, "a")], "x a 0.50\u241b[31mred\u2407\u240d"),
        ("\ud800 [bold]x[/]", [(2, 8, "a")], "\ufffd [bold] a 0.50x[/]"),
    ],
)
def test_entities_are_marked_where_they_stand(text, spans, shown):
    assert _plain(text, spans) == shown


def test_json_lines_are_utf8():
    assert json_line({"text": "Zoë"}) == '{"text": "Zoë"}\n'.encode()
    assert json_line({"text": "\ud800ë"}) == b'{"text": "\\ud800\\u00eb"}\n'


def test_chunks_and_settings():
    assert [len(chunk) for chunk in in_chunks(({"n": n} for n in range(5)), 2)] == [2, 2, 1]
    assert list(in_chunks([], 2)) == []
    assert read_labels(["a,b", "c"], None).labels == ["a", "b", "c"]
    assert read_thresholds(0.4, [], WantedLabels(["a"], {})) == 0.4
    assert read_thresholds(0.4, ["a=b=0.7"], WantedLabels(["a=b", "c"], {})) == {"a=b": 0.7, "c": 0.4}
    assert read_thresholds(0.4, ["a=0.7"], WantedLabels(["a", "b"], {"a": 0.1, "b": 0.2})) == {"a": 0.7, "b": 0.2}


@pytest.mark.parametrize(
    ("name", "content", "labels", "thresholds"),
    [
        ("l.txt", "person\n\n city, or town \n", ["person", "city, or town"], {}),
        ("l.txt", "[PER] a person\n{city}\n", ["[PER] a person", "{city}"], {}),
        ("l.json", '["a", "b"]', ["a", "b"], {}),
        ("l.JSON", '["a", "b"]', ["a", "b"], {}),
        ("l.jsn", ' ["a", "b"]', ["a", "b"], {}),
        ("l.json", '{"a": "first", "b": "second"}', {"a": "first", "b": "second"}, {}),
        ("l.json", '{"a": {"threshold": 0.7}, "b": {}}', ["a", "b"], {"a": 0.7}),
        ("l.json", '{"a": {"description": "first", "threshold": 1}, "b": "b"}', {"a": "first", "b": "b"}, {"a": 1.0}),
    ],
)
def test_labels_files_hold_names_descriptions_and_thresholds(name, content, labels, thresholds, tmp_path):
    file = tmp_path / name
    file.write_text(content, encoding="utf-8")
    wanted = read_labels([], file)
    assert (wanted.labels, wanted.thresholds) == (labels, thresholds)
