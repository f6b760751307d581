"""`gliner-fast verify`: texts from anywhere, and what it says of two packages' answers."""

import gzip
import io
import json
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gliner_fast.cli.reading import read_texts
from gliner_fast.comparing import verification
from gliner_fast.comparing.report import RelationReport, VerificationReport
from tests.samples import CROSSNER, LABELS

ADA = "Ada Lovelace lived in London."


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
        (("--dtype", "int8"), 0.1),
        (("--dtype", "bf16", "--tolerance", "0"), 0),
    ],
)
def test_verify_expects_no_more_of_scores_than_their_precision_has(given, tolerance, run, monkeypatch):
    seen = []
    report = VerificationReport(1, 9, 9, 0, 0, 0, 0.0, 1e-4, (), "0.2.29")
    monkeypatch.setattr(verification, "compare", lambda *_, **options: seen.append(options["tolerance"]) or report)
    for name in ("require_reference", "load_reference", "_warn_of_a_random_lstm", "_answers_of_reference"):
        monkeypatch.setattr(verification, name, lambda *_, **__: None)
    monkeypatch.setattr(verification, "words_have_places", lambda *_: nullcontext())
    assert run("verify", "-l", "person", *given)[0] == 0
    assert seen == [tolerance]


@pytest.mark.parametrize(
    ("dtype", "moved", "unexplained", "hints"),
    [("bf16", 2, 0, True), ("bf16", 2, 1, False), ("bf16", 0, 1, False), ("fp32", 2, 0, False)],
)
def test_verify_says_where_a_larger_tolerance_is_all_that_it_takes(dtype, moved, unexplained, hints, run, monkeypatch):
    report = VerificationReport(1, 9, 9 - moved, moved, 0, unexplained, 0.01, 1e-4, (), "0.2.29")
    monkeypatch.setattr(verification, "verify", lambda *_, **__: report)
    code, _, err = run("verify", "-l", "person", "--dtype", dtype)
    assert code == 1
    assert ("only scores moved" in err) is ("--tolerance" in err) is hints


@pytest.mark.gliner
def test_verify_compares_relations(run, checkpoint, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(CROSSNER[:12]), encoding="utf-8")
    arguments = ("verify", checkpoint("relex"), "-l", ",".join(LABELS), "--texts", texts, "-t", "0.3")
    asked = ("--relations", "works for, located in", "--relations", "born in")
    code, out, _ = run(*arguments, *asked, "--adjacency-threshold", "0.2", "--relation-threshold", "0.25")
    assert code == 0
    assert " relations found by gliner\n" in out
    assert out.endswith("The same answers.\n")
    arguments += ("--limit", "4")
    code, out, _ = run(*arguments, *asked, "--json")
    assert code == 0
    report = json.loads(out)
    assert report["relations"]["found"] == report["relations"]["equal"] > 5
    code, out, _ = run(*arguments)
    assert code == 0
    assert "relation" not in out


def test_what_verify_is_asked_of_relations(run, monkeypatch):
    seen = {}
    report = VerificationReport(1, 9, 9, 0, 0, 0, 0.0, 1e-4, (), "0.2.29", RelationReport(3, 2, 0, 0, 1, 0.0))
    monkeypatch.setattr(verification, "verify", lambda *_, **options: seen.update(options) or report)
    code, out, _ = run("verify", "-l", "person", "--relations", "a, b", "--relations", "c", "--relation-threshold", "0")
    assert code == 1
    assert out.endswith("NOT the same answers.\n")
    assert seen["relations"] == ["a", "b", "c"]
    assert (seen["adjacency_threshold"], seen["relation_threshold"]) == (None, 0)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (("--relation-threshold", "0.3"), "belong to --relations"),
        (("--relations", " , "), "--relations names none"),
        (("--relations", "works for"), "this model finds entities alone"),
    ],
)
def test_relations_that_cannot_be_compared(given, complaint, run):
    pytest.importorskip("gliner")
    code, _, err = run("verify", "-l", "person", *given)
    assert code == 2
    assert complaint in err


@pytest.mark.parametrize(("moved", "unexplained", "hints"), [(1, 0, True), (1, 1, False), (0, 0, False)])
def test_verify_says_so_of_relations_too(moved, unexplained, hints, run, monkeypatch):
    linked = RelationReport(3, 3 - moved, moved, 0, unexplained, 0.25)
    report = VerificationReport(1, 9, 9, 0, 0, 0, 0.01, 1e-4, (), "0.2.29", linked)
    monkeypatch.setattr(verification, "verify", lambda *_, **__: report)
    _, _, err = run("verify", "-l", "person", "--relations", "a", "--dtype", "bf16")
    assert ("only scores moved, by up to 0.25" in err) is hints
