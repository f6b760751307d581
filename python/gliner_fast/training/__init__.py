"""Sampling and the trainer; annotated data is in `gliner_fast.annotated`."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gliner_fast.training.config import TrainingConfig, TrainingFile
    from gliner_fast.training.drop_in import train_model
    from gliner_fast.training.errors import TrainingError
    from gliner_fast.training.setting_values import ConfigError
    from gliner_fast.training.trainer import TrainingReport, train

if __name__ != "gliner_fast.training":  # but gliner.training: see `gliner_fast.config`
    sys.modules[__name__] = importlib.import_module("gliner_fast.training")

__all__ = [
    "ConfigError",
    "TrainingConfig",
    "TrainingError",
    "TrainingFile",
    "TrainingReport",
    "train",
    "train_model",
]

# Loaded when first used: who reads data alone needs no torch.
_HOMES = {
    "ConfigError": "setting_values",
    "TrainingConfig": "config",
    "TrainingError": "errors",
    "TrainingFile": "config",
    "TrainingReport": "trainer",
    "train": "trainer",
    "train_model": "drop_in",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        wanted = "; GLiNER.train_model takes settings by name, or transformers' TrainingArguments"
        hint = wanted if name in ("Trainer", "TrainingArguments") else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
