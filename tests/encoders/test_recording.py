"""How the encoder's kernels are recorded on a card, by stand-ins for its streams: who waits for whom."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from gliner_fast.encoders import cuda_graphs
from gliner_fast.encoders.cuda_graphs import EncoderGraphs, record_on_cuda
from tests.encoders.test_cuda_graphs import Recorder


class Streams:
    """Stand-ins for CUDA's streams and graphs, and all that is done with them in its order."""

    def __init__(self) -> None:
        self.done: list[tuple[object, ...]] = []
        self.current, self.made = self.of("main", 7), 0

    def of(self, name: str, number: int) -> Any:
        """A stream."""
        return SimpleNamespace(
            name=name, cuda_stream=number, wait_stream=lambda other: self.done.append((name, "waits for", other.name))
        )

    def make(self) -> Any:
        self.made += 1
        return self.of(f"aside {self.made}", 100 + self.made)

    @contextmanager
    def use(self, stream: Any) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def graph(self, _: object, *, pool: str, stream: Any, capture_error_mode: str) -> Iterator[None]:
        assert not torch.is_inference_mode_enabled()
        self.done.append(("recorded on", stream.name, pool, capture_error_mode))
        yield


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Streams:
    streams = Streams()
    stand_ins = {
        "current_stream": lambda *_: streams.current,
        "current_device": lambda: 0,
        "Stream": streams.make,
        "stream": streams.use,
        "graph_pool_handle": lambda: f"pool {streams.made}",
        "graph": streams.graph,
        "CUDAGraph": lambda: SimpleNamespace(replay="replay"),
        "device": lambda _: nullcontext(),
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(cuda_graphs, "_asides", {})
    return streams


def record(streams: Streams, *, fails_at: int = 0) -> list[tuple[object, ...]]:
    """Records once, and gives what was done."""
    streams.done.clear()
    out, runs = torch.zeros(1), []

    def run() -> Tensor:
        runs.append(1)
        streams.done.append(("run on", streams.current.name, torch.is_inference_mode_enabled()))
        if len(runs) == fails_at:
            raise RuntimeError("it cannot be done")
        return out

    with torch.inference_mode():
        if fails_at:
            with pytest.raises(RuntimeError, match="it cannot be done"):
                record_on_cuda(run)
        else:
            assert record_on_cuda(run) == ("replay", out)
    assert streams.current.name == "main"
    return streams.done


def test_it_is_recorded_beside_a_stream_which_waits_for_it_and_is_waited_for(streams: Streams):
    before, after = ("aside 1", "waits for", "main"), ("main", "waits for", "aside 1")
    once, recorded = ("run on", "aside 1", True), ("recorded on", "aside 1", "pool 1", "thread_local")
    for _ in range(2):  # on the same stream, in the same memory
        assert record(streams) == [before, once, after, recorded, once, after]
    assert record(streams, fails_at=1) == [before, once, after]


def test_what_could_not_be_recorded_leaves_its_stream_and_memory(streams: Streams):
    record(streams, fails_at=2)
    assert ("recorded on", "aside 2", "pool 2", "thread_local") in record(streams)


def test_each_stream_has_recordings_of_its_own(streams: Streams):
    class OnCard(Tensor):
        is_cuda = True

    recorder, given = Recorder(), (torch.arange(5).as_subclass(OnCard), torch.tensor([4]), ())
    graphs = EncoderGraphs(recorder)
    for number in (0, 7, 0, 7):
        with streams.use(streams.of("any", number)):
            found = graphs.run(lambda: (lambda ids, _, wanted: ids[wanted, None], None), *given)
        assert found.tolist() == [[4]]
    assert recorder.recorded == 2
