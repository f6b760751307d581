"""The host's stages beside the device's: their order, their threads, and who waits for the device."""

from __future__ import annotations

import threading

import pytest
import torch

from gliner_fast.encoders import attention_executor
from gliner_fast.kernels._triton import INTERPRETED
from gliner_fast.kernels.pending_candidates import PendingCandidates
from gliner_fast.predicting import predictor as predictor_module
from gliner_fast.predicting.request import Options, Request
from gliner_fast.predicting.schedule import Schedule
from gliner_fast.predicting.stages import HostStages
from gliner_fast.scoring import span_executor
from gliner_fast.stats import Stats
from tests.predicting.scheduling import TEXTS, Progress, batches_of, requests_of
from tests.samples import LABELS


@pytest.fixture
def model(model_of_small_batches):
    return model_of_small_batches


def predict_all(model, stats=None):
    predictor = model.predictor()
    return predictor.predict(predictor.prepare(Request.read(TEXTS, LABELS, Options(threshold=0.3))), stats)


# --- HostStages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", [False, True])
def test_work_gives_its_result_or_its_error_where_it_is_asked_for(overlap):
    with HostStages(overlap=overlap) as stages:
        for start in (stages.lay_out, stages.decode):
            assert start(divmod, 7, 2).result() == (3, 1)
            failed = start(divmod, 7, 0)
            with pytest.raises(ZeroDivisionError):
                failed.result()


@pytest.mark.parametrize("overlap", [False, True])
def test_each_stage_has_a_thread_of_its_own_if_any(overlap):
    with HostStages(overlap=overlap) as stages:
        threads = [start(threading.get_ident).result() for start in (stages.lay_out, stages.decode)]
    assert len({*threads, threading.get_ident()}) == (3 if overlap else 1)


def test_work_that_no_thread_can_be_had_for_is_done_in_the_caller_s_and_once(monkeypatch):
    done = []

    def refuse(_):
        raise RuntimeError("can't start new thread")

    with HostStages(overlap=True) as stages:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            assert stages.decode(lambda: done.append(threading.get_ident())).result() is None
        assert stages.decode(threading.get_ident).result() != threading.get_ident()
    assert done == [threading.get_ident()]


# --- batches ----------------------------------------------------------------------------------------------------------


def test_overlapping_changes_no_bit_and_counts_the_same(model, monkeypatch):
    in_turn, turns = predict_all(model, stats := Stats()), stats
    monkeypatch.setattr(predictor_module, "HostStages", lambda **_: HostStages(overlap=True))
    beside, counts = predict_all(model, stats := Stats()), stats
    assert beside == in_turn
    assert any(beside)
    for name in ("texts", "windows", "words", "subwords", "padded_subwords", "entities"):
        assert getattr(counts, name) == getattr(turns, name) > 0
    assert min(counts.encode_seconds, counts.score_seconds, counts.decode_seconds) > 0


@pytest.mark.timeout(120)
def test_a_batch_is_decoded_and_the_next_laid_out_while_another_is_computed(model, monkeypatch, overlapping):
    counts, changed = {"lay out": 0, "compute": 0, "decode": 0}, threading.Condition()
    threads = {stage: set() for stage in counts}
    forward, assemble, find = (
        model.model.forward,
        model.data_processor.batcher.assemble,
        predictor_module.find_candidates,
    )
    predictor = model.predictor()
    prepared = predictor.prepare(Request.read(TEXTS, LABELS, Options(threshold=0.3)))
    batches = len(predictor.plan(prepared, prepared.scorable, predictor.budget))

    def count(stage):
        threads[stage].add(threading.get_ident())
        with changed:
            counts[stage] += 1
            changed.notify_all()
            return counts[stage]

    def wait_for(stage, number):
        with changed:
            assert changed.wait_for(lambda: counts[stage] >= min(number, batches), timeout=60)

    def lay_out(*given, **options):
        batch = assemble(*given, **options)
        count("lay out")
        return batch

    def compute(*given):
        wait_for("lay out", count("compute") + 1)  # in their turn the next batch would be laid out after this
        return forward(*given)

    def decode(*given):
        wait_for("compute", count("decode") + 1)  # and the next be computed after this
        return find(*given)

    monkeypatch.setattr(model.data_processor.batcher, "assemble", lay_out)
    monkeypatch.setattr(predictor_module, "find_candidates", decode)
    monkeypatch.setattr(model.model, "forward", compute)
    assert any(predictor.predict(prepared))
    assert counts == dict.fromkeys(counts, batches)
    assert batches > 4
    assert len(set.union(*threads.values())) == 3


