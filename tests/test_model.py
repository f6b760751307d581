"""A model as an object: copies of it, its settings and its modes."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import weakref

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from gliner_fast import GLiNER
from gliner_fast.errors import CheckpointError
from tests.samples import CROSSNER, LABELS

TEXTS = [text[:120] for text in CROSSNER[:6]]


@pytest.fixture
def model(checkpoint) -> GLiNER:
    """A small random one, a new one each time."""
    return GLiNER.from_pretrained(checkpoint("deberta-narrow"))


def spans(found) -> list[list[tuple[object, ...]]]:
    return [[(e["start"], e["end"], e["label"]) for e in own] for own in found]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("is_used", [False, True])
def test_a_copy_gives_the_same_answers(copied, is_used, model):
    expected = model.inference(TEXTS, LABELS, threshold=0.3)
    fresh = model if is_used else GLiNER.from_pretrained(model.source)
    assert copied(fresh).inference(TEXTS, LABELS, threshold=0.3) == expected
    assert any(expected)


def test_a_copy_numbers_words_as_the_model_does(checkpoint):
    model = GLiNER.from_pretrained(checkpoint("deberta-narrow"), corrected_numbering=True)
    assert copy.deepcopy(model).corrected_numbering


@pytest.mark.parametrize("kind", ["int16", "int8"])
def test_a_copy_of_whole_numbers_has_them_too(kind):
    model = GLiNER.from_pretrained(dtype=kind)
    expected = model.inference(TEXTS, LABELS, threshold=0.3)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert copied.precision == kind
        assert copied.inference(TEXTS, LABELS, threshold=0.3) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_process_forked_from_one_that_predicted_predicts(model, tmp_path):
    (tmp_path / "model").write_bytes(pickle.dumps(model))
    subprocess.run([sys.executable, "-c", _FORKS, tmp_path / "model"], check=True, timeout=120)


# Each in a process that has predicted with no other model.
_FORKS = """
import os, pickle, sys, torch
from pathlib import Path
from gliner_fast import GLiNER

def forks(load):
    torch.set_num_threads(2)
    model = load()
    found = model.predict_entities("Ada Lovelace lived in London.", ["person", "city"], threshold=0)
    child = os.fork()
    if child == 0:
        same = model.predict_entities("Ada Lovelace lived in London.", ["person", "city"], threshold=0)
        os._exit(0 if [e["text"] for e in same] == [e["text"] for e in found] != [] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert torch.get_num_threads() == 2

child = os.fork()
if child == 0:
    forks(GLiNER.from_pretrained)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
forks(lambda: pickle.loads(Path(sys.argv[1]).read_bytes()))
"""


def test_who_puts_this_package_in_gliner_s_place_has_one_class():
    program = """
import sys, gliner_fast
sys.modules["gliner"] = gliner_fast
from gliner.model import GLiNER
import gliner
assert GLiNER is gliner.GLiNER is gliner.model.GLiNER is gliner_fast.GLiNER, GLiNER
assert GLiNER.__module__ == "gliner_fast.model"
from gliner.config import GLiNERConfig
assert GLiNERConfig is gliner.GLiNERConfig is gliner.config.GLiNERConfig is gliner_fast.GLiNERConfig, GLiNERConfig
assert isinstance(gliner_fast.GLiNER.from_pretrained().config, GLiNERConfig)
from gliner.infer_packing import InferencePackingConfig
assert InferencePackingConfig is gliner_fast.InferencePackingConfig, InferencePackingConfig
from gliner.training import TrainingConfig
import gliner.evaluation, gliner_fast.evaluation, gliner_fast.training
assert gliner.training is sys.modules["gliner.training"] is gliner_fast.training
assert gliner.evaluation is sys.modules["gliner.evaluation"] is gliner_fast.evaluation
assert TrainingConfig.__module__ == "gliner_fast.training.config"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_a_setting_that_is_assigned_holds_from_the_next_call_on(model):
    whole = model.inference(TEXTS, LABELS, threshold=0.3)
    model.config.max_len = 5
    with pytest.warns(UserWarning, match="has been truncated to 5"):
        cut = model.inference(TEXTS, LABELS, threshold=0.3)
    assert spans(cut) != spans(whole)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("max_len", 0, CheckpointError),
        ("max_width", "12", CheckpointError),
        ("max_width", 99, CheckpointError),
        ("subtoken_pooling", "last", CheckpointError),
        ("embed_ent_token", False, CheckpointError),
        ("class_token_index", 7, CheckpointError),
        ("num_rnn_layers", 7, CheckpointError),
        ("max_length", 5, AttributeError),
    ],
)
def test_a_setting_that_cannot_be_is_refused_and_nothing_is_changed(name, value, error, model):
    before = model.config.to_dict()
    with pytest.raises(error, match=name):
        setattr(model.config, name, value)
    assert model.config.to_dict() == before


def test_a_setting_of_no_model_may_be_assigned(model):
    config = model.config.replace()
    config.num_rnn_layers, config.max_width = 0, 5
    assert (config.num_rnn_layers, config.max_width) == (0, 5)


