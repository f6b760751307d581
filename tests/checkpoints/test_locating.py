"""Where a checkpoint is, and what the Hub is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gliner_fast.checkpoints.locating import BUILT_IN, BUILT_IN_NAME, HubOptions, load_encoder_config, locate
from gliner_fast.config import GLiNERConfig


def test_a_folder_goes_before_the_built_in_model_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate(BUILT_IN_NAME, HubOptions(), None) == locate(None, HubOptions(), None) == BUILT_IN
    Path(BUILT_IN_NAME).mkdir()
    assert locate(BUILT_IN_NAME, HubOptions(), None) == Path(BUILT_IN_NAME)


WISHES: dict[str, Any] = {
    "revision": "v2",
    "cache_dir": "/a/cache",
    "force_download": True,
    "local_files_only": True,
    "token": "secret",
}


def test_the_hub_is_asked_as_the_caller_wishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def fetch(model_id: str, *, allow_patterns: list[str], **wishes: Any) -> str:
        asked.update(wishes)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    locate("some/model", HubOptions(**WISHES), None)
    assert asked == WISHES


def test_an_encoder_s_configuration_is_fetched_from_the_same_cache_and_runs_no_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers import AutoConfig, BertConfig

    asked: dict[str, Any] = {}

    def load(name: str, **wishes: Any) -> BertConfig:
        asked.update(wishes, name=name)
        return BertConfig(hidden_size=8)

    monkeypatch.setattr(AutoConfig, "from_pretrained", load)
    found = load_encoder_config(GLiNERConfig(model_name="some/encoder"), HubOptions(**WISHES))
    assert (found["model_type"], found["hidden_size"]) == ("bert", 8)
    others = {"cache_dir": "/a/cache", "local_files_only": True, "trust_remote_code": False}
    assert asked == {"name": "some/encoder", **others}  # revision and token are the checkpoint's alone
