"""One model on several devices; the CPU counts as many as it is named."""

from __future__ import annotations

import dataclasses
import gc
import subprocess
import sys
import threading
import weakref
from types import SimpleNamespace

import pytest
import torch

from gliner_fast import GLiNER, devices, pipeline
from gliner_fast.devices import is_same, parse_devices, spread
from gliner_fast.pipeline import Window, predict_windows
from gliner_fast.predicting import predictor as predictor_module
from gliner_fast.predicting.out_of_memory import PATIENCE
from gliner_fast.predicting.predictor import Predictor
from gliner_fast.predicting.request import Options
from gliner_fast.predicting.stages import HostStages
from gliner_fast.stats import Stats
from tests.samples import CROSSNER, LABELS

TEXTS = [text[:50] for text in CROSSNER[:18]]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    return GLiNER.from_pretrained()


# --- which ones -------------------------------------------------------------------------------------------------------


def test_all_are_all_cuda_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert parse_devices("all") == [torch.device("cuda", index) for index in range(3)]


def test_all_is_the_cpu_where_there_is_no_cuda_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.warns(UserWarning, match="no CUDA device that can be used: 'all' is the CPU here"):
        assert parse_devices("all") == [CPU]


def test_names_are_taken_as_they_are():
    assert parse_devices(["cpu", CPU]) == [CPU, CPU]
    assert parse_devices("cpu") == [CPU]


def test_a_card_without_a_number_is_this_thread_s_current_one(monkeypatch):
    monkeypatch.setattr("gliner_fast.devices.choose_device", torch.device)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    named = parse_devices(["cuda", "cuda:0", "cpu"])
    assert named == [torch.device("cuda", 1), torch.device("cuda", 0), torch.device("cpu")]


def test_a_card_without_a_number_is_the_same_as_this_thread_s_current_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    card = torch.device("cuda")
    assert [is_same(card, torch.device("cuda", index)) for index in range(3)] == [False, True, False]
    assert not is_same(card, CPU)


@pytest.mark.parametrize(("devices", "message"), [([], "devices is empty: name at least one"), (["tpu"], "tpu")])
def test_other_devices_are_refused_when_the_stream_is_asked_for(devices, message, model):
    with pytest.raises(ValueError, match=message):
        model.stream(TEXTS, LABELS, devices=devices)


def test_the_model_s_own_network_serves_once_and_the_others_are_copies(model):
    first, second = spread(model, [CPU, CPU])
    assert first.network is model.model
    assert second.network is not model.model
    for mine, copied in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(mine, copied)
        assert mine.data_ptr() != copied.data_ptr()


def test_copies_on_cards_are_there_before_other_threads_read_them(model, monkeypatch):
    cards, waited = [torch.device("cuda", index) for index in range(3)], []

    def current_stream(device):
        return SimpleNamespace(synchronize=lambda: waited.append((device, len(copied))))

    copied = []
    monkeypatch.setattr(model, "token_budget", 100)
    monkeypatch.setattr(type(model.model), "to", lambda network, device: copied.append(device) or network)
    monkeypatch.setattr(torch.cuda, "current_stream", current_stream)
    own = dataclasses.replace(model.predictor(), device=cards[0])
    monkeypatch.setattr(type(model), "predictor", lambda _: own)
    found = spread(model, [cards[1], cards[2], CPU])
    assert copied == [own.device for own in found] == [cards[1], cards[2], CPU]
    assert sorted(waited, key=str) == [(card, 3) for card in cards]  # of its own, too: copies are made of it


def test_a_copy_has_the_budget_of_its_device_unless_the_user_has_set_one(model, monkeypatch):
    monkeypatch.setattr(devices, "default_budget", lambda *_: 7_000)
    assert spread(model, [CPU, CPU])[1].budget == 7_000
    monkeypatch.setattr(model, "token_budget", 123)
    assert [own.budget for own in spread(model, [CPU, CPU])] == [123, 123]


# --- what they give ---------------------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
def test_a_compiled_network_is_not_copied(model, monkeypatch):
    monkeypatch.setattr(model.model, "_compiled_call_impl", model.model.forward)
    assert len(spread(model, [CPU])) == 1
    with pytest.raises(ValueError, match="a compiled one cannot be copied to cpu: leave out compile"):
        spread(model, [CPU, CPU])


def test_results_come_in_order_and_are_those_of_one_device(model, monkeypatch):
    windows = [Window(TEXTS[first : first + 3], LABELS, key=first) for first in range(0, 18, 3)]
    alone = list(predict_windows(model, windows, Options(threshold=0.3), stats=(one := Stats())))
    networks, both = set(), threading.Barrier(2, timeout=60)
    forward = type(model.model).forward

    def compute(network, *given):
        if len(networks) < 2:
            networks.add(id(network))
            both.wait()  # no device goes on before the other has begun, too
        return forward(network, *given)

    monkeypatch.setattr(type(model.model), "forward", compute)
    spread_out = list(
        predict_windows(model, windows, Options(threshold=0.3), stats=(two := Stats()), devices=[CPU, CPU])
    )
    assert len(networks) == 2
    assert [(window.key, found) for window, found in spread_out] == [(window.key, found) for window, found in alone]
    assert any(any(found) for _, found in alone)
    assert (two.texts, two.words, two.entities) == (one.texts, one.words, one.entities)


