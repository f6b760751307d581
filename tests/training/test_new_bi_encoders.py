"""Bi-encoders are trained from two bare encoders: begun, saved, gone on with, and loaded by gliner."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml
from transformers import AutoModel

from gliner_fast import GLiNER
from gliner_fast.cli.train import train as command
from gliner_fast.errors import CheckpointError
from gliner_fast.training import trainer
from gliner_fast.training.config import TrainingConfig, TrainingFile
from gliner_fast.training.trainer import start_model, train
from tests.parity.pairs import Pair
from tests.samples import CROSSNER, LABELS
from tests.training.sentences import annotated_sentences, write_sentences
from tests.training.test_encoders import make_encoder

app = typer.Typer()
app.command()(command)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A pair of random encoders, of texts and of labels, which drop nothing: what they drop hides what is learned."""
    root = tmp_path_factory.mktemp("encoders")
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return {
        "encoder": str(make_encoder(root / "texts", "deberta-v3", **no_dropout)),
        "labels_encoder": str(make_encoder(root / "labels", "bert", hidden_size=40, **no_dropout)),
    }


@pytest.fixture
def config(encoders: dict[str, str], tmp_path: Path) -> TrainingConfig:
    """Thirty steps, of all twenty sentences each."""
    return TrainingConfig(
        output_dir=str(tmp_path / "run"),
        train=(TrainingFile(path=str(write_sentences(tmp_path / "data.jsonl"))),),
        hidden_size=24,
        max_width=4,
        steps=30,
        log_steps=1,
        save_steps=10,
        dropout=0.0,
        random_drop=False,
        lr_encoder=1e-3,
        lr_others=1e-2,
        device="cpu",
        **encoders,
    )


def losses_of(folder: Path) -> list[float]:
    """The loss of each step."""
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_run_begins_with_both_pretrained_encoders(config: TrainingConfig) -> None:
    made, again, other = (start_model(own) for own in (config, config, config.replace(seed=7)))
    settings = made.config
    assert (settings.model_name, settings.labels_encoder) == (config.encoder, config.labels_encoder)
    assert settings.num_rnn_layers == 0
    of_texts = AutoModel.from_pretrained(config.encoder).state_dict()["embeddings.word_embeddings.weight"]
    of_labels = AutoModel.from_pretrained(config.labels_encoder).state_dict()["embeddings.word_embeddings.weight"]
    weights, same, others = (own.model.state_dict() for own in (made, again, other))
    assert torch.equal(weights["encoder.word_embeddings.weight"], of_texts)
    assert torch.equal(weights["label_encoder.encoder.model.embeddings.word_embeddings.weight"], of_labels)
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert not torch.equal(weights["label_encoder.projection.weight"], others["label_encoder.projection.weight"])


@pytest.mark.gliner
@pytest.mark.filterwarnings("ignore:Resizing embeddings is not supported for bi-encoder models")
@pytest.mark.parametrize("span_mode", ["markerV0", "token_level"])
def test_the_loss_falls_and_gliner_finds_what_was_learned(span_mode: str, config: TrainingConfig) -> None:
    report = train(config.replace(span_mode=span_mode))
    losses = losses_of(Path(config.output_dir))
    assert len(losses) == 30
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    pair = Pair.load(report.model)
    assert pair.check(CROSSNER[:6], LABELS, threshold=0.1, flat_ner=False)
    assert pair.ours.config.is_bi_encoder


@pytest.mark.parametrize("freeze", [False, True])
def test_the_encoder_of_labels_learns_unless_it_is_frozen(freeze: bool, config: TrainingConfig) -> None:
    report = train(config.replace(freeze_label_encoder=freeze, steps=2))
    before = start_model(config).model.label_encoder
    after = GLiNER.from_pretrained(report.model).model.label_encoder
    is_same = [
        torch.equal(old, new) for old, new in zip(before.encoder.parameters(), after.encoder.parameters(), strict=True)
    ]
    assert all(is_same) == freeze
    assert not torch.equal(before.projection.weight, after.projection.weight)


def test_what_the_command_has_begun_goes_on_to_the_weights_of_an_unbroken_run(
    config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> Any:
        if (broken / "checkpoint-000002").is_dir():
            raise KeyboardInterrupt
        return step(*arguments)

    path, broken, step = tmp_path / "config.yaml", tmp_path / "broken", trainer.Trainer.step
    path.write_text(config.replace(steps=4, save_steps=2).to_yaml())
    app([str(path), "--quiet"], standalone_mode=False)
    arguments = [str(path), "--quiet", "--resume", "--set", f"output_dir={broken}"]
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "step", interrupted)
        assert app(arguments, standalone_mode=False) == 130
    assert not (broken / "final").exists()
    app(arguments, standalone_mode=False)
    one, other = (GLiNER.from_pretrained(folder / "final").model.state_dict() for folder in (tmp_path / "run", broken))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_of_a_version_without_the_setting_goes_on(
    checkpoint: Callable[[str], Path], config: TrainingConfig
) -> None:
    old = config.replace(encoder=None, labels_encoder=None, model=str(checkpoint("bi")), steps=2, save_steps=1)
    train(old)
    for own in Path(old.output_dir).glob("checkpoint-*/training/config.yaml"):
        settings = yaml.safe_load(own.read_text())
        assert settings.pop("labels_encoder", "missing") is None
        own.write_text(yaml.safe_dump(settings))
    told: list[str] = []
    train(old, resume=True, tell=told.append)
    assert "going on after step 2" in told


def test_a_labels_encoder_that_cannot_be_had_is_named(config: TrainingConfig, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="that of labels_encoder '.*nowhere' cannot be had"):
        train(config.replace(labels_encoder=str(tmp_path / "nowhere")))


def test_settings_of_an_lstm_are_told_to_be_unread(config: TrainingConfig) -> None:
    assert dict(config.unread) == {}
    assert dict(config.replace(num_rnn_layers=2).unread) == {"num_rnn_layers": "a bi-encoder has no LSTM"}


def test_a_new_model_is_trained_in_place(encoders: dict[str, str], tmp_path: Path) -> None:
    settings: dict[str, Any] = {"model_name": encoders["encoder"], "labels_encoder": encoders["labels_encoder"]}
    model = GLiNER.from_config({**settings, "hidden_size": 24, "max_width": 4})
    before = model.encode_labels(["person"])
    model.train_model(annotated_sentences(), output_dir=tmp_path, max_steps=2, learning_rate=1e-3, use_cpu=True)
    after = model.encode_labels(["person"])
    assert not torch.equal(before, after)
    again = GLiNER.from_pretrained(tmp_path / "final").encode_labels(["person"])
    torch.testing.assert_close(again, after, rtol=0, atol=1e-6)
