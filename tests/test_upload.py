"""Numbers reach the device in one copy, made ready beforehand where it can be."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from gliner_fast import GLiNER
from gliner_fast import upload as uploading
from gliner_fast.predicting.request import Options, Request
from gliner_fast.scoring.word_vectors import time_major
from gliner_fast.upload import upload
from tests.device_waits import no_wait
from tests.small_network import packed as as_packed
from tests.small_network import small_batch

PARTS = [torch.arange(6).view(2, 3), torch.zeros(0, dtype=torch.int64), torch.arange(100, 104)]


def test_on_a_cpu_nothing_is_copied():
    assert all(mine is part for mine, part in zip(upload(PARTS, torch.device("cpu")), PARTS, strict=True))


def test_elsewhere_all_come_in_one_copy_as_they_were(monkeypatch: pytest.MonkeyPatch):
    copies = []
    to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda *given, **options: copies.append(options) or to(*given, **options))
    moved = upload(PARTS, torch.device("meta"))
    assert copies == [{"non_blocking": False}]
    assert [(part.shape, part.dtype) for part in moved] == [(part.shape, part.dtype) for part in PARTS]


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
@pytest.mark.parametrize(("kind", "goes_on"), [("cuda", True), ("mps", False)])
def test_the_host_goes_on_beside_copies_to_cuda_alone(
    kind: str, goes_on: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    parts, copies, pinned = [part.to(dtype) for part in PARTS], [], []
    monkeypatch.setattr(torch.Tensor, "to", lambda own, *given, **options: copies.append((given, options)) or own)
    monkeypatch.setattr(
        uploading, "_pinned", lambda numbers, dtype: pinned.append(numbers) or torch.empty(numbers, dtype=dtype)
    )
    moved = upload(parts, torch.device(kind))
    assert copies == [((torch.device(kind),), {"non_blocking": goes_on})]
    assert pinned == ([10] if goes_on else [])
    assert all(mine.dtype is dtype and torch.equal(mine, part) for mine, part in zip(moved, parts, strict=True))


@pytest.mark.parametrize("packed", [False, True])
def test_a_batch_moves_what_the_network_indexes_with_and_keeps_what_steers_it(packed: bool):
    order = torch.tensor([1, 0]), torch.tensor([2])
    batch = dataclasses.replace(as_packed(small_batch()) if packed else small_batch(), word_order=order)
    moved = batch.to(torch.device("meta"))
    on_device = {name for name, value in vars(moved).items() if isinstance(value, torch.Tensor) and value.is_meta}
    indices = {"input_ids", "pooled_positions", "pooled_words", "class_positions"}
    assert on_device == indices | ({"offsets"} if packed else set())
    assert moved.lengths is batch.lengths
    assert moved.word_order[0].is_meta
    assert moved.word_order[1] is order[1]


@pytest.mark.gpu
def test_on_cuda_the_numbers_arrive_and_the_host_waits_for_nothing():
    with no_wait():
        moved = upload(PARTS, torch.device("cuda"))
    assert all(torch.equal(mine.cpu(), part) for mine, part in zip(moved, PARTS, strict=True))


@pytest.mark.parametrize("order", [None, (torch.tensor([1, 0, 2]), torch.tensor([2, 1]))], ids=["no order", "an order"])
@pytest.mark.parametrize("packed", [False, True])
def test_what_was_staged_arrives_as_it_was(packed: bool, order: tuple[torch.Tensor, torch.Tensor] | None):
    batch = dataclasses.replace(as_packed(small_batch()) if packed else small_batch(), word_order=order)
    staged = batch.stage(pin=False)
    moved = staged.to(torch.device("cpu"))
    assert moved.staged is None
    for name in ("input_ids", "pooled_positions", "pooled_words", "class_positions", "offsets"):
        before, after = getattr(batch, name), getattr(moved, name)
        assert (before is None and after is None) or torch.equal(before, after)
        assert after is None or after.untyped_storage().data_ptr() == staged.staged.untyped_storage().data_ptr()
    if order is None:
        assert moved.word_order is None
    else:
        assert torch.equal(moved.word_order[0], order[0])
        assert moved.word_order[1] is order[1]


def test_for_cuda_a_batch_is_laid_out_with_all_that_can_be_made_ready(monkeypatch: pytest.MonkeyPatch):
    pinned = []

    def pin(numbers: int, dtype: torch.dtype) -> torch.Tensor:
        pinned.append(torch.empty(numbers, dtype=dtype))
        return pinned[-1]

    monkeypatch.setattr(uploading, "_pinned", pin)
    model = GLiNER.from_pretrained()
    on_cpu = model.predictor()
    on_cuda = dataclasses.replace(on_cpu, device=torch.device("cuda"))
    prepared = on_cpu.prepare(Request.read(["Marie Curie lived.", "In Paris", "Bonn"], ["person"], Options()))
    batches = {key: own.lay_out(prepared, prepared.scorable).batch for key, own in (("cpu", on_cpu), ("cuda", on_cuda))}
    assert batches["cpu"].staged is None
    assert batches["cpu"].word_order is None
    assert len(pinned) == 1
    assert batches["cuda"].staged is pinned[0]
    order, reached = batches["cuda"].word_order
    assert batches["cuda"].word_counts[0] > 1
    assert torch.equal(reached, time_major(batches["cuda"].word_counts)[1])
    # The network gives the same by it, to the bit.
    network = model.model
    with torch.inference_mode():
        vectors = torch.randn(int(reached.sum()), network.rnn.lstm.input_size)
        monkeypatch.setattr("gliner_fast.scoring.word_vectors.is_lstm_native", lambda: False)
        counts = batches["cuda"].word_counts
        assert torch.equal(network.rnn(vectors, counts, (order, reached)), network.rnn(vectors, counts))


def test_a_text_alone_needs_no_order_of_words(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(uploading, "_pinned", lambda numbers, dtype: torch.empty(numbers, dtype=dtype))
    predictor = dataclasses.replace(GLiNER.from_pretrained().predictor(), device=torch.device("cuda"))
    prepared = predictor.prepare(Request.read(["Marie Curie lived."], ["person"], Options()))
    assert predictor.lay_out(prepared, prepared.scorable).batch.word_order is None
