"""What ours saves, gliner loads, and the other way round."""

import json

import pytest

from tests.parity.pairs import Pair
from tests.samples import CROSSNER, LABELS

pytestmark = pytest.mark.gliner

TEXTS = CROSSNER[::20]


@pytest.mark.parametrize("safe_serialization", [False, True])
@pytest.mark.parametrize(
    "kind",
    [
        "deberta",
        "deberta-same-width",
        "deberta-no-lstm",
        "deberta-two-lstm",
        "deberta-marker",
        "bert",
        "era-v1",
        "mt5",
        "token",
        "token-spans",
    ],
)
def test_gliner_loads_what_ours_saves(kind, safe_serialization, pair, tmp_path):
    original = pair(kind)
    original.ours.save_pretrained(tmp_path, safe_serialization=safe_serialization)
    weights = "model.safetensors" if safe_serialization else "pytorch_model.bin"
    assert {weights, "gliner_config.json", "tokenizer.json", "tokenizer_config.json"} <= {
        file.name for file in tmp_path.iterdir()
    }
    again = Pair.load(tmp_path, strict=True)
    assert any(again.check(TEXTS, LABELS))
    assert again.reference.inference(TEXTS, LABELS) == original.reference.inference(TEXTS, LABELS)


def test_saved_tensors_are_the_reference_s_own(pair, tmp_path):
    import torch

    for kind in ("deberta", "bert", "deberta-marker", "t5", "token", "token-spans"):
        both = pair(kind)
        for predictor, folder in ((both.ours, tmp_path / "ours"), (both.reference, tmp_path / "theirs")):
            predictor.save_pretrained(folder)
        ours, theirs = (torch.load(tmp_path / name / "pytorch_model.bin") for name in ("ours", "theirs"))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize("safe_serialization", [False, True])
@pytest.mark.parametrize("case", ["the second name alone", "the first name alone", "two tensors"])
def test_embeddings_of_t5_are_those_that_the_reference_computes_with(case, safe_serialization, pair, tmp_path):
    import torch
    from safetensors.torch import save_file

    original = pair("token-mt5")
    original.reference.save_pretrained(tmp_path, safe_serialization=False)
    tensors = torch.load(tmp_path / "pytorch_model.bin")
    first = "token_rep_layer.bert_layer.model.shared.weight"
    second = "token_rep_layer.bert_layer.model.encoder.embed_tokens.weight"
    if case == "two tensors":  # as gliner saves what it has trained in 16 bits
        tensors[first] = torch.randn_like(tensors[first])
    else:
        del tensors[first if case == "the second name alone" else second]
    if safe_serialization:
        (tmp_path / "pytorch_model.bin").unlink()
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    else:
        torch.save(tensors, tmp_path / "pytorch_model.bin")
    again = Pair.load(tmp_path)
    assert again.check(TEXTS, LABELS) == original.reference.inference(TEXTS, LABELS)


@pytest.mark.parametrize("kind", ["deberta", "token", "token-spans"])
def test_a_saved_configuration_has_all_that_the_reference_saves(kind, pair, tmp_path):
    both = pair(kind)
    both.ours.save_pretrained(tmp_path / "ours")
    both.reference.save_pretrained(tmp_path / "theirs")
    ours, theirs = (json.loads((tmp_path / name / "gliner_config.json").read_text()) for name in ("ours", "theirs"))
    ignored = {"transformers_version", "dtype", "encoder_config"}
    assert {key: ours.get(key) for key in theirs.keys() - ignored} == {
        key: value for key, value in theirs.items() if key not in ignored
    }


def test_saving_makes_the_folder_and_overwrites_it(pair, tmp_path):
    folder = tmp_path / "not" / "there yet"
    for _ in range(2):
        pair("deberta").ours.save_pretrained(folder, safe_serialization=True)
    assert Pair.load(folder).check(TEXTS[:2], LABELS)


def test_ours_builds_from_a_configuration_as_the_reference_does(pair, checkpoint):
    import gliner_fast

    config = json.loads((checkpoint("era-v1") / "gliner_config.json").read_text())
    made = gliner_fast.GLiNER.from_config(config, backbone_from_pretrained=False)
    reference = pair("era-v1").reference
    assert made.config.class_token_index == reference.config.class_token_index
    assert made.config.vocab_size == reference.config.vocab_size
    assert isinstance(made.predict_entities("Ada was born in London.", LABELS), list)
