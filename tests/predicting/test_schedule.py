"""One request after another: what is begun when, what comes back, and in whose turn an error is raised."""

from __future__ import annotations

import threading

import pytest
import torch

from gliner_fast.predicting import predictor as predictor_module
from gliner_fast.predicting.request import Options, Request
from gliner_fast.predicting.stages import HostStages
from gliner_fast.stats import Stats
from tests.predicting.scheduling import TEXTS, Progress, batches_of, requests_of
from tests.samples import LABELS

SIZES = [9, 1, 0, 8, 2]


@pytest.fixture
def model(model_of_small_batches):
    return model_of_small_batches


def test_requests_give_what_they_give_alone_to_the_last_bit(model, overlapping):
    predictor, stats, own = model.predictor(), Stats(), Stats()
    pairs = list(predictor.predict_each(requests_of(model, SIZES), stats))
    assert [len(prepared.request.texts) for prepared, _ in pairs] == SIZES
    assert [found for _, found in pairs] == [predictor.predict(own_, own) for own_ in requests_of(model, SIZES)]
    assert any(any(found) for _, found in pairs)
    for name in ("texts", "windows", "words", "subwords", "padded_subwords", "entities"):
        assert getattr(stats, name) == getattr(own, name) > 0


@pytest.mark.parametrize("overlap", [False, True])
def test_only_where_stages_overlap_is_the_next_request_begun_while_one_is_decoded(overlap, model, monkeypatch):
    monkeypatch.setattr(predictor_module, "HostStages", lambda **_: HostStages(overlap=overlap))
    sizes = [6, 6, 6, 6]
    batches = batches_of(model, requests_of(model, sizes))
    progress = Progress(model, monkeypatch, ahead=2 if overlap else 1, total=sum(batches))
    asked, done = [], 0
    for number, _ in enumerate(model.predictor().predict_each(requests_of(model, sizes, asked))):
        done += batches[number]
        if not overlap:
            assert (len(asked), progress.started) == (number + 1, done)
        elif number + 1 < len(sizes):
            assert progress.started > done
            assert len(asked) == number + 2
    assert progress.started == sum(batches)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("batches", [1, 2])
def test_a_device_with_little_to_do_is_not_kept_waiting_for_the_request_after_its_next_batch(
    batches, model, monkeypatch, overlapping
):
    # So many batches for each request.
    monkeypatch.setattr(model, "token_budget", 10_000 if batches == 1 else 120)
    assert batches_of(model, requests_of(model, [6, 6, 6])) == [batches] * 3
    forward, begun = model.model.forward, threading.Semaphore(0)

    def compute(*given):
        begun.release()
        return forward(*given)

    def requests():
        for number, request in enumerate(requests_of(model, [6, 6, 6])):
            assert number != 1 or all(begun.acquire(timeout=60) for _ in range(batches))
            yield request

    monkeypatch.setattr(model.model, "forward", compute)
    assert len(list(model.predictor().predict_each(requests()))) == 3


def test_a_request_that_is_not_ready_is_asked_for_again(model, overlapping):
    def requests():
        for request in requests_of(model, SIZES):
            yield request
            yield from [None] * 3 if request.scorable.size else []

    pairs = list(model.predictor().predict_each(requests()))
    assert [len(prepared.request.texts) for prepared, _ in pairs] == SIZES


@pytest.mark.parametrize("overlap", [False, True])
def test_once_nobody_wants_the_results_no_further_batch_is_started(overlap, model, monkeypatch):
    monkeypatch.setattr(predictor_module, "HostStages", lambda **_: HostStages(overlap=overlap))
    forward, unwanted, begun = model.model.forward, threading.Event(), []

    def compute(*given):
        begun.append(1)
        if len(begun) == 2:
            unwanted.set()
        return forward(*given)

    monkeypatch.setattr(model.model, "forward", compute)
    given = list(model.predictor().predict_each(requests_of(model, [len(TEXTS)]), unwanted=unwanted))
    assert given == []
    assert len(begun) == 2


@pytest.mark.filterwarnings("ignore:out of memory")
@pytest.mark.parametrize("error", [RuntimeError("CUDA error: illegal"), torch.OutOfMemoryError("CUDA out of memory.")])
def test_a_request_that_memory_was_short_for_is_given_before_the_error_of_the_next(
    error, model, monkeypatch, overlapping
):
    predictor, find, forward = model.predictor(), predictor_module.find_candidates, model.model.forward
    requests = [
        predictor.prepare(Request.read(texts, LABELS, Options(threshold=0.3)))
        for texts in (TEXTS[:2], [f"{TEXTS[2]} {TEXTS[3]}"])
    ]
    (wanted,) = (found for _, found in predictor.predict_each(requests[:1]))
    next_begun = threading.Event()

    def compute(batch, *others):
        if batch.word_counts.tolist() == words_of_the_next:
            next_begun.set()
        return forward(batch, *others)

    def decode(scores, word_counts, *others):
        assert next_begun.wait(timeout=60)
        if word_counts.tolist() == words_of_the_next:
            raise error
        if len(word_counts) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return find(scores, word_counts, *others)

    first_words, words_of_the_next = ((own.rows.lasts - own.rows.firsts).tolist() for own in requests)
    assert words_of_the_next[0] not in first_words
    monkeypatch.setattr(model.model, "forward", compute)
    monkeypatch.setattr(predictor_module, "find_candidates", decode)
    given = []
    with pytest.raises((RuntimeError, MemoryError)) as raised:
        given.extend(found for _, found in predictor.predict_each(requests))
    assert error in (raised.value, raised.value.__cause__)
    keys = [[(e["start"], e["end"], e["label"]) for found in own for e in found] for own in (*given, wanted)]
    assert len(given) == 1
    assert keys[0] == keys[1] != []


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("stage", ["prepare", "forward", "find_candidates"])
def test_an_error_is_raised_once_what_requests_before_it_found_is_given(stage, overlap, model, monkeypatch):
    monkeypatch.setattr(predictor_module, "HostStages", lambda **_: HostStages(overlap=overlap))
    error, calls = RuntimeError("CUDA error: an illegal memory access was encountered"), [0]
    place, name = {"prepare": (None, ""), "forward": (model.model, stage)}.get(stage, (predictor_module, stage))
    first = len(model.predictor().plan(one := next(requests_of(model, [6])), one.scorable, 120))

    def failing(work):
        def call(*given):
            calls[0] += 1
            if calls[0] > first:
                raise error
            return work(*given)

        return call

    def requests():
        yield from requests_of(model, [6] if stage == "prepare" else [6, 6, 6])
        raise error

    if place is not None:
        monkeypatch.setattr(place, name, failing(getattr(place, name)))
    given = []
    with pytest.raises(RuntimeError) as raised:
        given.extend(found for _, found in model.predictor().predict_each(requests()))
    assert raised.value is error
    assert len(given) == 1
    assert any(given[0])
