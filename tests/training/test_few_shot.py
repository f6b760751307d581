"""The few-shot example: its data is what its README says, and its commands run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gliner_fast.annotated.examples import labels_of, read_examples
from gliner_fast.cli import main
from gliner_fast.training.config import TrainingConfig

EXAMPLE = Path(__file__).parents[2] / "examples" / "few_shot"
LABELS = {"location", "person", "organization", "product", "date", "event"}


def test_nothing_is_tested_on_that_was_trained_on() -> None:
    train, test = (read_examples(EXAMPLE / f"{name}.jsonl") for name in ("train", "test"))
    assert len(train) == len(test) == 400
    assert set(labels_of(train)) == set(labels_of(test)) == LABELS
    assert len({example.words for example in train + test}) == 800


def test_the_commands_run(
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit, match="^0$"):
            main(arguments)
        return capsys.readouterr().out

    assert TrainingConfig.from_yaml(EXAMPLE / "config.yaml").model == "built-in"
    run("data", "sample", str(EXAMPLE / "train.jsonl"), "few.jsonl", "-k", "100")
    # A tiny model instead of the built-in one.
    model = run("train", str(EXAMPLE / "config.yaml"), "--set", f"model={checkpoint('deberta')}", "--set", "steps=1")
    assert model == "runs/few_shot/final\n"
    scores = json.loads(run("evaluate", model.strip(), str(EXAMPLE / "test.jsonl"), "--limit", "20", "--json", "-"))
    assert scores["sets"][0]["examples"] == 20
