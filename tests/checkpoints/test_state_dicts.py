"""`load_state_dict` takes the names of gliner's checkpoints beside ours, and tells what is wrong by the given ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gliner_fast import GLiNER
from gliner_fast.checkpoints.locating import BUILT_IN
from gliner_fast.checkpoints.weight_files import read_weights
from gliner_fast.weights import export_weights
from tests.samples import CROSSNER, LABELS

TEXTS = CROSSNER[::40]
QUERY = "token_rep_layer.bert_layer.model.encoder.layer.0.attention.self.query_proj.weight"


def stored(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder, as a user reads them."""
    file = folder / "model.safetensors"
    return load_file(file) if file.exists() else torch.load(folder / "pytorch_model.bin")


def spoil(model: nn.Module) -> None:
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(0.5)


def answers(model: Any) -> list[dict[str, Any]]:
    """What a model finds, texts one after another."""
    found = model.inference(TEXTS, LABELS, threshold=0.2)
    return [entity for entities in (found[0] if isinstance(found, tuple) else found) for entity in entities]


def agree(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> bool:
    """Whether answers are the same up to rounding: weights that lie elsewhere are added up in another order."""
    close = [mine["score"] == pytest.approx(their["score"], abs=1e-4) for mine, their in zip(found, wanted)]  # noqa: B905
    return all(close) and [{**e, "score": 0} for e in found] == [{**e, "score": 0} for e in wanted]


@pytest.fixture
def model(built_in: GLiNER) -> GLiNER:
    """The built-in model, to be changed."""
    return copy.deepcopy(built_in)


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("quantized", [False, True])
def test_predictions_follow_the_weights_that_were_loaded(model: GLiNER, assign: bool, quantized: bool) -> None:
    weights = {name: tensor.clone() for name, tensor in export_weights(model.model).items()}
    wanted = answers(model)
    spoil(model)
    assert not agree(answers(model), wanted)  # and what is made of weights is made of the spoilt ones
    if quantized:
        model.quantize("int16")
        answers(model)
    assert str(model.model.load_state_dict(weights, assign=assign)) == "<All keys matched successfully>"
    assert model.precision == "float32"
    assert agree(answers(model), wanted)


def test_the_whole_model_takes_what_gliner_s_would_give(model: GLiNER) -> None:
    weights = {f"model.{name}": tensor for name, tensor in export_weights(model.model).items()}
    wanted = answers(model)
    spoil(model)
    model.load_state_dict(weights)
    assert agree(answers(model), wanted)
    with pytest.raises(RuntimeError, match="Missing key"):  # as there: the network's are not the model's
        model.load_state_dict(export_weights(model.model))
    name = f"model.{QUERY.replace('query_proj', 'query')}"  # as BERT's are called
    del weights[name]
    assert model.load_state_dict(weights, strict=False).missing_keys == [name]


def test_the_built_in_file_s_int8_rows_are_read(model: GLiNER) -> None:
    wanted = answers(model)
    spoil(model)
    model.model.load_state_dict(load_file(BUILT_IN / "model.int8.safetensors"))
    assert agree(answers(model), wanted)
    assert read_weights(BUILT_IN / "model.int8.safetensors").keys() == export_weights(model.model).keys()


def test_our_own_names_go_on_working_and_may_stand_beside_gliner_s(model: GLiNER) -> None:
    own = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    theirs = export_weights(model.model)
    wanted = answers(model)
    spoil(model)
    half = {name: tensor for name, tensor in theirs.items() if name.startswith("token_rep_layer")}
    rest = {name: tensor for name, tensor in own.items() if not name.startswith(("encoder", "projection"))}
    model.model.load_state_dict(half | rest)
    assert agree(answers(model), wanted)
    spoil(model)
    model.model.load_state_dict(own)
    assert agree(answers(model), wanted)
    spoil(model)
    model.model.load_state_dict({**model.model.state_dict(), **theirs})  # an updated state dict
    assert agree(answers(model), wanted)


def test_what_is_missing_unknown_or_of_another_shape_is_told_by_gliner_s_names(checkpoint: Any) -> None:
    folder = checkpoint("deberta")
    network = GLiNER.from_pretrained(folder).model
    weights = stored(folder)
    spoil(network)
    query = weights.pop(QUERY)
    before = network.encoder.layers[0].qkv.weight.clone()
    found = network.load_state_dict({**weights, "token_rep_layer.new": query}, strict=False)
    assert (found.missing_keys, found.unexpected_keys) == ([QUERY], ["token_rep_layer.new"])
    after, rows = network.encoder.layers[0].qkv.weight, len(query)
    assert torch.equal(after[:rows], before[:rows])
    assert torch.equal(after[rows : 2 * rows], weights[QUERY.replace("query", "key")])
    with pytest.raises(
        RuntimeError, match=f'Missing key.*"{QUERY}".*\n.*Unexpected key.*"token_rep_layer.new"'
    ) as told:
        network.load_state_dict({**weights, "token_rep_layer.new": query})
    assert "encoder.layers.0" not in str(told.value)
    with pytest.raises(RuntimeError, match=f"size mismatch for {QUERY}") as told:
        network.load_state_dict({**weights, QUERY: query[:3]}, strict=False)
    assert str(told.value).count("size mismatch") == 1
    with pytest.raises(RuntimeError, match="encoder.word_embeddings.weight"):
        network.load_state_dict({"nonsense": query})  # of nobody's names


def test_a_name_that_stands_for_two_of_our_tensors_is_missing_once(checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint("t5")
    weights = stored(folder)
    for name in [name for name in weights if name.endswith(("shared.weight", "embed_tokens.weight"))]:
        del weights[name]
    found = GLiNER.from_pretrained(folder).model.load_state_dict(weights, strict=False)
    assert found.missing_keys == ["token_rep_layer.bert_layer.model.shared.weight"]


@pytest.mark.parametrize(
    "kind", ["deberta", "bert", "era-v1", "t5", "token", "token-mt5", "token-spans", "bi", "relex", "modernbert"]
)
def test_it_loads_what_it_loads_in_gliner(kind: str, checkpoint: Callable[[str], Path]) -> None:
    from gliner import GLiNER as Reference

    folder = checkpoint(kind)
    ours, reference = GLiNER.from_pretrained(folder), Reference.from_pretrained(str(folder))
    wanted = answers(ours)
    both = [(ours.model, stored(folder)), (ours, reference.state_dict()), (ours.model, reference.model.state_dict())]
    for module, weights in both:
        spoil(ours)
        assert list(map(list, module.load_state_dict(weights, strict=False))) == [[], []]
        assert agree(answers(ours), wanted)
    for name in [name for name in weights if name.startswith("prompt_rep_layer.")]:
        del weights[name]
    weights["nonsense"] = torch.zeros(1)
    of_ours, of_theirs = (each.model.load_state_dict(weights, strict=False) for each in (ours, reference))
    assert set(of_ours.missing_keys) == set(of_theirs.missing_keys)
    assert of_ours.unexpected_keys == of_theirs.unexpected_keys == ["nonsense"]
