"""The host's stages beside the device's: their order, their threads, and who waits for the device."""

from __future__ import annotations

import threading

import pytest
import torch

from gliner_fast import GLiNER, attention_executor, predict, span_executor
from gliner_fast.kernels._triton import INTERPRETED
from gliner_fast.kernels.pending_candidates import PendingCandidates
from gliner_fast.request import Options, Request
from gliner_fast.stages import HostStages
from gliner_fast.stats import Stats
from tests.samples import CROSSNER, LABELS

TEXTS = [text[:60] for text in CROSSNER[:24]]


@pytest.fixture(scope="module")
def loaded():
    return GLiNER.from_pretrained()


@pytest.fixture
def model(loaded, monkeypatch):
    """The built-in model, with batches of a few texts, and nothing remembered from other tests."""
    for name, value in (("token_budget", 120), ("_told", set())):
        monkeypatch.setattr(loaded, name, value)
    return loaded


@pytest.fixture
def overlapping(monkeypatch):
    """Has the stages overlap on the CPU as they do on CUDA."""
    monkeypatch.setattr(predict, "HostStages", lambda **_: HostStages(overlap=True))


def predict_all(model, stats=None):
    predictor = model.predictor()
    return predictor.predict(predictor.prepare(Request.read(TEXTS, LABELS, Options(threshold=0.3))), stats)


def requests_of(model, sizes, asked=None):
    """Prepared requests of so many texts each; their numbers go to `asked` as they are asked for."""
    predictor, first = model.predictor(), 0
    for number, size in enumerate(sizes):
        if asked is not None:
            asked.append(number)
        yield predictor.prepare(Request.read(TEXTS[first : first + size], LABELS, Options(threshold=0.3)))
        first += size


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


# --- batches ----------------------------------------------------------------------------------------------------------


def test_overlapping_changes_no_bit_and_counts_the_same(model, monkeypatch):
    in_turn, turns = predict_all(model, stats := Stats()), stats
    monkeypatch.setattr(predict, "HostStages", lambda **_: HostStages(overlap=True))
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
    forward, assemble, find = model.model.forward, model._batcher.assemble, predict.find_candidates
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

    monkeypatch.setattr(model._batcher, "assemble", lay_out)
    monkeypatch.setattr(predict, "find_candidates", decode)
    monkeypatch.setattr(model.model, "forward", compute)
    assert any(predictor.predict(prepared))
    assert counts == dict.fromkeys(counts, batches)
    assert batches > 4
    assert len(set.union(*threads.values())) == 3


class Progress:
    """Counts batches that were started and decoded; decoding waits until so many more than it has done are started."""

    def __init__(self, model, monkeypatch, ahead, total):
        self.started = self.decoded = self.most_ahead = 0
        self._changed = threading.Condition()
        forward, find = model.model.forward, predict.find_candidates

        def compute(*given):
            with self._changed:
                self.started += 1
                self.most_ahead = max(self.most_ahead, self.started - self.decoded)
                self._changed.notify_all()
            return forward(*given)

        def decode(*given):
            with self._changed:
                wanted = min(self.decoded + ahead, total)
                assert self._changed.wait_for(lambda: self.started >= wanted, timeout=60)
            found = find(*given)
            with self._changed:
                self.decoded += 1
            return found

        monkeypatch.setattr(model.model, "forward", compute)
        monkeypatch.setattr(predict, "find_candidates", decode)


def batches_of(model, requests):
    return [len(model.predictor().plan(own, own.scorable, model.token_budget)) for own in requests]


def test_three_batches_are_started_before_one_is_decoded_and_no_more(model, monkeypatch, overlapping):
    (total,) = batches_of(model, requests_of(model, [len(TEXTS)]))
    progress = Progress(model, monkeypatch, ahead=3, total=total)
    predict_all(model)
    assert progress.started == progress.decoded == total > 4
    assert progress.most_ahead == 3


@pytest.mark.filterwarnings("ignore:out of memory")
@pytest.mark.parametrize("stage", ["compute", "decode"])
def test_out_of_memory_in_either_stage_computes_each_text_once_more_in_smaller_batches(
    stage, model, monkeypatch, overlapping
):
    expected = predict_all(model)
    forward, find, failures = model.model.forward, predict.find_candidates, []

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
        *((model.model, "forward", compute) if stage == "compute" else (predict, "find_candidates", decode))
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

    monkeypatch.setattr(model.model if stage == "forward" else predict, stage, fail)
    with pytest.raises(RuntimeError, match="an illegal memory access"):
        predict_all(model)


@pytest.mark.filterwarnings("ignore:out of memory")
def test_a_text_that_does_not_fit_beside_others_is_tried_alone(model, monkeypatch, overlapping):
    monkeypatch.setattr(model, "token_budget", 30)
    expected = predict_all(model)
    forward, decoded, find, refused = model.model.forward, [0], predict.find_candidates, []
    started = [0]

    def compute(batch, *others):
        if len(batch.rows) == 1 and started[0] > decoded[0]:
            refused.append(len(batch.rows))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        started[0] += 1
        return forward(batch, *others)

    def decode(*given):
        found = find(*given)
        decoded[0] += 1
        return found

    monkeypatch.setattr(model.model, "forward", compute)
    monkeypatch.setattr(predict, "find_candidates", decode)
    assert predict_all(model) == expected
    assert any(expected)
    assert refused
    assert model.token_budget == 30


# --- requests ---------------------------------------------------------------------------------------------------------


SIZES = [9, 1, 0, 8, 2]


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
    monkeypatch.setattr(predict, "HostStages", lambda **_: HostStages(overlap=overlap))
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
def test_a_device_with_nothing_to_do_is_not_kept_waiting_for_the_request_after_its_next_batch(
    model, monkeypatch, overlapping
):
    monkeypatch.setattr(model, "token_budget", 10_000)  # a batch for each request
    forward, begun = model.model.forward, threading.Event()

    def compute(*given):
        begun.set()
        return forward(*given)

    def requests():
        for number, request in enumerate(requests_of(model, [6, 6, 6])):
            assert number == 0 or begun.wait(60)
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
    monkeypatch.setattr(predict, "HostStages", lambda **_: HostStages(overlap=overlap))
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
    predictor, find, forward = model.predictor(), predict.find_candidates, model.model.forward
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
    monkeypatch.setattr(predict, "find_candidates", decode)
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
    monkeypatch.setattr(predict, "HostStages", lambda **_: HostStages(overlap=overlap))
    error, calls = RuntimeError("CUDA error: an illegal memory access was encountered"), [0]
    place, name = {"prepare": (None, ""), "forward": (model.model, stage)}.get(stage, (predict, stage))
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
