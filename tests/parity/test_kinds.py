"""Every kind of checkpoint gives gliner's answers."""

import json
import warnings

import pytest

from tests.checkpoint_recipes import KINDS
from tests.parity.pairs import Pair
from tests.samples import CROSSNER, LABELS, UNICODE

pytestmark = pytest.mark.gliner

TEXTS = CROSSNER[::12] + UNICODE[::16]
DECODINGS = [
    {"threshold": 0.5},
    {"threshold": 0.3},
    {"threshold": 0.9},
    {"threshold": 0.3, "flat_ner": False},
    {"threshold": 0.3, "multi_label": True},
    {"threshold": 0.3, "flat_ner": False, "multi_label": True},
]
READ_ALIKE = sorted(KINDS.keys() - {"era-has-rnn-false"})


@pytest.mark.parametrize("kind", READ_ALIKE)
def test_answers_are_the_reference_s(kind, pair):
    both = pair(kind)
    found = [sum(map(len, both.check(TEXTS, LABELS, **decoding))) for decoding in DECODINGS]
    assert found[0] > 10, "the checkpoint finds too little to compare"
    assert found[1] > found[0] > found[2]
    assert found[3] >= found[1]


@pytest.mark.parametrize("kind", READ_ALIKE)
def test_the_configuration_reads_as_the_reference_reads_it(kind, pair):
    both = pair(kind)
    for name in (
        "max_width", "max_len", "hidden_size", "span_mode", "subtoken_pooling", "num_rnn_layers", "embed_ent_token",
        "class_token_index", "vocab_size", "ent_token", "sep_token", "words_splitter_type", "model_name",
    ):  # fmt: skip
        assert getattr(both.ours.config, name) == getattr(both.reference.config, name), name


def test_a_checkpoint_without_an_lstm_gets_none(checkpoint):
    # The reference puts a random one there (Q4), so it reads the same weights from a folder that says so.
    folder = checkpoint("era-has-rnn-false")
    assert json.loads((folder / "gliner_config.json").read_text())["has_rnn"] is False
    both = Pair.load(folder, reference_folder=checkpoint("without-rnn"))
    assert sum(map(len, both.check(TEXTS, LABELS))) > 10


def test_old_folders_hold_what_old_packages_wrote(checkpoint):
    folder = checkpoint("era-v1")
    config = json.loads((folder / "gliner_config.json").read_text())
    assert not {"encoder_config", "class_token_index", "vocab_size", "num_rnn_layers"} & set(config)
    assert sorted(file.name for file in folder.iterdir()) == ["encoder", "gliner_config.json", "pytorch_model.bin"]


def test_loading_a_sound_checkpoint_warns_of_nothing(checkpoint):
    from gliner_fast import GLiNER

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ("deberta", "bert", "era-v1", "era-has-rnn"):
            GLiNER.from_pretrained(checkpoint(kind))
