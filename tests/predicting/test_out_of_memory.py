"""A device that runs out of memory gets smaller batches, and changes no result."""

from __future__ import annotations

import contextlib
import gc
import weakref
from itertools import chain, cycle

import numpy as np
import pytest
import torch

from gliner_fast.comparing.verification import compare
from gliner_fast.predicting import out_of_memory
from gliner_fast.predicting import predictor as predictor_module
from gliner_fast.predicting.collecting import NotRead, _expect_few
from gliner_fast.predicting.out_of_memory import MOST_PATIENCE, PATIENCE, Recovery, halved_subwords, lowered_budget
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
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
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


@pytest.mark.parametrize(("error", "room"), list(zip(OUT_OF_MEMORY, (60, 150, 300, 60, 150, 300, 60), strict=True)))
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
    monkeypatch.setattr("gliner_fast.methods.prediction._WINDOW", 4)
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


def test_of_padded_texts_the_longest_counts_for_each():
    lengths, error = np.array([3, 9, 5, 4]), MemoryError()
    assert [halved_subwords(lengths, error, padded=padded) for padded in (True, False)] == [18, 10]


def test_a_batch_that_was_planned_before_a_budget_was_lowered_does_not_raise_it():
    assert lowered_budget(100, 300) == 100
    assert [lowered_budget(100, halved) for halved in (80, 50, 20)] == [80, 50, 50]


# --- and back ---------------------------------------------------------------------------------------------------------


def after(recovery, batches, asked):
    """What is asked for after so many batches that went well."""
    for _ in range(batches):
        asked = recovery.after_batch(asked)
    return asked


def test_a_lowered_budget_is_doubled_after_many_batches_up_to_what_was_asked_for():
    recovery = Recovery()
    assert recovery.after_batch(None) is None
    recovery.lower(None, 768, 384)
    recovery.lower(384, 384, 150)
    assert after(recovery, PATIENCE - 1, 150) == 150
    assert [after(recovery, count, recovery.now) for count in (1, PATIENCE, PATIENCE)] == [300, 600, None]
    assert recovery.full == 768
    assert after(recovery, PATIENCE, None) is None
    assert recovery.full == 0  # forgotten


def test_half_of_a_budget_is_doubled_to_what_was_asked_for_and_each_shortage_counts_anew():
    recovery = Recovery()
    recovery.lower(None, 768, 384)
    assert after(recovery, PATIENCE - 1, 384) == 384
    recovery.lower(384, 384, 192)
    assert after(recovery, PATIENCE - 1, 192) == 192
    assert [after(recovery, count, recovery.now) for count in (1, PATIENCE - 1, 1)] == [384, 384, None]


def test_what_was_raised_in_vain_is_tried_again_more_and_more_seldom():
    recovery, batches = Recovery(), []
    recovery.lower(800, 800, 400)
    for _ in range(12):
        count = 1
        while recovery.after_batch(400) == 400:
            count += 1
        batches.append(count)
        recovery.lower(recovery.now, 800, 400)
    assert batches[:4] == [PATIENCE, 2 * PATIENCE, 4 * PATIENCE, 8 * PATIENCE]
    assert batches[-1] == MOST_PATIENCE


def test_a_budget_that_the_user_sets_meanwhile_stays():
    recovery = Recovery()
    recovery.lower(None, 768, 384)
    assert after(recovery, 5 * PATIENCE, 100) == 100
    recovery.lower(100, 100, 50)
    assert after(recovery, PATIENCE, 50) == 100


def test_of_a_budget_that_the_user_sets_all_begins_anew():
    recovery = Recovery()
    recovery.lower(None, 768, 384)
    recovery.lower(after(recovery, PATIENCE, 384), 768, 384)  # in vain, so that twice as many have to go well
    assert after(recovery, PATIENCE, 384) == 384
    assert recovery.lower(100, 100, 50)  # is told again
    assert recovery.full == 100
    assert after(recovery, PATIENCE, 50) == 100
    assert after(recovery, PATIENCE, 100) == 100
    recovery.lower(100, 100, 50)  # it was back for long
    assert after(recovery, PATIENCE, 50) == 100


def test_the_user_hears_of_the_first_time_and_where_it_falls_much_further():
    recovery = Recovery()
    falling = [800, 400, 200, 51, 50, 25, 4, 3]
    told = [recovery.lower(before, 1600, budget) for before, budget in zip([1600, *falling], falling, strict=False)]
    assert told == [True, False, False, False, True, False, False, True]


MANY = [f"Ada Lovelace met number {number:03} in London." for number in range(200)]


@pytest.fixture(scope="module")
def found_in_many(built_in):
    """What is found in them where nothing is short."""
    return built_in.inference(MANY, LABELS)


