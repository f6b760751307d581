"""Where `benches.limits` says that the time goes."""

from __future__ import annotations

import time

import pytest
import torch

from benches import limits
from gliner_fast import GLiNER, scorer
from gliner_fast.cpu import linear
from gliner_fast.encoders import deberta_layer


def test_a_stage_s_time_is_without_the_stages_inside_it():
    clock = limits.Clock()
    inner = clock.timed("inner", lambda: time.sleep(0.02) or 1, lambda: 5)
    outer = clock.timed("outer", lambda: time.sleep(0.01) or inner() + inner())
    begin = time.perf_counter()
    assert outer() == 2
    whole = time.perf_counter() - begin
    assert clock.operations == 10
    assert clock.seconds["inner"] >= 0.04
    assert 0.01 <= clock.seconds["outer"] <= whole - clock.seconds["inner"]


def test_what_did_no_work_is_no_operation():
    clock = limits.Clock()
    assert clock.timed("products", lambda: None, lambda: 5)() is None
    assert clock.operations == 0


@pytest.mark.parametrize("executor", ["torch", "packed"])
def test_every_stage_is_met_and_every_product_counted(checkpoint, executor: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GLINER_FAST_LINEAR", executor)
    monkeypatch.setenv("GLINER_FAST_ATTENTION", "rust")
    monkeypatch.setenv("GLINER_FAST_SPAN_EXECUTOR", "rust")
    model = GLiNER.from_pretrained(checkpoint("deberta"))
    before = linear.linear, deberta_layer.finish_layer, scorer.SpanScorer.find, torch.nn.functional.gelu
    clock = limits.Clock()
    with limits.watched(clock):
        model.inference(["Ada Lovelace wrote to Charles Babbage."], ["person"], threshold=0.5)
    always = {limits.PRODUCTS, limits.ATTENTION, limits.LSTM, limits.SPANS}
    assert always <= set(clock.seconds)
    assert ({limits.GELU, limits.NORM} <= set(clock.seconds)) is (executor == "torch")
    operations = clock.operations
    assert operations > 0
    assert before == (linear.linear, deberta_layer.finish_layer, scorer.SpanScorer.find, torch.nn.functional.gelu)
    monkeypatch.setenv("GLINER_FAST_LINEAR", "torch")
    other = limits.Clock()
    with limits.watched(other):
        model.inference(["Ada Lovelace wrote to Charles Babbage."], ["person"], threshold=0.5)
    assert other.operations == operations  # whoever multiplies
