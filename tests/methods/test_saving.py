"""What a model saves, in a folder or on the Hub; who loads it is asked in `tests/parity/test_saving.py`."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path
from unittest.mock import Mock, create_autospec

import pytest
import torch
from huggingface_hub import HfApi, RepoUrl

from gliner_fast import GLiNER
from gliner_fast.checkpoints.weight_files import find_weights
from tests.samples import CROSSNER, LABELS

TEXTS = [text[:120] for text in CROSSNER[:6]]


@pytest.fixture
def model(checkpoint) -> GLiNER:
    """A small random one, a new one each time."""
    return GLiNER.from_pretrained(checkpoint("deberta-narrow"))


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("second", [False, True])
def test_what_was_saved_last_is_what_is_loaded(first, second, model, tmp_path: Path):
    model.save_pretrained(tmp_path, safe_serialization=first)
    model = GLiNER.from_pretrained(tmp_path)
    with torch.no_grad():
        model.model.scorer.out.weight.mul_(0.5)
    expected = model.inference(TEXTS, LABELS, threshold=0.3)
    model.save_pretrained(tmp_path, safe_serialization=second)  # over the file that its weights may be a map of
    assert model.inference(TEXTS, LABELS, threshold=0.3) == expected
    assert GLiNER.from_pretrained(tmp_path).inference(TEXTS, LABELS, threshold=0.3) == expected
    assert find_weights(tmp_path).name == ("model.safetensors" if second else "pytorch_model.bin")
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.skipif(os.name == "nt", reason="permissions are others there")
@pytest.mark.parametrize("safe", [False, True])
def test_weights_may_be_read_by_whoever_may_read_the_settings(safe, model, tmp_path: Path):
    model.save_pretrained(tmp_path, safe_serialization=safe)
    settings = (tmp_path / "gliner_config.json").stat()
    assert find_weights(tmp_path).stat().st_mode == settings.st_mode


@pytest.mark.parametrize("safe", [False, True])
def test_no_older_weights_stay_that_are_read_before_those_saved(safe, model, tmp_path: Path):
    for name in ("model.safetensors", "pytorch_model.bin", "model.fp16.safetensors", "model.bf16.safetensors"):
        (tmp_path / name).write_bytes(b"old")
    model.save_pretrained(tmp_path, safe_serialization=safe)
    for variant in (None, "fp16", "bf16"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # there is no such variant
            assert find_weights(tmp_path, variant).read_bytes() != b"old"


def test_a_save_that_fails_leaves_nothing_half_written(model, tmp_path: Path, monkeypatch):
    def fail(_, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="No space left") as failure:
        model.save_pretrained(tmp_path)
    assert failure.value.filename == str(tmp_path / "pytorch_model.bin")
    assert list(tmp_path.iterdir()) == []


def test_a_mapping_is_written_as_the_settings(model, tmp_path: Path):
    model.save_pretrained(tmp_path, config={**model.config.to_dict(), "max_len": 77})
    assert json.loads((tmp_path / "gliner_config.json").read_text())["max_len"] == 77


@pytest.mark.parametrize("options", [{"config": 5}, {"push_to_hub": True, "no_such": 1}])
def test_what_cannot_be_saved_is_refused_before_anything_is_written(options, model, tmp_path: Path):
    folder = tmp_path / "new"
    with pytest.raises((ValueError, TypeError)):
        model.save_pretrained(folder, **options)
    assert not folder.exists()


@pytest.fixture
def hub(monkeypatch, tmp_path: Path) -> Mock:
    """In place of the Hub's API: the same methods, which keep what they are given."""
    api = create_autospec(HfApi, instance=True)
    api.create_repo.return_value = RepoUrl("https://huggingface.co/me/my-model")
    api.upload_folder.side_effect = lambda *, folder_path, **_: str(shutil.copytree(folder_path, tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.HfApi", Mock(return_value=api))
    return api


@pytest.mark.parametrize("safe", [False, True])
def test_what_is_pushed_is_what_is_saved(safe: bool, model, hub: Mock, tmp_path: Path):
    address = model.push_to_hub("my-model", private=True, branch="new", create_pr=True, safe_serialization=safe)
    hub.create_repo.assert_called_once_with(repo_id="my-model", private=True, exist_ok=True)
    (sent,) = hub.upload_folder.call_args_list
    assert (sent.kwargs["repo_id"], sent.kwargs["revision"], sent.kwargs["create_pr"]) == ("me/my-model", "new", True)
    assert not Path(sent.kwargs["folder_path"]).exists()
    model.save_pretrained(tmp_path / "saved", safe_serialization=safe)
    assert address == str(tmp_path / "hub")
    names = {path.relative_to(tmp_path / "saved") for path in (tmp_path / "saved").rglob("*")}
    assert {path.relative_to(tmp_path / "hub") for path in (tmp_path / "hub").rglob("*")} == names
    loaded = GLiNER.from_pretrained(tmp_path / "hub")
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("repo_id", "wanted"), [(None, "named"), ("me/other", "me/other")])
def test_a_save_is_pushed_too_where_it_is_asked_for(repo_id, wanted, model, hub: Mock, tmp_path: Path):
    settings = {**model.config.to_dict(), "max_len": 77}
    address = model.save_pretrained(
        tmp_path / "named",
        config=settings,
        repo_id=repo_id,
        push_to_hub=True,
        safe_serialization=True,
        commit_message="why",
    )
    assert address == str(tmp_path / "hub")
    assert hub.create_repo.call_args.kwargs["repo_id"] == wanted
    assert hub.upload_folder.call_args.kwargs["commit_message"] == "why"
    for folder in ("named", "hub"):
        assert (tmp_path / folder / "model.safetensors").exists()
        assert json.loads((tmp_path / folder / "gliner_config.json").read_text())["max_len"] == 77
    assert model.save_pretrained(tmp_path / "other", repo_id="me/other") is None
    hub.upload_folder.assert_called_once()