def test_three_batches_are_started_before_one_is_decoded_and_no_more(model, monkeypatch, overlapping):
    (total,) = batches_of(model, requests_of(model, [len(TEXTS)]))
    progress = Progress(model, monkeypatch, ahead=1, total=total)
    decode, finish, awaited = predictor_module.find_candidates, Schedule._finish, threading.Semaphore(0)

    def decode_once_awaited(*given):  # until then more batches may be started
        assert awaited.acquire(timeout=60)
        return decode(*given)

    monkeypatch.setattr(predictor_module, "find_candidates", decode_once_awaited)
    monkeypatch.setattr(Schedule, "_finish", lambda schedule: (awaited.release(), finish(schedule)))
    predict_all(model)
    assert progress.started == progress.decoded == total > 4
    assert progress.most_ahead == 3


@pytest.mark.filterwarnings("ignore:out of memory")
@pytest.mark.parametrize("stage", ["compute", "decode"])
def test_out_of_memory_in_either_stage_computes_each_text_once_more_in_smaller_batches(
    stage, model, monkeypatch, overlapping
):
    expected = predict_all(model)
    forward, find, failures = model.model.forward, predictor_module.find_candidates, []

    def fail(work, size, *given):
        if size > 80:
            failures.append(size)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return work(*given)

    def compute(batch, *others):
        return fail(forward, batch.input_ids.numel(), batch, *others)

    def decode(logits, word_counts, *others):
        return fail(find, 40 * len(word_counts), logits, word_counts, *others)

    monkeypatch.setattr(
        *((model.model, "forward", compute) if stage == "compute" else (predictor_module, "find_candidates", decode))
    )
    stats = Stats()
    found = predict_all(model, stats)
    assert failures
    assert stats.windows == len(TEXTS)
    assert [[(e["start"], e["end"], e["label"]) for e in own] for own in found] == [
        [(e["start"], e["end"], e["label"]) for e in own] for own in expected
    ]
    assert model.token_budget < 120


@pytest.mark.parametrize("stage", ["forward", "find_candidates"])
def test_another_error_in_either_stage_is_raised_to_the_caller(stage, model, monkeypatch, overlapping):
    def fail(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(model.model if stage == "forward" else predictor_module, stage, fail)
    with pytest.raises(RuntimeError, match="an illegal memory access"):
        predict_all(model)


@pytest.mark.timeout(120)
def test_a_text_that_does_not_fit_beside_others_goes_alone_and_those_after_it_overlap_again(
    model, monkeypatch, overlapping
):
    monkeypatch.setattr(model, "token_budget", 30)
    expected = predict_all(model)
    (total,) = batches_of(model, requests_of(model, [len(TEXTS)]))
    forward, find, changed = model.model.forward, predictor_module.find_candidates, threading.Condition()
    attempts, in_flight, started, refused = [], [], 0, 5

    def compute(batch, *others):
        nonlocal started
        with changed:
            attempts.append(batch.rows.tolist())
            in_flight.append(started - decoded)
            changed.notify_all()
            if len(attempts) == refused:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            started += 1
        return forward(batch, *others)

    decoded = 0

    def decode(*given):
        nonlocal decoded
        with changed:  # one that is decoded has another beside it, but for the one alone and what makes room for it
            assert changed.wait_for(
                lambda: started > decoded + 1 or started == total or len(attempts) in {refused, refused + 1}, timeout=60
            )
        found = find(*given)
        with changed:
            decoded += 1
        return found

    monkeypatch.setattr(model.model, "forward", compute)
    monkeypatch.setattr(predictor_module, "find_candidates", decode)
    assert predict_all(model) == expected
    assert any(expected)
    assert attempts[refused] == attempts[refused - 1]
    assert len(attempts[refused]) == 1
    assert len(attempts) == total + 1
    assert in_flight[refused - 1] > 0
    assert in_flight[refused : refused + 2] == [0, 0]
    assert started > 10
    assert model.token_budget == 30


# --- who waits for the device -----------------------------------------------------------------------------------------


@pytest.mark.skipif(not INTERPRETED, reason="needs Triton, and a machine without a GPU: tests/test_gpu.py has one")
def test_the_device_is_waited_for_once_a_batch_and_not_by_the_thread_that_feeds_it(model, monkeypatch, overlapping):
    monkeypatch.setenv(span_executor.VARIABLE, "triton")
    monkeypatch.setenv(attention_executor.VARIABLE, "padded")
    waits, batches = [], []
    wait, forward = PendingCandidates.wait, model.model.forward

    def counted(pending):
        waits.append(threading.current_thread())
        return wait(pending)

    def compute(*given):
        batches.append(1)
        return forward(*given)

    monkeypatch.setattr(PendingCandidates, "wait", counted)
    monkeypatch.setattr(model.model, "forward", compute)
    predictor = model.predictor()
    predictor.predict(predictor.prepare(Request.read(TEXTS[:6], LABELS[:2], Options(threshold=0.3))))
    assert len(waits) == len(batches) > 1
    assert threading.main_thread() not in waits
