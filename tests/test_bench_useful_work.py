"""Which operations the benches call useful."""

from __future__ import annotations

from functools import partial

from benches.floor import encoder_operations
from benches.useful_work import UsefulWork
from gliner_fast import GLiNER
from gliner_fast.encoders.deberta import DebertaEncoder


def test_of_the_last_layer_only_what_the_head_reads_is_useful(checkpoint):
    model = GLiNER.from_pretrained(checkpoint("deberta"))
    labels, text = ["person", "city"], "Ada Lovelace lived in London ."
    found = UsefulWork.of(model, lambda: model.inference([text, "Paris"], labels))
    encoder = model.model.encoder
    assert isinstance(encoder, DebertaEncoder)
    batches = []
    model.model.register_forward_pre_hook(lambda _, given: batches.extend(given[0].lengths.tolist()))
    model.inference([text, "Paris"], labels)
    words = len(text.split()) + 1
    assert found.subwords == sum(batches)
    assert found.encoder == encoder_operations(encoder.config, batches, words + 2 * len(labels))
    assert found.encoder < encoder_operations(encoder.config, batches)
    assert found.span_scores > 0


def test_texts_that_come_again_are_no_further_work(checkpoint):
    model = GLiNER.from_pretrained(checkpoint("deberta"))
    once, thrice = (UsefulWork.of(model, partial(model.inference, count * ["Paris"], ["city"])) for count in (1, 3))
    assert once == thrice
    assert once.encoder > 0
