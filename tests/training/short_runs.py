"""Runs of few steps that may be compared with others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from gliner_fast.training.config import TrainingConfig, TrainingFile
from gliner_fast.training.trainer import TrainingReport, train
from tests.training.sentences import write_sentences


def steps_without_dropout(checkpoint: Path, folder: Path) -> TrainingConfig:
    """Four steps of a checkpoint whose encoders drop nothing: in other processes or pieces they drop otherwise.

    Args:
        checkpoint: copied into `folder` / "start".
        folder: of the run, whose output is "whole".
    """
    start = copy_without_dropout(checkpoint, folder / "start")
    return TrainingConfig(
        output_dir=str(folder / "whole"),
        train=(TrainingFile(path=str(write_sentences(folder / "data.jsonl"))),),
        model=str(start),
        steps=4,
        save_steps=2,
        batch_tokens=128,
        lr_encoder=1e-4,
        lr_others=1e-4,
        dropout=0.0,
        device="cpu",
    )


def copy_without_dropout(checkpoint: Path, target: Path) -> Path:
    """Copies a checkpoint into a folder, where its encoders drop nothing; returns the folder."""
    shutil.copytree(checkpoint, target)
    path = target / "gliner_config.json"
    settings = json.loads(path.read_text())
    for name in ("encoder_config", "labels_encoder_config"):
        if settings.get(name):
            settings[name] |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    path.write_text(json.dumps(settings))
    return target


def learn_by_heart(checkpoint: Path, folder: Path, **settings: Any) -> TrainingReport:
    """Trains a checkpoint on the twenty sentences until it knows them; the run's output is `folder` / "run".

    Its encoders drop nothing: what they drop differs among versions of torch, and with it what is learned.
    """
    data = str(write_sentences(folder / "data.jsonl"))
    return train(
        TrainingConfig(
            output_dir=str(folder / "run"),
            train=(TrainingFile(path=data, labels="file"),),
            eval=(data,),
            model=str(copy_without_dropout(checkpoint, folder / "start")),
            steps=120,
            eval_steps=60,
            save_steps=200,
            log_steps=40,
            dropout=0.0,
            random_drop=False,
            lr_encoder=2e-3,
            lr_others=2e-3,
            batch_tokens=4096,
            device="cpu",
            **settings,
        )
    )