def test_a_stream_takes_them(model):
    assert list(model.stream(TEXTS, LABELS, window_size=4, devices=["cpu", "cpu"])) == list(
        model.stream(TEXTS, LABELS, window_size=4)
    )


def test_windows_are_read_no_further_ahead_than_two_a_device(model):
    read = []

    def windows():
        for number in range(50):
            read.append(number)
            yield Window(TEXTS[:1], LABELS)

    results = predict_windows(model, windows(), Options(), stats=Stats(), devices=[CPU, CPU])
    next(results)
    assert len(read) == 4
    next(results)
    assert len(read) == 5
    results.close()
    assert len(read) == 5


def test_what_waits_for_a_device_is_not_begun_once_nobody_wants_it(model, monkeypatch):
    begun, closed = [], []
    first_begun, at_work, may_end = threading.Event(), threading.Semaphore(0), threading.Event()
    prepare, forward = Predictor.prepare, type(model.model).forward

    def prepare_after_the_first(predictor, request):
        prepared = prepare(predictor, request)
        assert request.texts == ["first"] or first_begun.wait(60)  # else it may never get a device
        return prepared

    def compute(network, *given):
        begun.append(network)
        if first_begun.is_set():
            at_work.release()
            assert may_end.wait(60)
        first_begun.set()
        return forward(network, *given)

    def windows():
        try:
            yield Window(["first"], LABELS)
            for _ in range(50):
                yield Window(TEXTS[:1], LABELS)
        finally:
            closed.append(True)

    monkeypatch.setattr(Predictor, "prepare", prepare_after_the_first)
    monkeypatch.setattr(type(model.model), "forward", compute)
    results = predict_windows(model, windows(), Options(), stats=Stats(), devices=[CPU, CPU])
    next(results)
    assert all(at_work.acquire(timeout=60) for _ in range(2))
    threading.Timer(1.0, may_end.set).start()
    results.close()  # waits for the two at work
    assert len(begun) == 3
    assert closed


@pytest.mark.parametrize("overlap", [False, True])
def test_a_device_that_ran_out_of_memory_keeps_its_lower_budget(overlap, model, monkeypatch):
    monkeypatch.setattr(predictor_module, "HostStages", lambda **_: HostStages(overlap=overlap))
    monkeypatch.setattr(model, "token_budget", 120)
    forward, failures, told = model.model.forward, [], []

    def compute(batch, *others):
        if batch.input_ids.numel() > 80:
            failures.append(len(batch.rows))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(batch, *others)

    monkeypatch.setattr(model.model, "forward", compute)
    monkeypatch.setattr(type(model), "_lower_budget", lambda _, budget: told.append(budget))
    windows = [Window(TEXTS[first : first + 3], LABELS) for first in range(0, 18, 3)]
    found = [own for _, own in predict_windows(model, windows, Options(), stats=Stats(), devices=[CPU])]
    assert [len(own) for own in found] == [3] * 6
    assert len(failures) == len(told) == 1
    assert told[0] < 80


def test_what_a_device_serves_next_begins_with_the_budget_that_it_got_back(model):
    own = dataclasses.replace(
        model.predictor(), budget=120, lower_budget=lambda _: None, recover_budget=lambda budget: budget
    )
    worker = devices._Worker(own, None)
    worker._lower_budget(60)
    assert worker._predictor.budget == 60
    assert [worker._recover_budget(60) for _ in range(PATIENCE)] == [60] * (PATIENCE - 1) + [120]
    assert worker._predictor.budget == 120


@pytest.mark.timeout(120)
def test_a_device_goes_on_to_the_next_window_before_the_last_batch_of_one_is_decoded(model, monkeypatch, overlapping):
    ready, changed, begun, decoded = [], threading.Condition(), [], []
    forward, find = model.model.forward, predictor_module.find_candidates

    def note(numbers, number):
        with changed:
            numbers.append(number)
            changed.notify_all()

    def wait_for(numbers, count):
        with changed:
            assert changed.wait_for(lambda: len(numbers) >= count, timeout=60)

    class Line(devices._Line):
        def put(self, task):
            super().put(task)
            note(ready, task)

    def compute(batch, *others):
        wait_for(ready, 2)  # the second window is there when the first is begun
        note(begun, len(batch.rows))
        return forward(batch, *others)

    def decode(scores, word_counts, *others):
        wait_for(begun, 2)
        note(decoded, len(word_counts))
        return find(scores, word_counts, *others)

    monkeypatch.setattr(devices, "_Line", Line)
    monkeypatch.setattr(model.model, "forward", compute)
    monkeypatch.setattr(predictor_module, "find_candidates", decode)
    windows = [Window(TEXTS[first : first + 3], LABELS) for first in range(0, 18, 3)]
    list(predict_windows(model, windows, Options(), stats=Stats(), devices=[CPU]))
    assert begun == decoded == [3] * 6