@pytest.mark.parametrize("part", ["", "encoder", "encoder.layers", "encoder.layers.0", "scorer", "scorer.prompt"])
def test_a_part_left_in_training_mode_does_not_predict_in_it(part, model):
    expected = model.inference(TEXTS, LABELS, threshold=0.3)
    model.model.get_submodule(part).train()
    assert model.inference(TEXTS, LABELS, threshold=0.3) == expected
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("kind", ["deberta", "bert", "modernbert", "t5", "bi", "token", "relex"])
def test_a_model_that_nobody_holds_any_more_is_gone_at_once(kind, checkpoint):
    model = GLiNER.from_pretrained(checkpoint(kind))
    gc.collect()  # what loading left
    gc.disable()
    try:
        model.inference(TEXTS, LABELS)
        list(model.stream(TEXTS, LABELS))
        parts = [weakref.ref(part) for part in (*model.modules(), *model.parameters(), model.data_processor.batcher)]
        del model
        assert not [part() for part in parts if part() is not None]
    finally:
        gc.enable()


_FIRST_OF_A_PROCESS = """
import gc, sys, weakref
from gliner_fast import GLiNER
gc.disable()
model = GLiNER.from_pretrained(sys.argv[1])
parts = [weakref.ref(part) for part in model.modules()]
del model
assert not [part() for part in parts if part() is not None]
"""


def test_imports_for_the_first_model_hold_nothing_where_no_garbage_is_collected(checkpoint):
    subprocess.run([sys.executable, "-c", _FIRST_OF_A_PROCESS, checkpoint("bi")], check=True)  # transformers twice


def random_behind(parent, name):
    setattr(parent, name, nn.Sequential(getattr(parent, name), nn.Dropout(0.9)))


def random_inside(parent, name):
    leaf = getattr(parent, name)
    leaf.noise = nn.Dropout(0.9)
    leaf.register_forward_hook(lambda _, __, out: leaf.noise(out))


def random_far_inside(parent, name):
    random_behind(parent, name)
    own = getattr(parent, name)
    own.eval()
    random_behind(own, "0")


@pytest.mark.parametrize("put", [random_behind, random_inside, random_far_inside])
@pytest.mark.parametrize("place", ["encoder.layers.1.output", "scorer.start.inner"])
def test_what_is_put_in_between_two_predictions_does_not_predict_in_training_mode(put, place, model):
    expected = model.inference(TEXTS, LABELS, threshold=0.3)
    parent, _, name = place.rpartition(".")
    put(model.model.get_submodule(parent), name)
    found = model.inference(TEXTS, LABELS, threshold=0.3)
    assert not any(module.training for module in model.modules())
    assert spans(found) == spans(expected)
    assert any(expected)


# --- options in other forms -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [np.array, torch.tensor, pl.Series])
def test_values_of_each_text_may_be_arrays(make, model):
    nested, several, thresholds = [True, False] * 3, [False, False, True] * 2, [0.3, 0.5] * 3
    expected = model.inference(TEXTS, LABELS, flat_ner=nested, multi_label=several, threshold=thresholds)
    arrays = {"flat_ner": make(nested), "multi_label": make(several), "threshold": make(thresholds)}
    assert spans(model.inference(TEXTS, LABELS, **arrays)) == spans(expected)
    if make is not pl.Series:
        assert model.inference(TEXTS, LABELS, threshold=make(0.25)) == model.inference(TEXTS, LABELS, threshold=0.25)


def test_spans_of_each_text_may_be_a_column(model):
    given = [[{"start": 0, "end": 3}], *[[]] * (len(TEXTS) - 1)]
    expected = model.inference(TEXTS, LABELS, threshold=-1, input_spans=given)
    assert model.inference(TEXTS, LABELS, threshold=-1, input_spans=pl.Series(given)) == expected


@pytest.mark.parametrize("name", ["flat_ner", "multi_label"])
def test_values_of_each_text_that_are_none_are_refused_by_name(name, model):
    with pytest.raises(TypeError, match=rf"^{name} is \[\[True\], .*expected True or False"):
        model.inference(TEXTS, LABELS, **{name: [[True], [False]]})


@pytest.mark.parametrize("name", ["flat_ner", "multi_label", "threshold", "input_spans"])
def test_an_iterator_is_refused_by_the_name_of_its_option(name, model):
    with pytest.raises(TypeError, match=rf"^{name} is a generator: expected"):
        model.inference(TEXTS, LABELS, **{name: (value for value in [])})


def test_a_label_without_a_threshold_is_told_before_anything_is_computed(model, monkeypatch):
    monkeypatch.setattr(model.model, "forward", None)
    asked = [["person"]] * 5 + [["persn"]]
    with pytest.raises(ValueError, match="threshold has no value for the label 'persn'"):
        model.inference(TEXTS, asked, threshold={"person": 0.5})
    with pytest.raises(ValueError, match="threshold has no value for the label 'city'"):
        model.stream(TEXTS, ["person", "city"], threshold={"person": 0.5})
