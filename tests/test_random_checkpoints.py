"""`tests/random_checkpoints.py`: the random checkpoints are fit to compare with."""

import json

import pytest
import torch
from safetensors.torch import load_file

from gliner_fast.comparing.reference_candidates import find_reference_candidates
from tests.checkpoint_recipes import KINDS
from tests.random_checkpoints import CALIBRATION_LABELS, make_checkpoint
from tests.samples import CROSSNER

pytestmark = pytest.mark.gliner


def test_the_same_recipe_gives_the_same_checkpoint(checkpoint, tmp_path):
    before = torch.get_rng_state()
    again = make_checkpoint(tmp_path, kind="deberta")
    assert torch.equal(before, torch.get_rng_state())
    first, second = (load_file(folder / "model.safetensors") for folder in (checkpoint("deberta"), again))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert (again / "tokenizer.json").read_bytes() == (checkpoint("deberta") / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("kind", ["deberta", "deberta-marker", "bert", "modernbert", "t5", "mt5", "era-v1"])
def test_scores_spread_as_those_of_a_trained_model_do(kind, checkpoint):
    from gliner import GLiNER

    reference = GLiNER.from_pretrained(str(checkpoint(kind)))
    scores = [
        candidate.score
        for text in CROSSNER[:20]
        for candidate in find_reference_candidates(reference, text, CALIBRATION_LABELS, floor=-1.0)
    ]
    above = sum(score > 0.5 for score in scores) / len(scores)
    assert 0.005 < above < 0.05
    assert min(scores) < 0.01
    assert max(scores) > 0.95


def test_every_kind_differs_from_the_others(checkpoint):
    seeds = {recipe.seed for kind, recipe in KINDS.items() if kind != "era-has-rnn-false"}
    assert len(seeds) == len(KINDS) - 1


def test_any_size_of_vocabulary_is_filled_up(tmp_path):
    folder = make_checkpoint(tmp_path, vocab_size=5_000)
    config = json.loads((folder / "gliner_config.json").read_text())
    assert config["vocab_size"] == 5_000
    assert config["class_token_index"] == 4_998
    weights = load_file(folder / "model.safetensors")
    assert len(weights["token_rep_layer.bert_layer.model.embeddings.word_embeddings.weight"]) == 5_000
