"""Whether the host keeps up with a fast device: all of its work, beside a device that only takes its time.

The device is emulated: a batch takes so many subwords a second from when the one before is done, and gives the
candidates that the built-in model found in its texts before. What the host does is real: preparing, laying out,
waiting, decoding, describing; small calls of torch, as many as a base model has kernels, stand for launching them, and
take less time than that. What is done for CUDA alone is left out: pinned memory, the order of words, tiles of spans.
Beside it the same with the stages of a batch one after another, as a CPU has them; the next window is prepared in a
thread in both. A job does so from file to file. Our speed over the device's is the share of the time that it would be
busy; no figure of a GPU.
"""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benches.bench_jobs import read_jsonl, read_parquet
from benches.compare import SCALE, Race
from benches.conftest import LABELS, distinct_texts
from gliner_fast import GLiNER, extract_files
from gliner_fast.batch import Batch
from gliner_fast.entity import Entity
from gliner_fast.kernels.pending_candidates import PendingCandidates, SpanCandidates
from gliner_fast.network import BatchScores, Network
from gliner_fast.predicting.predictor import Predictor
from gliner_fast.scoring.candidates import Candidates

TEXTS = {"short": 2048, "mixed": 256}
TIMES = 4  # that the texts are gone through in a call; no window holds one twice
JOB_TIMES = 32  # in a job, which takes a tenth of a second to begin and to end
UNTIMED = 2  # where no figure is wanted: two windows at least, for stages to overlap
LAUNCHES = 150  # 12 layers with a dozen kernels each, and the head
BUDGET = 2**14  # subwords a batch
MILLIONS = [1, 4]  # subwords a second: the least that is asked of a card with the base size, and how far the host goes


@dataclass
class Due:
    """Stands for an event on the device: happens at a time of `time.perf_counter`."""

    at: float

    def synchronize(self) -> None:
        """Waits for it."""
        time.sleep(max(0.0, self.at - time.perf_counter()))


class Recorder(nn.Module):
    """A network that remembers the candidates of each text, as five rows of int32: the text's number among them."""

    reads_packed = True
    is_compiled = False
    relations = spans = None

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.encoder = nn.Identity()
        self.tables: dict[bytes, NDArray[np.int32]] = {}

    def forward(self, batch: Batch, *given: Any) -> BatchScores:
        """What the network says."""
        scores: BatchScores = self.network(batch, *given)
        found = scores.candidates
        assert isinstance(found, Candidates)
        columns = [np.zeros_like(found.starts), found.starts, found.ends - found.starts - 1, found.classes]
        table = np.stack([*(column.astype(np.int32) for column in columns), found.scores.view(np.int32)])  # (5, S)
        for text, key in enumerate(keys_of(batch)):
            self.tables[key] = table[:, found.offsets[text] : found.offsets[text + 1]]
        return scores


