"""What is asked for beside entities: on which stream a device computes it, and what is waited for."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gliner_fast import GLiNER
from gliner_fast.batch import Batch
from gliner_fast.predicting import aside
from gliner_fast.predicting import predictor as predictor_module
from gliner_fast.predicting.aside import aside_from
from gliner_fast.predicting.predictor import Scored
from gliner_fast.predicting.request import Options, Request
from gliner_fast.relations.scorer import RelationScorer
from gliner_fast.scoring.pending_scores import PendingScores
from gliner_fast.scoring.span_vectors import MarkedSpanVectors
from gliner_fast.stats import Stats
from tests.relation_checkpoints import RELATIONS
from tests.samples import CROSSNER, LABELS

TEXTS = [text[:90] for text in CROSSNER[:6]]


class Casts(TorchDispatchMode):
    """Counts tensors that are made of others in another dtype."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._to_copy.default
        return func(*args, **(kwargs or {}))


class Streams:
    """Stand-ins for CUDA's streams, and all that is done with them in its order."""

    def __init__(self) -> None:
        self.current, self.done, self.made = "default", [], 0

    def of(self, name: str, number: int) -> Any:
        """A stream."""
        streams = self

        class Stream:
            device, cuda_stream = torch.device("cuda", 0), number

            def wait_event(self, event: object) -> None:
                streams.done.append((name, "waits for", event))

            def synchronize(self) -> None:
                streams.done.append((name, "is waited for, current is", streams.current))

            def __repr__(self) -> str:
                return name

        return Stream()

    def make(self, device: torch.device, priority: int) -> Any:
        assert (device, priority) == (torch.device("cuda", 0), -1)
        self.made += 1
        return self.of(f"aside {self.made}", 100 + self.made)

    @contextmanager
    def use(self, stream: object) -> Iterator[None]:
        before, self.current = self.current, repr(stream)
        try:
            yield
        finally:
            self.current = before


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Iterator[Streams]:
    streams = Streams()
    monkeypatch.setattr(torch.cuda, "Stream", streams.make)
    monkeypatch.setattr(torch.cuda, "stream", streams.use)
    aside._aside_from.cache_clear()
    yield streams
    aside._aside_from.cache_clear()


# --- the stream -------------------------------------------------------------------------------------------------------


def test_what_is_done_aside_waits_for_the_network_and_is_done_at_the_end(streams: Streams):
    with streams.use(main := streams.of("main", 0)):
        with aside_from(main, "ready"):
            assert streams.current == "aside 1"
            assert streams.done == [("aside 1", "waits for", "ready")]
        assert streams.current == "main"
    assert streams.done[1:] == [("aside 1", "is waited for, current is", "main")]


def test_it_is_waited_for_after_an_error_too(streams: Streams):
    with pytest.raises(torch.OutOfMemoryError), aside_from(streams.of("main", 0), "ready"):
        raise torch.OutOfMemoryError
    assert streams.done[1:] == [("aside 1", "is waited for, current is", "default")]


def test_each_stream_has_one_beside_it_and_keeps_it(streams: Streams):
    for number in (0, 7, 0, 7):
        with aside_from(streams.of("any", number), "ready"):
            assert streams.current == ("aside 2" if number else "aside 1")
    assert streams.made == 2


# --- decoding ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(checkpoint) -> GLiNER:
    return GLiNER.from_pretrained(checkpoint("relex-gat"))


def score(model: GLiNER, streams: Streams, **asked: Any) -> tuple[Any, Any, Scored]:
    """A predictor, what it was asked, and a batch as a device of streams would have begun it."""
    predictor = model.predictor()
    request = Request.read(TEXTS, LABELS, Options(threshold=0.3, relations=RELATIONS, **asked))
    prepared = predictor.prepare(request)
    scored = predictor.score(predictor.lay_out(prepared, prepared.scorable), Stats(), timed=False)
    assert (scored.stream, scored.ready) == (None, None)
    return predictor, prepared, replace(scored, stream=streams.of("main", 0), ready="ready")


@pytest.mark.parametrize("asked", [{}, {"return_relations": False, "return_vectors": True}, {"return_vectors": True}])
def test_more_than_entities_is_computed_aside_and_gives_the_same(
    asked: dict[str, bool], model: GLiNER, streams: Streams, monkeypatch: pytest.MonkeyPatch
):
    predictor, prepared, scored = score(model, streams, **asked)
    expected = predictor.decode(prepared, replace(scored, stream=None, ready=None))
    assert streams.done == []
    places = []

    def seen(owner: object, name: str) -> None:
        work = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *given, **own: places.append((name, streams.current)) or work(*given, **own)
        )

    seen(predictor_module, "find_candidates")
    seen(RelationScorer, "forward")
    seen(type(model.model.scorer), "span_vectors")
    found = predictor.decode(prepared, scored)
    assert places[0] == ("find_candidates", "main")
    assert len(places) > 1
    assert {place for _, place in places[1:]} == {"aside 1"}
    assert streams.done == [("aside 1", "waits for", "ready"), ("aside 1", "is waited for, current is", "main")]
    assert repr((found.entities, found.relations)) == repr((expected.entities, expected.relations))
    assert ("relation" in repr(found.relations)) == asked.get("return_relations", True)


