"""Commands that find relations."""

import json
import re

import pytest

from gliner_fast import GLiNER
from tests.samples import CROSSNER

TEXTS = [" ".join(text.split()[:25]) for text in CROSSNER[:6]]
LABELS = ["person", "organization", "location", "date"]
RELATIONS = ["works for", "located in"]
ASKED = ("-l", ",".join(LABELS), "--relations", "works for, located in")


@pytest.fixture(scope="module")
def folder(checkpoint):
    return checkpoint("relex")


@pytest.fixture(scope="module")
def model(folder):
    return GLiNER.from_pretrained(folder)


def _rows(out):
    return [json.loads(line) for line in out.splitlines()]


def _near(value):
    """Scores of batches of another size may round differently."""
    if isinstance(value, float):
        return pytest.approx(value, abs=1e-4)
    if isinstance(value, dict):
        return {name: _near(own) for name, own in value.items()}
    return [_near(own) for own in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("options", "thresholds"),
    [
        ((), {}),
        (("-t", "0.3"), {"threshold": 0.3}),
        (
            ("-t", "0.3", "--adjacency-threshold", "0.6", "--relation-threshold", "0.1"),
            {"threshold": 0.3, "adjacency_threshold": 0.6, "relation_threshold": 0.1},
        ),
        (
            ("--label-threshold", "person=0.1", "-t", "0.3", "--relations", "part of"),
            {"threshold": {"person": 0.1, "organization": 0.3, "location": 0.3, "date": 0.3}},
        ),
    ],
)
def test_predict_gives_the_relations_of_inference(options, thresholds, run, folder, model):
    code, out, err = run("predict", *TEXTS, *ASKED, *options, "-m", folder)
    assert (code, err) == (0, "")
    asked = [*RELATIONS, *(["part of"] if "part of" in options else [])]
    entities, relations = model.inference(TEXTS, LABELS, asked, **thresholds)
    assert any(relations)
    assert _rows(out) == [
        {"text": text, "entities": _near(own), "relations": _near(linked)}
        for text, own, linked in zip(TEXTS, entities, relations, strict=True)
    ]


def test_predict_without_relations_gives_entities_alone(run, folder, model):
    code, out, _ = run("predict", *TEXTS, "-l", ",".join(LABELS), "-t", "0.3", "-m", folder)
    assert code == 0
    found = model.inference(TEXTS, LABELS, threshold=0.3, return_relations=False)
    assert _rows(out) == [{"text": text, "entities": _near(own)} for text, own in zip(TEXTS, found, strict=True)]


def test_people_see_relations_below_the_text(run, folder, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    code, out, _ = run("predict", *TEXTS, *ASKED, "-t", "0.3", "-m", folder)
    rows = _rows(run("predict", *TEXTS, *ASKED, "-t", "0.3", "-m", folder, "--json")[1])
    shown = re.sub(r"\x1b\[[\d;]*m", "", out)
    below = [line for line in shown.splitlines() if line.startswith("  ")]
    assert code == 0
    assert below == [
        f"  {one['head']['text']} → {one['relation']} → {one['tail']['text']} {one['score']:.2f}"
        for row in rows
        for one in row["relations"]
    ]
    assert below


def test_extract_writes_relations(run, folder, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
    options = ("-t", "0.3", "--adjacency-threshold", "0.4", "--relation-threshold", "0.2", "-m", folder)
    code, _, err = run("extract", "in.txt", "-o", "out.jsonl", *ASKED, *options, "--relations-column", "links")
    thresholds = {"threshold": 0.3, "adjacency_threshold": 0.4, "relation_threshold": 0.2}
    _, relations = model.inference(TEXTS, LABELS, RELATIONS, **thresholds)
    assert code == 0
    assert f" entities, {sum(map(len, relations))} relations in out.jsonl\n" in err
    rows = _rows((tmp_path / "out.jsonl").read_text(encoding="utf-8"))
    assert [row["links"] for row in rows] == _near(relations)
    code, _, err = run("extract", "in.txt", "-o", "out.jsonl", *ASKED, "-m", folder)
    assert code == 2
    assert "threshold was 0.3 and is 0.5; relations_column was 'links' and is 'relations'" in err.replace(
        "; adjacency_threshold was 0.4 and is None; relation_threshold was 0.2 and is None", ""
    )


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--relations", " ,"), "--relations names none: say what to look for"),
        (("--relation-threshold", "0.3"), "belong to --relations"),
        (("--adjacency-threshold", "0"), "belong to --relations"),
        (("--relations", "a", "--adjacency-threshold", "2"), "--adjacency-threshold"),
        (("--relations", "a", "--layout", "rows"), "use 'list'"),
        (("--relations", "a"), "this model finds entities alone"),
        (("--relations-column", "links"), "relations_column is given without relations"),
    ],
)
def test_extract_refuses_in_one_line(options, complaint, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("Ada\n", encoding="utf-8")
    code, out, err = run("extract", "in.txt", "-o", "out.jsonl", "-l", "person", *options)
    assert (code, out) == (2, "")
    assert err.startswith("gliner-fast: error: ")
    assert err.count("\n") == 1
    assert complaint in err
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]
