"""Settings of a run: the paper's defaults, YAML and back, and errors that name what is wrong."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gliner_fast.training.config import TrainingConfig, TrainingFile
from gliner_fast.training.setting_values import ConfigError


def write(path: Path, **settings: Any) -> Path:
    path.write_text(yaml.safe_dump({"output_dir": "runs/one", **settings}))
    return path


def test_the_defaults_are_the_paper_s() -> None:
    config = TrainingConfig(output_dir="unused")
    paper = {
        "lr_encoder": 1e-5, "lr_others": 5e-5, "schedule": "cosine", "warmup": 0.1, "steps": 30_000, "dropout": 0.4,
        "max_types": 25, "max_width": 12, "negative_share": 0.5, "random_drop": True, "shuffle_types": True,
        "hidden_size": 768, "loss": "bce", "reduction": "sum",
    }  # fmt: skip
    assert {name: getattr(config, name) for name in paper} == paper


def test_settings_come_back_from_yaml_as_they_were(tmp_path: Path) -> None:
    config = TrainingConfig(
        output_dir="runs/ä",
        train=(
            TrainingFile(path="a.jsonl", labels="file", weight=0.5, others=("b.jsonl",)),
            TrainingFile(path="b.jsonl", labels=("person", "no")),
        ),
        model="m",
        eval_labels=("x",),
        lr_encoder=1e-5,
        weight_decay_others=0.1,
    )
    (tmp_path / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    assert TrainingConfig.from_yaml(tmp_path / "config.yaml") == config
    assert set(yaml.safe_load(config.to_yaml())) == {field.name for field in dataclasses.fields(config)}


def test_short_forms_are_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("output_dir: o\ntrain: a.jsonl\nlr_encoder: 1e-5\nlr_others: 1\nbatch_size: null\neval: [e, f]\n")
    with pytest.raises(ConfigError, match=r"yaml, with step and device changed: step is not a setting: did you mean"):
        TrainingConfig.from_yaml(path, {"step": 7, "device": "cpu"})
    config = TrainingConfig.from_yaml(path, {"steps": 7})
    assert config.train == (TrainingFile(path="a.jsonl"),)
    assert (config.lr_encoder, config.lr_others, config.steps) == (1e-5, 1.0, 7)
    assert type(config.lr_others) is float
    assert config.eval == ("e", "f")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr_encodr": 1}, "lr_encodr is not a setting: did you mean lr_encoder?"),
        ({"zzz": 1}, "zzz is not a setting: expected one of output_dir, "),
        ({"train": [{"path": "a", "wieght": 2}]}, "train[0].wieght is not a setting: did you mean weight?"),
        ({"train": [{"weight": 2}]}, "train[0].path is missing"),
        ({"train": [3]}, "train[0] is 3: expected a path, or settings with a path"),
        ({"train": 3}, "train is 3: expected a list"),
        ({"train": [{"path": "a", "weight": 0}]}, "weight of a is 0.0: expected a number above 0"),
        ({"train": [{"path": "a", "others": ["b"]}]}, "others of a names 'b': expected the path of a file of train"),
        ({"train": [{"path": "a", "labels": 3}]}, "train[0].labels is 3: expected a list"),
        ({"steps": "many"}, "steps is 'many': expected a whole number"),
        ({"steps": 2.5}, "steps is 2.5: expected a whole number"),
        ({"steps": True}, "steps is True: expected a whole number"),
        ({"steps": 0}, "steps is 0: expected a number of at least 1"),
        ({"lr_encoder": "fast"}, "lr_encoder is 'fast': expected a number"),
        ({"lr_encoder": ".nan"}, "lr_encoder is '.nan': expected a number"),
        ({"lr_encoder": "nan"}, "lr_encoder is nan: expected a number from 0 to"),
        ({"random_drop": 2}, "random_drop is 2: expected true or false"),
        ({"output_dir": 3}, "output_dir is 3: expected a string"),
        ({"loss": "bec"}, "loss is 'bec': expected one of bce, focal, dice"),
        ({"negative_share": 1.0}, "negative_share is 1.0: some types must be positive, so it lies below 1"),
        ({"dropout": 1.5}, "dropout is 1.5: expected a number from 0 to 1"),
        ({"focal_alpha": 2}, "focal_alpha is 2.0: expected a number of at most 1"),
        ({"subtoken_pooling": "sum"}, "subtoken_pooling is 'sum': expected one of first, last, mean, max"),
        ({"model": "a", "encoder": "b"}, "both model and encoder are given"),
        ({"labels_encoder": "a"}, "labels_encoder is given without encoder: name the encoder of texts, too, or leave"),
        ({"model": "a", "labels_encoder": "b"}, "both model and labels_encoder are given: leave it out"),
        ({"own_negatives": 0, "other_negatives": 0}, "own_negatives and other_negatives are both 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_named_with_its_file(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "config.yaml", **settings)
    with pytest.raises(ConfigError) as error:
        TrainingConfig.from_yaml(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


@pytest.mark.parametrize(("steps", "interval"), [(1, 1), (25, 3), (500, 50), (30_000, 1_000)])
def test_a_run_of_any_length_has_checkpoints_on_its_way(steps: int, interval: int) -> None:
    config = TrainingConfig(output_dir="out", steps=steps)
    assert config.checkpoint_interval == interval
    assert config.replace(save_steps=1_000).checkpoint_interval == 1_000
    assert "save_steps: null\n" in config.to_yaml()  # it stays the default where steps are changed


def test_values_from_python_become_those_of_yaml(tmp_path: Path) -> None:
    class Schedule(str, enum.Enum):
        LINEAR = "linear"

    given: dict[str, Any] = {
        "output_dir": tmp_path / "o", "train": [TrainingFile(path=tmp_path / "a", partial=["x"]), "b"],  # type: ignore[arg-type]
        "lr_encoder": np.float64(1e-4), "lr_others": np.float32(0.5), "steps": np.int64(3), "compile": np.bool_(True),
        "schedule": Schedule.LINEAR, "eval": tmp_path / "e", "implies": {"athlete": ["person"]},
        "span_width_weight": 0, "eval_labels": np.array(["b", "a"]),
    }  # fmt: skip
    config = TrainingConfig(**given)
    for several in (np.array(["a", "b"]), {"b", "a"}, frozenset("ab"), {"a": 1, "b": 2}.keys(), ("a", "b")):
        assert config.replace(eval_labels=several).eval_labels == ("a", "b")  # type: ignore[arg-type]
    assert config.replace(save_steps=20 / 10).save_steps == 2  # type: ignore[arg-type]
    assert (config.span_width_weight, config.eval_labels) == (False, ("b", "a"))
    assert config.train == (TrainingFile(path=str(tmp_path / "a"), partial=("x",)), TrainingFile(path="b"))
    assert (config.output_dir, config.eval) == (str(tmp_path / "o"), (str(tmp_path / "e"),))
    assert (type(config.lr_encoder), type(config.steps), type(config.schedule)) == (float, int, str)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert TrainingConfig.from_yaml(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "focall"}, "loss is 'focall': expected one of bce, focal, dice"),
        ({"schedule": "linar"}, "schedule is 'linar': expected one of cosine, linear, constant"),
        ({"steps": 1.5}, "steps is 1.5: expected a whole number"),
        ({"train": {"path": "a", "weight": float("inf")}}, "weight of a is inf: expected a number above 0"),
        ({"steps": None}, "steps is None: expected a whole number"),
        ({"train": 3}, "train is 3: expected a list"),
    ],
    ids=str,
)
def test_values_from_python_are_checked_as_those_of_yaml(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainingConfig(output_dir="unused", **settings)


def test_a_file_that_holds_no_settings_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("")
    with pytest.raises(ConfigError, match="output_dir is missing"):
        TrainingConfig.from_yaml(path)
    path.write_text("[1, 2]")
    with pytest.raises(ConfigError, match=r"config.yaml holds a list: expected settings such as 'steps: 1000'"):
        TrainingConfig.from_yaml(path)
    path.write_text("a: [")
    with pytest.raises(ConfigError, match=r"config.yaml is not YAML"):
        TrainingConfig.from_yaml(path)


def test_names_with_lists_are_read_and_written(tmp_path: Path) -> None:
    settings = {"output_dir": "x", "implies": {"athlete": "person"}, "paraphrases": {"person": ["person", "human"]}}
    config = TrainingConfig.from_mapping(settings)
    assert config.implies == {"athlete": ("person",)}
    assert config.paraphrases == {"person": ("person", "human")}
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    assert TrainingConfig.from_yaml(path) == config
    with pytest.raises(ConfigError, match=r"implies is \['athlete'\]: expected names with their values"):
        TrainingConfig.from_mapping({"output_dir": "x", "implies": ["athlete"]})
    with pytest.raises(ConfigError, match=r"implies\['athlete'\]\[0\] is 3: expected a string"):
        TrainingConfig.from_mapping({"output_dir": "x", "implies": {"athlete": [3]}})


def test_settings_without_an_effect_are_named_with_the_reason() -> None:
    assert list(TrainingConfig(output_dir="o", model="m", loss="focal", focal_gamma=2.0, dropout=0.1).unread) == []
    assert list(TrainingConfig(output_dir="o", encoder="e", max_width=20).unread) == []
    config = TrainingConfig(output_dir="o", model="m", max_width=20, focal_gamma=2.0, negatives=0.3, dice_gamma=2.0)
    assert dict(config.unread) == {
        "max_width": "m has its own",
        "focal_gamma": "loss is 'bce'",
        "dice_gamma": "loss is 'bce'",
        "negatives": "masking is 'none'",
    }
    assert dict(config.replace(loss="dice", masking="span", label_smoothing=0.1).unread).keys() == {
        "max_width", "focal_gamma", "label_smoothing",
    }  # fmt: skip


def test_a_learning_rate_is_a_number_that_ends() -> None:
    with pytest.raises(ConfigError, match="lr_encoder is inf: expected a number from 0 to"):
        TrainingConfig(output_dir="o", lr_encoder=float("inf"))
