"""`train_model` with the package's arguments."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gliner_fast import GLiNER
from gliner_fast.annotated.example import DataError
from gliner_fast.training import ConfigError, TrainingConfig, TrainingError, drop_in, train_model
from gliner_fast.training.optimizer import schedule_factor
from gliner_fast.weights import has_weights_of
from tests.installed import TRANSFORMERS
from tests.training.sentences import annotated_sentences

ROWS = annotated_sentences()


@pytest.fixture
def model(checkpoint: Callable[[str], Path]) -> GLiNER:
    return GLiNER.from_pretrained(checkpoint("deberta"))


def configured(model: GLiNER, tmp_path: Path, **options: Any) -> TrainingConfig:
    """The settings that a call leads to."""
    seen = []

    class StopError(Exception):
        pass

    def watched(_model: object, _corpus: object, _evals: object, config: TrainingConfig, *_: object, **__: object):
        seen.append(config)
        raise StopError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drop_in, "Trainer", watched)
        with pytest.raises(StopError):
            train_model(model, ROWS, output_dir=tmp_path, **options)
    return seen[0]


def test_a_model_is_trained_in_place_and_saved(model: GLiNER, tmp_path: Path, capsys: Any) -> None:
    texts, labels = ["Ada Lovelace was born in London ."], ["person", "place"]
    before = model.inference(texts, labels, threshold=0.0)
    report = model.train_model(
        ROWS, ROWS[:5], output_dir=tmp_path, max_steps=3, learning_rate=1e-3, use_cpu=True, save_steps=2
    )
    after = model.inference(texts, labels, threshold=0.0)
    assert after != before
    assert GLiNER.from_pretrained(tmp_path / "final").inference(texts, labels, threshold=0.0) == [
        [{**entity, "score": pytest.approx(entity["score"], abs=1e-5)} for entity in own] for own in after
    ]
    assert model.source == tmp_path / "final"  # not where it came from: jobs and verify look there
    assert has_weights_of(model.model, model.source)
    assert report.steps == 3
    assert report.best is not None
    assert "step 3 of 3" in capsys.readouterr().err


def test_defaults_are_the_package_s(model: GLiNER, tmp_path: Path) -> None:
    config = configured(model, tmp_path)
    assert (config.lr_encoder, config.lr_others, config.weight_decay, config.schedule) == (5e-5, 5e-5, 0.01, "linear")
    assert (config.steps, config.batch_size, config.warmup, config.max_grad_norm) == (10_000, 8, 0.1, 1.0)
    assert (config.sampling, config.loss, config.masking, config.dropout) == ("gliner", "focal", "none", 0.4)


def test_settings_go_by_the_package_s_names(model: GLiNER, tmp_path: Path) -> None:
    config = configured(
        model, tmp_path, learning_rate=1e-5, others_lr=5e-5, others_weight_decay=0.1, focal_loss_alpha=0.75,
        focal_loss_gamma=2, masking="global", negatives=0.5, loss_reduction="mean", num_train_epochs=2, max_steps=-1,
        per_device_train_batch_size=4, gradient_accumulation_steps=2, warmup_steps=1, lr_scheduler_type="cosine",
        bf16=True, freeze_components=["text_encoder"],
    )  # fmt: skip
    assert (config.lr_encoder, config.lr_others, config.weight_decay_others) == (1e-5, 5e-5, 0.1)
    assert (config.focal_alpha, config.focal_gamma, config.masking, config.negatives) == (0.75, 2, "global", 0.5)
    # 2 epochs of 20 texts: 5 batches of 4 each, which are 3 steps.
    assert (config.steps, config.accumulation, config.warmup_steps) == (6, 2, 1)
    assert (config.precision, config.freeze_encoder, config.schedule) == ("bf16", True, "cosine")


@pytest.mark.gliner
def test_training_arguments_of_the_package_are_read(model: GLiNER, tmp_path: Path) -> None:
    from gliner.training import TrainingArguments

    arguments = TrainingArguments(str(tmp_path), learning_rate=3e-5, max_steps=7, warmup_ratio=0.5, use_cpu=True)
    config = configured(model, tmp_path, training_args=arguments)
    assert (config.lr_encoder, config.steps, config.warmup, config.device) == (3e-5, 7, 0.5, "cpu")
    assert (config.masking, config.schedule) == ("global", "linear")  # its own defaults, other than the function's


@pytest.mark.gliner
@pytest.mark.parametrize(
    "given",
    [
        {"others_lr": 5e-5},  # the class decays by 0.0 what it does not call the encoder's
        {"others_lr": 5e-5, "others_weight_decay": 0.3},
        {"others_lr": 0.0, "others_weight_decay": 0.0},
        {"others_weight_decay": 0.3},  # not read without others_lr
        {"lr_scheduler_type": "constant", "warmup_ratio": 0.5},
        {"lr_scheduler_type": "constant", "warmup_steps": 4},
        {"lr_scheduler_type": "constant_with_warmup", "warmup_ratio": 0.5},
    ],
)
@pytest.mark.parametrize("created", [False, True], ids=["class", "create_training_args"])
def test_rates_and_decays_are_those_of_the_package_s_trainer(
    model: GLiNER, tmp_path: Path, created: bool, given: dict[str, Any]
) -> None:
    from gliner import GLiNER as Reference
    from gliner.training import Trainer, TrainingArguments

    from gliner_fast.training.optimizer import parameter_groups

    settings = {"learning_rate": 1e-5, "weight_decay": 0.01, "max_steps": 10, "use_cpu": True, "report_to": "none"}
    reference = Reference.from_pretrained(str(model.source))
    make = reference.create_training_args if created else TrainingArguments
    arguments = make(output_dir=str(tmp_path), **settings, **given)
    trainer = Trainer(model=reference, args=arguments, train_dataset=[1])
    trainer.create_optimizer_and_scheduler(10)
    theirs = {
        (group["initial_lr"] if group["params"] else None, group["weight_decay"] if group["params"] else None)
        for group in trainer.optimizer.param_groups
    } - {(None, None)}
    factors = []
    for _ in range(10):
        factors.append(trainer.lr_scheduler.lr_lambdas[0](len(factors)))
    config = configured(model, tmp_path, training_args=arguments)
    ours = {(group["peak_lr"], group["weight_decay"]) for group in parameter_groups(model.model, config)}
    assert ours == theirs
    assert [schedule_factor(step, config) for step in range(10)] == pytest.approx(factors)
    if created:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # report_to
            assert configured(model, tmp_path, **settings, **given) == config


@pytest.mark.parametrize("share", [True, False], ids=["shares of the steps", "numbers of steps"])
def test_steps_may_be_shares_as_in_transformers_5(model: GLiNER, tmp_path: Path, share: bool) -> None:
    counts = {"warmup_steps": 8, "save_steps": 20, "logging_steps": 4, "eval_steps": 10}
    given = {name: count / 40 if share else count for name, count in counts.items()}
    config = configured(model, tmp_path, max_steps=40, **given)
    assert [schedule_factor(step, config) for step in (0, 4, 8)] == [0.0, 0.5, 1.0]
    assert (config.save_steps, config.log_steps, config.eval_steps) == (20, 4, 10)


@pytest.mark.parametrize("steps", [29, 12], ids=["of a share that is rounded up", "of fewer steps"])
def test_steps_of_warm_up_are_as_many_as_given(model: GLiNER, tmp_path: Path, steps: int) -> None:
    config = configured(model, tmp_path, max_steps=steps, warmup_steps=15)
    assert [schedule_factor(step, config) for step in (3, 9, 14)] == [3 / 15, 9 / 15, 14 / 15]


@pytest.mark.gliner
@pytest.mark.parametrize(("batch", "accumulation", "epochs"), [(8, 1, 3), (8, 2, 3), (3, 4, 1.5), (64, 8, 2)])
def test_steps_of_epochs_are_those_of_transformers(
    model: GLiNER, tmp_path: Path, batch: int, accumulation: int, epochs: float
) -> None:
    import torch
    from transformers import Trainer, TrainingArguments

    batches = math.ceil(len(ROWS) / batch)
    if TRANSFORMERS < (4, 52) and batches > accumulation and batches % accumulation:
        pytest.skip("transformers 4.51 leaves out what is left of an epoch")
    settings = {
        "per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "num_train_epochs": epochs,
    }  # fmt: skip
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, **settings)
    theirs = Trainer(torch.nn.Linear(1, 1), arguments, train_dataset=ROWS)
    given = (arguments, theirs.get_train_dataloader(), *((batch * accumulation,) if TRANSFORMERS < (5,) else ()))
    steps = theirs.set_initial_training_values(*given)[-1]
    assert configured(model, tmp_path, max_steps=-1, **settings).steps == steps


def test_processes_share_the_steps_of_an_epoch(model: GLiNER, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    arguments = drop_in.Arguments(per_device_train_batch_size=4, num_train_epochs=2)
    assert drop_in._steps_of_epochs(arguments, 20) == 6  # 5 batches, 3 for each, twice
    monkeypatch.delenv("WORLD_SIZE")
    with pytest.raises(ConfigError, match="per_device_train_batch_size is 0: expected a number of at least 1"):
        configured(model, tmp_path, max_steps=-1, per_device_train_batch_size=0)
    with pytest.raises(ConfigError, match="warmup_steps is -3: expected a number of at least 0"):
        configured(model, tmp_path, max_steps=9, warmup_steps=-3)


@pytest.mark.gliner
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")  # transformers 5.24
def test_what_else_was_set_in_training_arguments_is_told(model: GLiNER, tmp_path: Path) -> None:
    from gliner.training import TrainingArguments

    arguments = TrainingArguments(str(tmp_path), use_cpu=True, gradient_checkpointing=True, dataloader_num_workers=3)
    with pytest.warns(UserWarning, match="dataloader_num_workers.*: not used by gliner_fast") as told:
        config = configured(model, tmp_path, training_args=arguments)
    assert "gradient_checkpointing" in str(told[0].message)
    assert config.save_total_limit is None  # its default: all are kept
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, max_steps=7)
    with pytest.warns(UserWarning, match="max_steps: not read beside training_args, as in gliner"):
        assert configured(model, tmp_path, training_args=arguments, max_steps=9).steps == 7


@pytest.mark.gliner
def test_a_class_of_arguments_of_the_user_s_own_may_ask_for_more(model: GLiNER, tmp_path: Path) -> None:
    from gliner.training import TrainingArguments

    @dataclass(kw_only=True)
    class Own(TrainingArguments):  # type: ignore[misc]
        more: str

    arguments = Own(
        str(tmp_path), use_cpu=True, max_steps=7, eval_strategy="steps", load_best_model_at_end=True, more=""
    )
    with pytest.warns(UserWarning, match="^eval_strategy, load_best_model_at_end: not used by gliner_fast"):
        assert configured(model, tmp_path, training_args=arguments).steps == 7


@pytest.mark.gliner
def test_created_arguments_are_those_of_the_package(model: GLiNER, tmp_path: Path) -> None:
    from gliner.model import UniEncoderSpanGLiNER as Reference

    given = {"learning_rate": 3e-5, "max_steps": 7, "warmup_ratio": 0.5, "use_cpu": True}
    ours = configured(model, tmp_path, training_args=GLiNER.create_training_args(tmp_path, **given))
    theirs = configured(model, tmp_path, training_args=Reference.create_training_args(tmp_path, **given))
    assert ours == theirs
    assert (ours.lr_encoder, ours.steps, ours.output_dir) == (3e-5, 7, str(tmp_path))
    with pytest.raises(TypeError, match="train_model knows no learning_rat"):
        GLiNER.create_training_args(tmp_path, learning_rat=1)


def test_a_component_is_frozen_and_learns_again(model: GLiNER, tmp_path: Path) -> None:
    model.freeze_component("text_encoder")
    assert configured(model, tmp_path).freeze_encoder
    assert not any(parameter.requires_grad for parameter in model.model.encoder.parameters())
    model.unfreeze_component("text_encoder")
    assert not configured(model, tmp_path).freeze_encoder
    with pytest.warns(UserWarning, match="Component 'decoder' not found. Available components: text_encoder"):
        configured(model, tmp_path, freeze_components=["decoder"])


def test_settings_of_transformers_that_are_not_used_are_told(model: GLiNER, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="dataloader_num_workers, report_to: not used by gliner_fast's train_model"):
        configured(model, tmp_path, dataloader_num_workers=4, report_to="none")


def test_values_are_read_as_those_of_a_file(model: GLiNER, tmp_path: Path) -> None:
    config = configured(model, tmp_path, learning_rate=np.float64(1e-4), others_lr="1e-3", max_steps=np.int64(4))
    assert (config.lr_encoder, config.lr_others, config.steps) == (1e-4, 1e-3, 4)
    assert type(config.lr_encoder) is float
    with pytest.raises(ConfigError, match=r"max_steps is 1.5: expected a whole number"):
        configured(model, tmp_path, max_steps=1.5)


@pytest.mark.parametrize(
    ("name", "given", "field", "used"),
    [("masking", "globall", "masking", "none"), ("loss_reduction", "none", "reduction", "sum")],
)
def test_an_unknown_word_is_taken_as_in_the_package(
    model: GLiNER, tmp_path: Path, name: str, given: str, field: str, used: str
) -> None:
    with pytest.warns(UserWarning, match=f"{name} is '{given}': expected one of .*; '{used}' is used, as in gliner"):
        config = configured(model, tmp_path, **{name: given})
    assert getattr(config, field) == used


def test_no_limit_keeps_all_checkpoints(model: GLiNER, tmp_path: Path) -> None:
    train_model(model, ROWS, output_dir=tmp_path, use_cpu=True, max_steps=12, save_steps=1, save_total_limit=None)
    assert len(list(tmp_path.glob("checkpoint-*"))) == 12


def test_what_cannot_be_is_refused(model: GLiNER, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="train_model knows no learning_rat"):
        train_model(model, ROWS, output_dir=tmp_path, learning_rat=1)
    with pytest.raises(TrainingError, match="Either training_args or output_dir must be provided"):
        train_model(model, ROWS)
    with pytest.raises(TrainingError, match="lr_scheduler_type is 'polynomial': expected one of linear, cosine"):
        train_model(model, ROWS, output_dir=tmp_path, lr_scheduler_type="polynomial")
    with pytest.raises(DataError, match=r"train_dataset\[1\]"):
        train_model(model, [ROWS[0], {"tokenized_text": ["a"], "ner": [[0, 3, "x"]]}], output_dir=tmp_path)
