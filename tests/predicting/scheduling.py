"""Requests of a few texts, and how far a predictor is with their batches."""

from __future__ import annotations

import threading

from gliner_fast.predicting import predictor as predictor_module
from gliner_fast.predicting.request import Options, Request
from tests.samples import CROSSNER, LABELS

TEXTS = [text[:60] for text in CROSSNER[:24]]


def requests_of(model, sizes, asked=None):
    """Prepared requests of so many texts each; their numbers go to `asked` as they are asked for."""
    predictor, first = model.predictor(), 0
    for number, size in enumerate(sizes):
        if asked is not None:
            asked.append(number)
        yield predictor.prepare(Request.read(TEXTS[first : first + size], LABELS, Options(threshold=0.3)))
        first += size


class Progress:
    """Counts batches that were started and decoded; decoding waits until so many more than it has done are started."""

    def __init__(self, model, monkeypatch, ahead, total):
        self.started = self.decoded = self.most_ahead = 0
        self._changed = threading.Condition()
        forward, find = model.model.forward, predictor_module.find_candidates

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
        monkeypatch.setattr(predictor_module, "find_candidates", decode)


def batches_of(model, requests):
    return [len(model.predictor().plan(own, own.scorable, model.token_budget)) for own in requests]
