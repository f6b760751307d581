"""Models that run in whole numbers of 16 and 8 bits."""

from __future__ import annotations

import copy
import pickle
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
import torch.multiprocessing  # registers how tensors are sent

from gliner_fast import GLiNER, extract_files
from gliner_fast.cpu import whole_numbers
from gliner_fast.cpu.whole_numbers import Packing, kinds_of, precision_of
from gliner_fast.devices import spread
from tests.jobs.conftest import read_jsonl, write_jsonl
from tests.samples import CROSSNER, LABELS

TEXTS = [*CROSSNER[:30], "", "word", "word " * 384]


@pytest.fixture(scope="module")
def exact() -> GLiNER:
    return GLiNER.from_pretrained()


@pytest.fixture(scope="module")
def model(kind) -> GLiNER:
    return GLiNER.from_pretrained(dtype=kind)


def test_a_model_that_was_sent_to_a_spawned_process_is_what_it_was(kind, model):
    expected = model.inference([text[:120] for text in CROSSNER[:2]], LABELS)
    ForkingPickler.dumps(model)
    assert model.precision == kind
    ForkingPickler.dumps(model.share_memory())
    assert model.inference([text[:120] for text in CROSSNER[:2]], LABELS) == expected
    assert model.precision == kind


@pytest.mark.filterwarnings("error")
def test_it_is_told_once_and_where_the_user_asked_for_it(monkeypatch):
    monkeypatch.setattr(whole_numbers, "is_x86", lambda: False)
    with pytest.warns(UserWarning, match="slow on this one") as by_loading:
        model = GLiNER.from_pretrained(dtype="int8")
    with pytest.warns(UserWarning, match="slow on this one") as by_method:
        model.quantize("int16")
    new = {"backbone_from_pretrained": False, "tokenizer": model.data_processor.transformer_tokenizer}
    with pytest.warns(UserWarning, match="slow on this one") as by_config:
        GLiNER.from_config(model.config, quantize="int8", **new)
    for caught in (by_loading, by_method, by_config):
        assert [own.filename for own in caught] == [__file__]
    pickle.loads(pickle.dumps(copy.deepcopy(model)))
    spread(model, [torch.device("cpu")] * 2)


def test_a_trained_model_finds_the_same(exact, kind, model):
    assert (exact.precision, model.precision) == ("float32", kind)
    off = {"int16": 0.01, "int8": 0.1}[kind]
    expected, found = exact.inference(TEXTS, LABELS, threshold=0.3), model.inference(TEXTS, LABELS, threshold=0.3)
    scores, exact_scores = by_place(found), by_place(expected)
    both = scores.keys() & exact_scores.keys()
    assert len(both) > 60
    assert 0 < max(abs(scores[place] - exact_scores[place]) for place in both) < off
    for place in scores.keys() ^ exact_scores.keys():
        assert (scores | exact_scores)[place] == pytest.approx(0.3, abs=off)  # beside the threshold


def by_place(answers):
    return {
        (row, own["start"], own["end"], own["label"]): own["score"]
        for row, found in enumerate(answers)
        for own in found
    }


def test_answers_do_not_depend_on_batch_mates(model):
    together = model.inference(TEXTS, LABELS, threshold=0.3)
    for text, found in zip(TEXTS, together, strict=True):
        alone = model.predict_entities(text, LABELS, threshold=0.3)
        assert [own["score"] for own in alone] == pytest.approx([own["score"] for own in found], abs=2e-6)


def test_a_loaded_model_can_be_quantized_and_saves_what_it_was(exact, kind, tmp_path, monkeypatch):
    own = GLiNER.from_pretrained(quantize=kind)
    assert own.precision == kind
    own.save_pretrained(tmp_path, safe_serialization=True)
    again = GLiNER.from_pretrained(tmp_path)
    assert again.precision == "float32"
    for mine, theirs in zip(again.parameters(), exact.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    again.quantize()
    assert again.precision == "int8"  # as of `gliner`
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *_, **__: None)
    with pytest.warns(UserWarning, match="slower on a CPU"):
        again.compile()
    assert again.precision == "float32"


def test_copies_on_other_devices_compute_as_the_model(kind, model):
    own, other = spread(model, [torch.device("cpu")] * 2)
    assert precision_of(own.network) == precision_of(other.network) == kind
    with pytest.raises(ValueError, match="is to be copied to meta"):
        spread(model, [torch.device("cpu"), torch.device("meta")])


def leave_by_layer(model):
    model.model.encoder.train()
    model.model.eval()


def leave_by_dtype(model):
    model.model.encoder.double().float()


def leave_with_the_lstm(model):
    leave_by_layer(model)
    model.model.rnn.train()
    model.model.eval()


@pytest.mark.parametrize("leave", [leave_by_layer, leave_by_dtype, leave_with_the_lstm])
def test_copies_have_whole_numbers_where_the_model_has_them(kind, leave):
    model = GLiNER.from_pretrained(dtype=kind)
    leave(model)
    assert model.precision == f"partly {kind}"
    expected = model.inference(TEXTS[:6], LABELS, threshold=0.3)
    assert model.precision == f"partly {kind}"
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert kinds_of(copied.model) == kinds_of(model.model)
        assert copied.inference(TEXTS[:6], LABELS, threshold=0.3) == expected
    _, other = spread(model, [torch.device("cpu")] * 2)
    assert Packing.of(other.network) == Packing.of(model.model)


def test_a_model_with_layers_in_other_dtypes_can_be_copied(kind):
    model = GLiNER.from_pretrained(dtype=kind)
    model.model.scorer.double()
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert copied.precision == f"partly {kind}"
        assert kinds_of(copied.model) == kinds_of(model.model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantize": "fp16"}, "quantize is 'fp16': expected 'int16' or 'int8'"),
        ({"quantize": True}, "quantize is True"),
        ({"quantize": "int16", "dtype": "bf16"}, r"torch\.bfloat16 on cpu was asked for"),
        ({"dtype": "int16", "map_location": "meta"}, "on meta was asked for"),
    ],
)
def test_what_cannot_be_had_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GLiNER.from_pretrained(**options)


def test_a_loaded_model_is_quantized_to_nothing_else(exact):
    half = GLiNER.from_pretrained(dtype="bf16")
    with pytest.raises(ValueError, match=r"the model is in torch\.bfloat16 on cpu"):
        half.quantize()
    for name in ("int4", None):
        with pytest.raises(ValueError, match="expected 'int16' or 'int8'"):
            exact.quantize(dtype=name)
    assert exact.precision == GLiNER.from_pretrained(quantize=False).precision == "float32"


def test_a_job_runs_in_them_and_goes_on_in_nothing_else(kind, tmp_path):
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS[:9]])
    options = {"output_format": "jsonl", "device": "cpu"}
    extract_files(source, tmp_path / "out", LABELS, dtype=kind, **options)
    extract_files(source, tmp_path / "exact.jsonl", LABELS, device="cpu")
    shards = sorted((tmp_path / "out").rglob("shard-*.jsonl"))
    places = [
        by_place([row["entities"] for path in paths for row in read_jsonl(path)])
        for paths in (shards, [tmp_path / "exact.jsonl"])
    ]
    assert places[0].keys() == places[1].keys() != set()
    assert places[0] != places[1]  # scores
    with pytest.raises(ValueError, match="dtype"):
        extract_files(source, tmp_path / "out", LABELS, dtype="fp32", **options)
