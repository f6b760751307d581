"""Every kind of checkpoint gives gliner's answers."""

import json
import warnings

import pytest

from tests.checkpoint_recipes import KINDS
from tests.parity.pairs import Pair
from tests.samples import CROSSNER, LABELS, UNICODE

pytestmark = pytest.mark.gliner

TEXTS = CROSSNER[::12] + UNICODE[::16]
DEFAULT, WIDEST = {"threshold": 0.5}, {"threshold": 0.3, "flat_ner": False, "multi_label": True}
# What these choose is among what the widest finds, by code that knows no kinds: each kind has one of them, in turn.
OTHERS = [
    {"threshold": 0.3},
    {"threshold": 0.9},
    {"threshold": 0.3, "flat_ner": False},
    {"threshold": 0.3, "multi_label": True},
]
READ_ALIKE = sorted(KINDS.keys() - {"era-has-rnn-false"})


@pytest.mark.parametrize("kind", READ_ALIKE)
def test_answers_are_the_reference_s(kind, pair):
    both, other = pair(kind), OTHERS[READ_ALIKE.index(kind) % len(OTHERS)]
    default, widest, some = (
        sum(map(len, both.check(TEXTS, LABELS, **decoding))) for decoding in (DEFAULT, WIDEST, other)
    )
    assert default > 10, "the checkpoint finds too little to compare"
    assert default < widest
    assert some < default if other["threshold"] > 0.5 else default < some <= widest


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
