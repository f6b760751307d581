"""`gliner-fast train`: a configuration in, the folder of a model out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from gliner_fast import GLiNER
from gliner_fast.cli.reading import InputError
from gliner_fast.cli.train import train
from gliner_fast.training import trainer
from gliner_fast.training.config import TrainingConfig
from gliner_fast.training.setting_values import ConfigError, read_changes
from tests.training.sentences import write_sentences

app = typer.Typer()
app.command()(train)


@pytest.fixture
def config(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    settings = {
        "output_dir": str(tmp_path / "run"),
        "model": str(checkpoint("deberta")),
        "train": str(write_sentences(tmp_path / "data.jsonl")),
        "device": "cpu",
        "steps": 4,
        "log_steps": 2,
        "save_steps": 2,
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def test_a_run_tells_its_progress_and_prints_its_model(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app([str(config), "--set", "dropout=0.1", "--set", f"eval=[{config.parent / 'data.jsonl'}]"], standalone_mode=False)
    out, err = capsys.readouterr()
    assert out == f"{config.parent / 'run' / 'best'}\n"
    assert "20 examples; left out: 0 spans" in err
    assert "step 2 of 4  loss " in err
    assert "4 steps, loss " in err
    assert "; best F1 " in err
    assert GLiNER.from_pretrained(out.strip()).config.dropout == 0.1


def test_resume_goes_on_and_quiet_says_nothing(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(config), "--resume", "--quiet"]  # nothing to resume: it begins
    app(arguments, standalone_mode=False)
    app(arguments, standalone_mode=False)
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [str(config.parent / "run" / "final")] * 2
    app(arguments[:-1], standalone_mode=False)
    assert "4 steps, trained before, " in capsys.readouterr().err


def test_a_run_goes_on_from_a_tenth_of_its_steps_and_tells_where_it_begins(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> Any:
        if any(config.parent.glob("run/checkpoint-*")):
            raise KeyboardInterrupt
        return original(*arguments)

    original = trainer.Trainer.step
    monkeypatch.setattr(trainer.Trainer, "step", interrupted)
    arguments = [str(config), "--resume", "--set", "steps=20", "--set", "save_steps=null"]
    beginning = f"no checkpoint in {config.parent / 'run'}: beginning at step 0\n"
    assert app(arguments, standalone_mode=False) == 130
    assert beginning in capsys.readouterr().err
    assert [path.name for path in config.parent.glob("run/checkpoint-*")] == ["checkpoint-000002"]
    assert app(arguments, standalone_mode=False) == 130
    err = capsys.readouterr().err
    assert "going on after step 2\n" in err
    assert beginning not in err


def test_show_prints_every_setting(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app([str(config), "--show", "--set", "lr_encoder=5e-6", "--set", "batch_size=8"], standalone_mode=False)
    text = capsys.readouterr().out
    shown = yaml.safe_load(text)
    assert (shown["lr_encoder"], shown["batch_size"], shown["steps"], shown["max_types"]) == (5e-6, 8, 4, 25)
    assert not (config.parent / "run").exists()
    # What is printed is a configuration itself, and says what every setting means.
    config.write_text(text)
    assert TrainingConfig.from_yaml(config).to_yaml() == yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)
    lines = text.splitlines()
    assert lines[lines.index("steps: 4") - 1] == "# Steps of the optimizer."
    settings = [index for index, line in enumerate(lines) if line.split(":")[0] in shown]
    assert [lines[index] for index in settings if index == 0 or not lines[index - 1].startswith("# ")] == []


def test_show_needs_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    app(["--show", "--set", "steps=20"], standalone_mode=False)
    shown = yaml.safe_load(capsys.readouterr().out)
    assert TrainingConfig.from_mapping(shown) == TrainingConfig(output_dir="runs/first", steps=20)
    with pytest.raises(InputError, match=r"no CONFIG.yaml: .* --show prints one to start from"):
        app(["--quiet"], standalone_mode=False)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (1, "stopped before the first checkpoint, which save_steps puts at 2"),
        (3, "With --resume it goes on from the last checkpoint"),
    ],
)
def test_an_interrupt_says_how_to_go_on(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, step: int, message: str
) -> None:
    def interrupted(*arguments: Any) -> Any:
        nonlocal step
        step -= 1
        if step == 0:
            raise KeyboardInterrupt
        return original(*arguments)

    original = trainer.Trainer.step
    monkeypatch.setattr(trainer.Trainer, "step", interrupted)
    assert app([str(config)], standalone_mode=False) == 130
    assert message in capsys.readouterr().err


def test_settings_that_are_nested_too_deep_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "deep.yaml"
    file.write_text("x: " + "[" * 1000)
    with pytest.raises(ConfigError, match=r"deep\.yaml is nested deeper than YAML is read"):
        TrainingConfig.from_yaml(file)
    with pytest.raises(ConfigError, match="--set x: its value is nested deeper than YAML is read"):
        read_changes(["x=" + "[" * 1000])


@pytest.mark.parametrize(
    ("change", "message"),
    [("steps", "--set steps: expected NAME=VALUE"), ("=3", "--set =3: expected NAME"), ("a=[", "'\\[' is not YAML")],
)
def test_changes_of_another_form_are_refused(change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_changes([change])
