"""Weights in and out: nothing random, nothing lost, everything named."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from gliner_fast import CheckpointError, CheckpointWarning, GLiNER, weights
from gliner_fast.checkpoints import weight_files
from gliner_fast.checkpoints.weight_files import read_weights

TEXT, LABELS = "Ada Lovelace wrote to Charles Babbage in London.", ["person", "city"]


@pytest.mark.parametrize("safe", [True, False])
def test_a_saved_model_gives_the_same_answers(checkpoint: Callable[[str], Path], tmp_path: Path, safe: bool) -> None:
    model = GLiNER.from_pretrained(checkpoint("deberta"))
    model.save_pretrained(tmp_path, safe_serialization=safe)
    again = GLiNER.from_pretrained(tmp_path)
    first, second = (each.predict_entities(TEXT, LABELS, threshold=0.01) for each in (model, again))
    # Scores may differ in the last digits: torch's products round differently for weights at another alignment.
    assert [{**entity, "score": 0} for entity in first] == [{**entity, "score": 0} for entity in second]
    assert [e["score"] for e in first] == pytest.approx([e["score"] for e in second], abs=1e-5)


def changed_copy(folder: Path, target: Path, *, without: str = "", extra: bool = False) -> Path:
    shutil.copytree(folder, target)
    tensors = load_file(target / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not without or without not in name}
    if extra:
        kept["mystery.weight"] = torch.zeros(2)
    save_file(kept, target / "model.safetensors")
    return target


def test_missing_weights_are_named_and_zero_never_random(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = changed_copy(checkpoint("deberta"), tmp_path / "cut", without="project_start")
    with pytest.warns(CheckpointWarning, match=r"lacks .*project_start\.0\.bias"):
        model = GLiNER.from_pretrained(folder)
    assert not model.model.scorer.start.inner.weight.any()
    with pytest.raises(CheckpointError, match="does not fit the model"):
        GLiNER.from_pretrained(folder, strict=True)


def test_what_the_file_has_in_part_is_zero_as_a_whole(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = changed_copy(checkpoint("deberta"), tmp_path / "cut", without="y_proj.weight")  # of queries and keys
    with pytest.warns(CheckpointWarning, match=r"0\.attention\.self\.key_proj\.weight', '[^']*\.query_proj\.weight', "):
        layers = GLiNER.from_pretrained(folder).model.encoder.layers
    assert not any(layer.qkv.weight.any() for layer in layers)


@pytest.mark.parametrize("kind", ["deberta", "bert", "modernbert", "t5"])
def test_weights_of_norms_that_the_file_lacks_are_ones(
    kind: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    def norms(model: GLiNER) -> dict[str, torch.Tensor]:
        parameters = model.model.encoder.named_parameters()
        return {name: own for name, own in parameters if own.ndim == 1 and name.endswith(".weight")}

    folder = changed_copy(checkpoint(kind), tmp_path / "cut")
    tensors = load_file(folder / "model.safetensors")
    kept = {
        name: own for name, own in tensors.items() if own.ndim > 1 or (name.endswith("bias") and "Norm" not in name)
    }
    save_file(kept, folder / "model.safetensors")
    with pytest.warns(CheckpointWarning, match=r"filled with zeros \(norms: ones\)"):
        model = GLiNER.from_pretrained(folder)
    assert norms(model).keys() == norms(GLiNER.from_pretrained(checkpoint(kind))).keys() != set()
    for name, weight in norms(model).items():
        assert weight.eq(1).all(), name
    assert not any(
        own.any() for name, own in model.model.encoder.named_parameters() if name.lower().endswith("norm.bias")
    )


def test_tokens_that_nothing_adds_are_asked_for_by_what_adds_them(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = changed_copy(checkpoint("deberta"), tmp_path / "unset")
    path = folder / "gliner_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"class_token_index": -1, "vocab_size": -1}))
    with pytest.raises(CheckpointError, match="load with resize_token_embeddings=True, and set class_token_index"):
        GLiNER.from_pretrained(folder, resize_token_embeddings=False)


def test_unknown_weights_are_named(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = changed_copy(checkpoint("deberta"), tmp_path / "more", extra=True)
    with pytest.warns(CheckpointWarning, match=r"holds 'mystery\.weight', which the model does not use"):
        GLiNER.from_pretrained(folder)


def test_an_lstm_that_the_file_lacks_is_not_made_up(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = changed_copy(checkpoint("deberta"), tmp_path / "no-lstm", without="rnn.")
    with pytest.warns(CheckpointWarning, match="holds 0 LSTM layers where gliner_config.json asks for 1"):
        model = GLiNER.from_pretrained(folder)
    assert model.model.rnn is None
    settings = json.loads((folder / "gliner_config.json").read_text())
    (folder / "gliner_config.json").write_text(json.dumps({**settings, "has_rnn": False}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert GLiNER.from_pretrained(folder).model.rnn is None


def test_weights_of_another_shape_are_refused(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(checkpoint("deberta"), folder)
    settings = json.loads((folder / "gliner_config.json").read_text())
    (folder / "gliner_config.json").write_text(json.dumps({**settings, "hidden_size": settings["hidden_size"] + 2}))
    with pytest.raises(CheckpointError, match=r"has the shape .* but the configuration asks for"):
        GLiNER.from_pretrained(folder)


def test_loading_draws_no_random_numbers(checkpoint: Callable[[str], Path]) -> None:
    for kind in ("deberta", "bert"):
        before = torch.random.get_rng_state()
        GLiNER.from_pretrained(checkpoint(kind))
        assert torch.equal(torch.random.get_rng_state(), before)


BIAS, EMBEDDINGS = "prompt_rep_layer.3.bias", "token_rep_layer.bert_layer.model.embeddings.word_embeddings.weight"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (BIAS, lambda tensor: tensor.int(), r"prompt_rep_layer\.3\.bias is int32: expected floating-point"),
        (BIAS, lambda tensor: tensor.bool(), "is bool: expected floating-point"),
        (BIAS, lambda tensor: tensor.to(torch.complex64), "is complex64: expected floating-point"),
        (EMBEDDINGS, lambda tensor: tensor.to(torch.int8), r"is int8, and its scales \(.*\.row_scale\) are not there"),
        (EMBEDDINGS, lambda _: torch.zeros(()), r"has the shape \(\)"),
        (
            BIAS,
            lambda tensor: tensor * torch.nan,
            r"holds NaN or infinity in 'prompt_rep_layer\.3\.bias': it is broken",
        ),
        (BIAS, lambda tensor: tensor.fill_(torch.inf), "holds NaN or infinity"),
    ],
)
def test_tensors_that_nobody_can_compute_with_are_refused(
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    name: str,
    change: Callable[[torch.Tensor], torch.Tensor],
    message: str,
) -> None:
    folder = changed_copy(checkpoint("bert"), tmp_path / "changed")
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, name: change(tensors[name].clone())}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        GLiNER.from_pretrained(folder)


def test_the_dtype_asked_for_is_the_dtype_of_every_weight(checkpoint: Callable[[str], Path]) -> None:
    for kind in ("deberta", "bert"):
        model = GLiNER.from_pretrained(checkpoint(kind), dtype="bf16")
        assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
        found, exact = (
            {(entity["start"], entity["end"], entity["label"]): entity["score"] for entity in own}
            for own in (
                one.predict_entities(TEXT, LABELS, threshold=0.0, flat_ner=False, multi_label=True)
                for one in (model, GLiNER.from_pretrained(checkpoint(kind)))
            )
        )
        # Other numbers than float32's, and near them. Which spans clash, and so which are left, differs a little.
        both = found.keys() & exact.keys()
        assert len(both) > len(exact) / 2
        assert 0 < max(abs(found[place] - exact[place]) for place in both) < 0.05


@pytest.mark.parametrize(("system", "is_mapped"), [("linux", True), ("win32", False)])
def test_weights_stay_in_the_file_but_on_windows(
    checkpoint: Callable[[str], Path], system: str, is_mapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def remembered(path: Path) -> dict[str, torch.Tensor]:
        tensors = read_weights(path)
        read.extend(tensor.data_ptr() for tensor in tensors.values())
        return tensors

    monkeypatch.setattr(weight_files, "read_weights", remembered)
    monkeypatch.setattr(weights, "sys", SimpleNamespace(platform=system))
    bias = GLiNER.from_pretrained(checkpoint("bert")).model.scorer.out.bias
    assert (bias.data_ptr() in read) == is_mapped