@pytest.mark.parametrize("asked", [{}, {"return_vectors": True}])
def test_span_vectors_are_computed_aside_once_marks_are_there(
    asked: dict[str, bool], checkpoint: Any, streams: Streams, monkeypatch: pytest.MonkeyPatch
):
    model = GLiNER.from_pretrained(checkpoint("token-spans"))
    predictor = model.predictor()
    prepared = predictor.prepare(Request.read(TEXTS, LABELS, Options(threshold=0.3, **asked)))
    scored = predictor.score(predictor.lay_out(prepared, prepared.scorable), Stats(), timed=False)
    expected = predictor.decode(prepared, scored)
    places = []
    for owner in (MarkedSpanVectors, type(model.model.scorer)):
        name = "forward" if owner is MarkedSpanVectors else "span_vectors"
        work = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *given, own=name, work=work: places.append((own, streams.current)) or work(*given)
        )
    found = predictor.decode(prepared, replace(scored, stream=streams.of("main", 0), ready="ready"))
    assert places == [("forward", "aside 1")] + [("span_vectors", "aside 1")] * bool(asked)
    both = [("aside 1", "waits for", "ready"), ("aside 1", "is waited for, current is", "main")]
    assert streams.done == both * len(places)
    assert repr(found.entities) == repr(expected.entities)
    assert found.entities


@pytest.mark.parametrize("of_all_spans", [False, True])
def test_on_a_card_what_is_read_aside_is_ready_once_the_network_is_done(
    of_all_spans: bool, model: GLiNER, streams: Streams, monkeypatch: pytest.MonkeyPatch
):
    class Event:
        def record(self, stream: object) -> None:
            streams.done.append(("recorded on", stream))

    predictor = model.predictor()
    asked = Options(threshold=0.3, return_class_probs=of_all_spans)
    prepared = predictor.prepare(Request.read(TEXTS, LABELS, asked))
    laid_out = predictor.lay_out(prepared, prepared.scorable)
    monkeypatch.setattr(Batch, "to", lambda batch, _: batch)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: (main, device))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    main, card = streams.of("main", 0), torch.device("cuda", 0)
    hook = model.model.register_forward_hook(lambda *_: streams.done.append(("network is done",)))
    scored = replace(predictor, device=card).score(laid_out, Stats(), timed=False)
    hook.remove()
    assert scored.stream == (main, card)
    assert streams.done == [("network is done",), ("recorded on", (main, card))]
    # Of all scores the sigmoids are on their way before the device is given the next batch.
    assert isinstance(scored.scores.dense, PendingScores) is (scored.scores.candidates is None)
    assert scored.scores.candidates is None or not of_all_spans


def test_for_entities_alone_no_other_stream_is_taken(model: GLiNER, streams: Streams):
    predictor, prepared, scored = score(model, streams, return_relations=False, return_class_probs=True)
    assert predictor.decode(prepared, scored).entities
    assert (streams.made, streams.done) == (0, [])


def test_what_fails_aside_is_waited_for_before_its_batch_is_let_go(
    model: GLiNER, streams: Streams, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    predictor, prepared, scored = score(model, streams)
    monkeypatch.setattr(RelationScorer, "forward", fail)
    with pytest.raises(torch.OutOfMemoryError):
        predictor.decode(prepared, scored)
    assert streams.done[-1] == ("aside 1", "is waited for, current is", "main")


def test_decoding_in_a_thread_leaves_what_autocast_keeps(model: GLiNER, streams: Streams):
    predictor, prepared, scored = score(model, streams)
    scored = replace(scored, autocast=torch.bfloat16)
    layer, vectors = torch.nn.Linear(8, 8), torch.randn(2, 8)

    def casts() -> int:
        with Casts() as seen:
            layer(vectors)
        return seen.count

    with torch.autocast("cpu", torch.bfloat16):
        first, again = casts(), casts()
        with ThreadPoolExecutor(1) as decoding:
            assert decoding.submit(predictor.decode, prepared, scored).result().entities
        assert casts() == again < first


def test_nothing_that_autocast_keeps_is_left_or_taken_aside(
    model: GLiNER, streams: Streams, monkeypatch: pytest.MonkeyPatch
):
    predictor, prepared, scored = score(model, streams)
    scored, kept, forward = replace(scored, autocast=torch.bfloat16), [], RelationScorer.forward

    def seen(*given: Any, **asked: Any) -> Any:
        kept.append(torch.is_autocast_enabled("cpu") and torch.is_autocast_cache_enabled())
        return forward(*given, **asked)

    monkeypatch.setattr(RelationScorer, "forward", seen)
    predictor.decode(prepared, scored)
    predictor.decode(prepared, replace(scored, stream=None, ready=None))
    assert kept == [False, True]
