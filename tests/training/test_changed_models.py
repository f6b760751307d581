"""`train_model` on models that their user changed: frozen in part, or with adapters inside."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from gliner_fast import GLiNER
from gliner_fast.errors import CheckpointError
from gliner_fast.training import TrainingError, train_model
from gliner_fast.training.checkpoints import RunFolder
from gliner_fast.weights import export_weights
from tests.encoders.test_deberta_adapters import PeftLike
from tests.training.sentences import annotated_sentences

ROWS = annotated_sentences()
FROZEN = "token_rep_layer.bert_layer.model.encoder.layer.0."


def partly_frozen(folder: Path) -> GLiNER:
    model = GLiNER.from_pretrained(folder)
    model.model.encoder.layers[0].requires_grad_(False)
    return model


def trained(model: GLiNER, folder: Path, *, resume: bool = False) -> dict[str, torch.Tensor]:
    train_model(
        model, ROWS, output_dir=folder, resume=resume, max_steps=4, save_steps=2, learning_rate=1e-3, use_cpu=True
    )
    return export_weights(model.model)


def test_a_model_that_is_frozen_in_part_goes_on_frozen(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    source, folder = checkpoint("deberta"), tmp_path / "run"
    before, unbroken = export_weights(partly_frozen(source).model), trained(partly_frozen(source), folder)
    for newer in ("checkpoint-000004", "final"):
        shutil.rmtree(folder / newer)
    resumed = trained(partly_frozen(source), folder, resume=True)
    for name, weight in unbroken.items():
        assert torch.equal(resumed[name], weight), name
        assert not name.startswith(FROZEN) or torch.equal(weight, before[name]), name
    shutil.rmtree(folder / "checkpoint-000004")
    with pytest.raises(TrainingError, match="checkpoint-000002 was made with other parameters frozen than those that"):
        trained(GLiNER.from_pretrained(source), folder, resume=True)


def test_adapters_are_refused_before_a_step_and_when_saved(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    model = GLiNER.from_pretrained(checkpoint("deberta"))
    layer = model.model.encoder.layers[0]
    layer.qkv = PeftLike(layer.qkv)  # type: ignore[assignment]
    message = r"parameter encoder\.layers\.0\.qkv\.\S+ has no place in a checkpoint: .* merge the adapter"
    with pytest.raises(CheckpointError, match=message):
        trained(model, tmp_path / "run")
    assert not [*(tmp_path / "run").glob("*-*")]
    with pytest.raises(CheckpointError, match=message):
        model.save_pretrained(tmp_path / "saved")


def test_adapters_in_an_encoder_of_transformers_are_refused_by_peft_s_names(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    model = GLiNER.from_pretrained(checkpoint("bert"))
    attention = model.model.encoder.model.encoder.layer[0].attention.self
    query = attention.query
    attention.query = nn.Sequential()
    attention.query.base_layer = query
    with pytest.raises(CheckpointError, match=r"query\.base_layer\.weight has no place in a checkpoint"):
        model.save_pretrained(tmp_path)


def test_a_damaged_line_of_the_log_is_left_out(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    lines = ['{"step": 1, "loss": 2.0}', "\0\0\0}", "{}", "[1}", '{"step": 2, "loss": 1.0}', '{"step": 3, "loss"']
    (tmp_path / "log.jsonl").write_text("".join(line + "\n" for line in lines))
    folder.cut_log(2)
    assert (tmp_path / "log.jsonl").read_text().splitlines() == [lines[0], lines[4]]
