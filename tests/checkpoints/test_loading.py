"""Settings of a checkpoint beside what its file of weights holds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gliner_fast import GLiNER
from gliner_fast.errors import CheckpointError, CheckpointWarning


@pytest.fixture
def edited(checkpoint: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """Gives a copy of a checkpoint with settings changed: of `encoder_config` where `encoder` is given."""

    def changed(kind: str, *, encoder: dict[str, Any] | None = None, **settings: Any) -> Path:
        shutil.copytree(checkpoint(kind), tmp_path / kind)
        path = tmp_path / kind / "gliner_config.json"
        config = json.loads(path.read_text()) | settings
        config["encoder_config"] |= encoder or {}
        path.write_text(json.dumps(config))
        return tmp_path / kind

    return changed


def test_of_lstm_layers_that_nobody_asks_for_only_the_weights_are_told(edited: Callable[..., Path]) -> None:
    with pytest.warns(CheckpointWarning, match=r"it holds 'rnn\.lstm.*which the model does not use$") as told:
        model = GLiNER.from_pretrained(edited("deberta-two-lstm", num_rnn_layers=1))
    assert model.config.num_rnn_layers == 1
    assert not [own for own in told if "running with" in str(own.message)]


@pytest.mark.parametrize(("kind", "setting"), [("bert", "num_hidden_layers"), ("t5", "num_layers")])
def test_more_layers_than_the_file_holds_are_refused_before_they_are_built(
    kind: str, setting: str, edited: Callable[..., Path]
) -> None:
    with pytest.raises(CheckpointError, match=r"has \d layers of the encoder, but the configuration asks for 1000000"):
        GLiNER.from_pretrained(edited(kind, encoder={setting: 10**6}))
