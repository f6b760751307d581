"""A device that runs out of memory gets smaller batches, and changes no result."""

from __future__ import annotations

import contextlib
import gc
import weakref

import pytest
import torch

from gliner_fast.comparing.verification import compare
from gliner_fast.predicting import predictor as predictor_module
from gliner_fast.predicting.request import Options, Request
from gliner_fast.predicting.stages import HostStages
from gliner_fast.stats import Stats
from tests.samples import CROSSNER, LABELS

TEXTS = [text[:100] for text in CROSSNER[:20]]


@pytest.fixture
def model(forgetful_model):
    return forgetful_model


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    MemoryError("Unable to allocate 2.00 GiB for an array"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


@pytest.fixture
def limited(model, monkeypatch):
    """Makes the network fail on batches of more than so many subwords, padding included."""
    forward = model.model.forward

    def limit(subwords, error):
        def fail(batch, *others):
            if batch.input_ids.numel() > subwords:
                raise error
            return forward(batch, *others)

        monkeypatch.setattr(model.model, "forward", fail)

    return limit


@pytest.mark.parametrize(("error", "room"), list(zip(OUT_OF_MEMORY, (60, 150, 300, 60, 150), strict=True)))
def test_out_of_memory_halves_the_batches_and_changes_no_result(error, room, model, limited):
    long = " ".join(TEXTS[:3])  # some windows of 24 words and some whole texts
    texts = [*TEXTS, long]
    model.config = model.config.replace(max_len=24)
    expected = model.inference(texts, ["person", "location"], threshold=0.3, on_long="window")
    limited(room, error)
    stats = Stats()
    predictor = model.predictor()
    prepared = predictor.prepare(Request.read(texts, ["person", "location"], Options(threshold=0.3, on_long="window")))
    with pytest.warns(UserWarning, match="out of memory: batches are made smaller from now on, at most") as caught:
        found = predictor.predict(prepared, stats)
    assert len(caught) == 1
    report = compare(found, expected, lambda _: [], threshold=0.3)
    assert not report.differences, str(report)
    assert report.entities > 5
    assert report.moved == 0
    assert stats.windows == len(prepared.lengths)
    assert room / 4 <= model.token_budget < 2 * room  # no batch made within it was too large
    # It is remembered: the next call fails nowhere, and so warns of nothing.
    budget = model.token_budget
    assert len(model.inference(texts, ["person"], on_long="window")) == len(texts)
    assert model.token_budget == budget


@pytest.mark.filterwarnings("ignore:out of memory")
def test_what_one_part_of_many_texts_learned_of_memory_the_next_knows(model, monkeypatch):
    monkeypatch.setattr("gliner_fast.prediction._WINDOW", 4)
    forward, refused = model.model.forward, []

    def fail(batch, *others):
        if len(batch.rows) > 2:
            refused.append(len(batch.rows))
            raise MemoryError("Unable to allocate 2.00 GiB for an array")
        return forward(batch, *others)

    monkeypatch.setattr(model.model, "forward", fail)
    texts = [f"Ada Lovelace met number {number:02} in London." for number in range(16)]
    longest = model.predictor().prepare(Request.read(texts, LABELS, Options())).lengths.max()
    monkeypatch.setattr(model, "token_budget", 4 * int(longest))
    assert all(model.inference(texts, LABELS, threshold=0.1))
    assert refused == [4]


@pytest.mark.filterwarnings("ignore:out of memory")
def test_a_small_batch_that_did_not_fit_halves_the_budget_and_no_more(model, limited):
    limited(40, OUT_OF_MEMORY[0])
    model.token_budget = 1000
    assert len(model.inference(TEXTS[:2], LABELS)) == 2
    assert model.token_budget == 500


@pytest.mark.filterwarnings("ignore:out of memory")
@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("stage", ["compute", "decode"])
@pytest.mark.parametrize("texts", [TEXTS[:1], TEXTS[:4]], ids=["one text", "several"])
def test_nothing_holds_what_an_error_knows(texts, stage, overlap, model, monkeypatch):
    """Its traceback knows the tensors of a batch: the next attempt, and whoever catches it, need their room."""
    monkeypatch.setattr(predictor_module, "HostStages", lambda **_: HostStages(overlap=overlap))
    held = []

    class Activations:
        pass

    def fail(*_):
        assert not any(own() for own in held), "an attempt has the one before beside it"
        activations = Activations()
        held.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(
        *((model.model, "forward", fail) if stage == "compute" else (predictor_module, "find_candidates", fail))
    )
    gc.disable()
    try:
        with contextlib.suppress(MemoryError):
            model.inference(texts, LABELS)
        assert held
        assert not any(own() for own in held)
    finally:
        gc.enable()


@pytest.mark.filterwarnings("ignore:out of memory")
@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_a_single_text_that_does_not_fit_is_told_as_such(error, model, limited):
    limited(20, error)
    with pytest.raises(MemoryError, match=r"a text of \d+ subwords, labels included, does not fit") as raised:
        model.inference(TEXTS, LABELS)
    assert raised.value.__cause__ is error


def test_other_errors_of_the_device_are_left_alone(model, limited):
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    limited(20, error)
    with pytest.raises(RuntimeError) as raised:
        model.inference(TEXTS, LABELS)
    assert raised.value is error
    assert model.token_budget is None