class EmulatedCard(nn.Module):
    """A network on a device that is busy for a while with each batch."""

    reads_packed = True
    is_compiled = False
    relations = spans = None

    def __init__(self, tables: dict[bytes, NDArray[np.int32]], subwords_a_second: float) -> None:
        super().__init__()
        self.encoder = nn.Identity()  # which the stages are timed by
        self.tables = tables
        self.rate = subwords_a_second
        self.nothing = torch.zeros(0)
        self.free_at = 0.0

    def forward(self, batch: Batch, *_given: Any) -> BatchScores:
        """What was remembered, once the device will be done."""
        for _ in range(LAUNCHES):
            torch.add(self.nothing, self.nothing, out=self.nothing)
        found = [self.tables[key] for key in keys_of(batch)]
        table = np.concatenate(found, axis=1)
        table[0] = np.repeat(np.arange(len(found)), [own.shape[1] for own in found])
        columns, hits = torch.from_numpy(table), table.shape[1]

        def read(places: Tensor, scores: Tensor) -> SpanCandidates:
            order = places.argsort()
            texts, starts, widths, types = columns[:4, order].long()
            return SpanCandidates(texts, starts, widths, types, scores[order])

        room = hits + hits % 2
        sent = torch.zeros(2 + room + room // 2, dtype=torch.int64)
        sent[0] = hits
        sent[2 : 2 + hits] = torch.arange(hits)  # they stand for places in the dense layout
        sent[2 + room :].view(torch.float32)[:hits] = columns[4].view(torch.float32)
        self.free_at = max(self.free_at, time.perf_counter()) + len(batch.input_ids) / self.rate
        pending = PendingCandidates(no_search, read, sent, Due(self.free_at))  # type: ignore[arg-type]
        return BatchScores(self.nothing, self.nothing, self.nothing, pending)


def no_search(_: int) -> tuple[Tensor, None]:
    raise AssertionError("the table has room for all")


def keys_of(batch: Batch) -> list[bytes]:
    """What tells the texts of a packed batch."""
    assert batch.offsets is not None
    ids, offsets = batch.input_ids.numpy(), batch.offsets.tolist()
    return [ids[first:last].tobytes() for first, last in pairwise(offsets)]


class Overlapping(Predictor):
    """A predictor whose stages overlap, whatever the device."""

    can_overlap = True


@dataclass
class Emulation:
    """The built-in model on an emulated card.

    Attributes:
        model: whose `predictor` is `overlapping`.
        texts: of one window.
        labels: asked for.
        overlapping: with the stages of batches beside each other, as on CUDA.
        in_turn: one after another.
        expected: entities of the texts.
        subwords: of the texts.
    """

    model: GLiNER
    texts: list[str]
    labels: list[str]
    overlapping: Predictor
    in_turn: Predictor
    expected: list[list[Entity]]
    subwords: int

    @classmethod
    def of(cls, name: str, millions: int, monkeypatch: pytest.MonkeyPatch) -> Emulation:
        """A card of so many million subwords a second, and a corpus whose candidates it knows."""
        model, labels = GLiNER.from_pretrained(), LABELS[:5]
        texts = distinct_texts(name, max(32, round(TEXTS[name] * SCALE)))
        predictor = model.predictor()
        recorder = Recorder(predictor.network)
        in_turn = dataclasses.replace(predictor, network=cast("Network", recorder), budget=BUDGET)
        monkeypatch.setattr(model, "predictor", lambda: in_turn)
        expected = model.inference(texts, labels)
        subwords = sum(len(key) for key in recorder.tables) // np.dtype(np.int64).itemsize
        card = EmulatedCard(recorder.tables, 1e6 * millions)
        in_turn = dataclasses.replace(in_turn, network=cast("Network", card))
        overlapping = Overlapping(**vars(in_turn))
        monkeypatch.setattr(model, "predictor", lambda: overlapping)
        assert any(expected), "the model found no entity: nothing would be compared"
        return cls(model, texts, labels, overlapping, in_turn, expected, subwords)

    def through(self, times: int) -> list[list[Entity]]:
        """All texts several times, window by window."""
        return list(self.model.stream(times * self.texts, self.labels, window_size=len(self.texts)))


@pytest.mark.parametrize("millions", MILLIONS)
@pytest.mark.parametrize("name", TEXTS)
def bench_host(race: Race, name: str, millions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    emulated, times = Emulation.of(name, millions, monkeypatch), TIMES if race.is_timed else UNTIMED

    def overlapping() -> list[list[Entity]]:
        return emulated.through(times)

    def one_after_another() -> list[list[Entity]]:
        with monkeypatch.context() as patched:
            patched.setattr(emulated.model, "predictor", lambda: emulated.in_turn)
            return emulated.through(times)

    assert overlapping() == one_after_another() == times * emulated.expected
    race.run(
        overlapping,
        {"stages one after another": one_after_another},
        agreement=f"all {times * sum(map(len, emulated.expected)):,} entities equal",
        amount=times * emulated.subwords,
        unit="subwords",
        texts=times * len(emulated.texts),
        corpus=name,
        labels=len(emulated.labels),
        device=f"emulated, {millions} M subwords/s",
    )


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def bench_host_of_a_job(race: Race, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files -> files beside a card of two million subwords a second, and the same texts in memory."""
    emulated, times = Emulation.of("short", 2, monkeypatch), JOB_TIMES if race.is_timed else UNTIMED
    rows, source, output = times * emulated.texts, tmp_path / f"in.{kind}", tmp_path / f"out.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"text": rows}), source)
    else:
        source.write_text("".join(f"{json.dumps({'text': text})}\n" for text in rows), encoding="utf-8")

    def ours() -> None:
        extract_files(
            source, output, emulated.labels, model=emulated.model, rows_per_shard=len(emulated.texts), overwrite=True
        )

    ours()
    found = [row["entities"] for row in (read_parquet if kind == "parquet" else read_jsonl)(output)]
    keys = [
        [[(entity["start"], entity["end"], entity["label"]) for entity in own] for own in side]
        for side in (found, times * emulated.expected)
    ]
    assert keys[0] == keys[1]
    race.run(
        ours,
        {"stream in memory": lambda: emulated.through(times)},
        agreement=f"all {sum(map(len, found)):,} entities equal",
        amount=times * emulated.subwords,
        unit="subwords",
        texts=len(rows),
        corpus="short",
        labels=len(emulated.labels),
        device="emulated, 2 M subwords/s",
    )
