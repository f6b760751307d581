"""The paper's ablations, on a handful of rows: runs are made once, and the table says what was compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benches import paper_shape
from tests.training.test_builtin import ROWS, fake_data, fake_encoder

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")  # this tokenizer has GLiNER's tokens already


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    sets = tmp_path / "eval"
    sets.mkdir()
    for name in (*paper_shape.OUT_OF_DOMAIN, *paper_shape.SUPERVISED):
        (sets / f"{name}.labels.json").write_text(json.dumps(["politician", "university"]))
        (sets / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS * 60))
    folders = {"--data": fake_data(tmp_path), "--eval": sets, "--encoder": fake_encoder(tmp_path)}
    folders |= {"--work": tmp_path / "work", "--docs": tmp_path / "docs"}
    return [str(each) for pair in folders.items() for each in pair] + ["--steps", "1", "--sentences", "4"]


def test_shares_of_negatives_are_compared(command: list[str], tmp_path: Path) -> None:
    paper_shape.main(["negatives", *command, "--seeds", "0,1"])
    page = (tmp_path / "docs" / "paper-negatives.md").read_text()
    rows = [line for line in page.splitlines() if "negative types |" in line]
    assert [row.split("|")[1].strip() for row in rows] == [
        "0% negative types",
        "50% negative types",
        "75% negative types",
    ]
    assert all(row.count(" to ") == len(paper_shape.OUT_OF_DOMAIN) + 1 for row in rows)  # a spread in every cell
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("work/*/f1.json")}
    assert len(before) == 6
    paper_shape.main(["negatives", *command, "--seeds", "0,1"])
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("work/*/f1.json")}


def test_other_settings_are_not_mixed_with_earlier_runs(command: list[str]) -> None:
    paper_shape.main(["encoders", *command, "--seeds", "0"])
    with pytest.raises(SystemExit, match="holds a run with other settings"):
        paper_shape.main(["encoders", *command, "--seeds", "0", "--sentences", "5"])


def test_pretraining_is_compared_with_none(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper_shape, "HELD_OUT", 20)
    monkeypatch.setattr(paper_shape, "COUNTS", (10, 50))
    monkeypatch.setattr(paper_shape, "SUPERVISED", ("anatem",))
    paper_shape.main(["pretraining", *command, "--seeds", "0"])
    page = (tmp_path / "docs" / "paper-pretraining.md").read_text()
    for count in (10, 50):
        for start in ("trained model", "bare encoder"):
            assert f"| {count} examples, from the {start} | " in page