@pytest.mark.parametrize("overlap", [False, True])
def test_of_windows_before_one_that_fails_none_is_lost_and_those_after_end_nothing(overlap, model, monkeypatch):
    monkeypatch.setattr(predictor_module, "HostStages", lambda **_: HostStages(overlap=overlap))
    error, find = RuntimeError("CUDA error: an illegal memory access was encountered"), predictor_module.find_candidates

    def decode(scores, word_counts, *others):
        if len(word_counts) == 4:
            raise error
        return find(scores, word_counts, *others)

    monkeypatch.setattr(predictor_module, "find_candidates", decode)
    sizes = [3, 3, 2, 3, 4, 3, 3]
    windows = [Window(TEXTS[:size], LABELS, key=place) for place, size in enumerate(sizes)]
    given = []
    with pytest.raises(RuntimeError) as raised:
        given.extend(
            window.key
            for window, _ in predict_windows(model, windows, Options(), stats=Stats(), devices=[CPU, CPU, CPU])
        )
    assert raised.value is error
    assert given == [0, 1, 2, 3]


@pytest.mark.parametrize("is_closed_early", [False, True])
def test_copies_of_the_network_are_gone_with_the_results(is_closed_early, model, monkeypatch):
    copies = []

    def spread_and_look(*given):
        predictors = spread(*given)
        copies.extend(weakref.ref(own.network) for own in predictors[1:])
        return predictors

    monkeypatch.setattr(pipeline, "spread", spread_and_look)
    gc.collect()
    gc.disable()
    try:
        results = model.stream(TEXTS, LABELS, window_size=3, devices=[CPU, CPU, CPU])
        next(results)
        if not is_closed_early:
            list(results)
        results.close()
        del results
        left = [copy() is not None for copy in copies]
    finally:
        gc.enable()
    assert left == [False, False]


@pytest.mark.timeout(120)
def test_what_is_prepared_after_the_end_is_not_begun(model, monkeypatch):
    begun, closing, preparing = [], threading.Event(), threading.Event()
    prepare, forward = Predictor.prepare, type(model.model).forward

    def prepare_slowly(predictor, request):
        if request.texts == ["second"]:
            preparing.set()
            assert closing.wait(60)
        return prepare(predictor, request)

    def compute(network, batch, *others):
        begun.append(len(batch.rows))
        return forward(network, batch, *others)

    monkeypatch.setattr(Predictor, "prepare", prepare_slowly)
    monkeypatch.setattr(type(model.model), "forward", compute)
    windows = [Window(["first"], LABELS), Window(["second"], LABELS)]
    results = predict_windows(model, windows, Options(), stats=Stats(), devices=[CPU])
    next(results)
    assert preparing.wait(60)
    threading.Timer(0.5, closing.set).start()
    results.close()
    assert begun == [1]


# Each child has threads of its own, and ends as any Python does: only the model was loaded before it was forked.
_ENDING_PROCESSES = """
import itertools, os, signal, sys
from gliner_fast import GLiNER
model, codes = GLiNER.from_pretrained(), []
for devices, is_exit in itertools.product([None, ["cpu", "cpu"]], [False, True]):
    child = os.fork()
    if child == 0:
        signal.alarm(90)  # nobody else would end it
        results = model.stream(["Ada in Rome"] * 64, ["person"], window_size=4, devices=devices)
        next(results)
        if is_exit:
            sys.exit(3)
        break
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
else:
    print(codes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.timeout(120)
def test_a_process_ends_in_silence_though_somebody_holds_the_results():
    command = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", _ENDING_PROCESSES]
    done = subprocess.run(command, timeout=100, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0, 3, 0, 3]\n", "")


def test_a_device_that_cannot_even_begin_ends_the_stream(model, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("CUDA error: initialization error")

    monkeypatch.setattr(Predictor, "predict_each", fail)
    with pytest.raises(RuntimeError, match="initialization error"):
        list(model.stream(TEXTS, LABELS, devices=["cpu"]))


def test_an_error_is_raised_in_its_turn(model):
    windows = [Window(TEXTS[:1], LABELS), Window(TEXTS[:2], [["person"]]), Window(TEXTS[:1], LABELS)]
    results = predict_windows(model, windows, Options(), stats=Stats(), devices=[CPU, CPU])
    next(results)
    with pytest.raises(ValueError, match="Per-text labels must have length 2"):
        next(results)