@pytest.mark.parametrize("how", ["calls", "a stream", "devices", "overlap"])
def test_memory_that_was_short_for_a_moment_is_used_again(how, found_in_many, model, monkeypatch):
    monkeypatch.setattr(out_of_memory, "PATIENCE", 4)
    monkeypatch.setattr(model, "_recovery", Recovery())
    monkeypatch.setattr(predictor_module, "HostStages", lambda **_: HostStages(overlap=how == "overlap"))
    model.token_budget = 240
    forward, sizes, failing = model.model.forward, [], [True]

    def fail(batch, *others):
        if failing.pop() if failing else False:
            raise MemoryError("Unable to allocate 2.00 GiB for an array")
        sizes.append(len(batch.rows))
        return forward(batch, *others)

    monkeypatch.setattr(model.model, "forward", fail)
    parts = [MANY[first : first + 40] for first in range(0, 200, 40)]
    options = {"devices": ["cpu"]} if how == "devices" else {}
    with pytest.warns(UserWarning, match="out of memory") as caught:
        found = list(
            chain.from_iterable(model.inference(part, LABELS) for part in parts)
            if how == "calls"
            else model.stream(MANY, LABELS, window_size=40, **options)
        )
    assert len(caught) == 1
    report = compare(found, found_in_many, lambda _: [], threshold=0.5)
    assert not report.differences, str(report)
    assert model.token_budget == 240
    assert min(sizes) <= max(sizes) // 2
    assert max(sizes[-4:]) == max(sizes)
    failing.append(True)
    with pytest.warns(UserWarning, match="out of memory"):  # it was long ago
        model.inference(MANY[:40], LABELS)


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


@pytest.mark.filterwarnings("ignore:out of memory")
@pytest.mark.parametrize(("error", "overlap"), list(zip(OUT_OF_MEMORY, cycle([False, True]))))
def test_a_few_texts_that_do_not_fit_may_be_left_out(error, overlap, model, limited, monkeypatch):
    monkeypatch.setattr(predictor_module, "HostStages", lambda **_: HostStages(overlap=overlap))
    long = " ".join(TEXTS)  # in windows, of which the last one is short and fits
    texts = [long, TEXTS[0] * 4, *TEXTS, long]
    model.config = model.config.replace(max_len=60)
    options = Options(threshold=0.3, on_long="window", leave_out_unfit=True)
    request = Request.read(texts, LABELS, options)
    expected = model.answer(request)
    lengths = model.predictor().prepare(Request.read(TEXTS, LABELS, options)).lengths
    limited(int(lengths.max()), error)
    found = model.answer(Request.read(TEXTS * 2 + texts, LABELS, options))
    own = found[2 * len(TEXTS) :]
    assert [isinstance(entities, NotRead) for entities in own] == [True, True, *[False] * len(TEXTS), True]
    report = compare(own[2:-1], expected[2:-1], lambda _: [], threshold=0.3)
    assert not report.differences, str(report)


@pytest.mark.filterwarnings("ignore:out of memory")
@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1]])
def test_where_most_texts_do_not_fit_memory_is_short(texts, model, limited):
    limited(30, OUT_OF_MEMORY[0])
    request = Request.read(texts, LABELS, Options(leave_out_unfit=True))
    longest = model.predictor().prepare(request).lengths.max()  # is tried first, and told of
    told = rf"text of {longest} subwords, .* does not fit into memory: .* too many to leave them out: have other"
    with pytest.raises(MemoryError, match=told):
        model.answer(request)


def test_beside_ten_texts_that_fit_one_more_than_the_first_may_be_left_out():
    _expect_few(2, 12, "memory is short", others_fit=False)
    with pytest.raises(MemoryError, match="So it is with 2 of 11 texts"):
        _expect_few(2, 11, "memory is short", others_fit=False)


@pytest.mark.filterwarnings("ignore:out of memory")
def test_a_text_alone_may_be_left_out_behind_others_that_fit(model, limited):
    options = Options(leave_out_unfit=True)
    read = model.predictor().prepare
    short, long = (read(Request.read([text], LABELS, options)) for text in (TEXTS[0], TEXTS[0] * 9))
    limited(int(short.lengths.max()), OUT_OF_MEMORY[0])
    found = [own for _, own in model.predictor().predict_each(iter([short, long, long, short, long]))]
    are_left_out = [[isinstance(entities, NotRead) for entities in own] for own in found]
    assert are_left_out == [[False], [True], [True], [False], [True]]
    with pytest.raises(MemoryError, match="So it is with 1 of 1 texts"):
        list(model.predictor().predict_each(iter([long, short])))
    two = read(Request.read([TEXTS[0] * 9, TEXTS[1] * 9], LABELS, options))
    with pytest.raises(MemoryError, match="So it is with 2 of 2 texts"):
        list(model.predictor().predict_each(iter([short, two])))


@pytest.mark.parametrize("told", ["could not create a primitive", "could not execute a primitive"])
def test_where_onednn_has_broken_down_no_smaller_batch_is_tried(told, model, limited):
    error = RuntimeError(told)
    limited(20, error)
    with pytest.raises(MemoryError, match=f"oneDNN {told}, as a rule for want of memory, .* start it anew") as raised:
        model.inference(TEXTS, LABELS)
    assert raised.value.__cause__ is error
    assert model.token_budget is None


def test_other_errors_of_the_device_are_left_alone(model, limited):
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    limited(20, error)
    with pytest.raises(RuntimeError) as raised:
        model.inference(TEXTS, LABELS)
    assert raised.value is error
    assert model.token_budget is None
