"""Numbers reach the device in one copy."""

from __future__ import annotations

import pytest
import torch

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
    assert copies == [{"non_blocking": True}]
    assert [(part.shape, part.dtype) for part in moved] == [(part.shape, part.dtype) for part in PARTS]


@pytest.mark.parametrize("packed", [False, True])
def test_a_batch_moves_what_the_network_indexes_with_and_keeps_what_steers_it(packed: bool):
    batch = as_packed(small_batch()) if packed else small_batch()
    moved = batch.to(torch.device("meta"))
    on_device = {name for name, value in vars(moved).items() if isinstance(value, torch.Tensor) and value.is_meta}
    indices = {"input_ids", "pooled_positions", "pooled_words", "class_positions"}
    assert on_device == indices | ({"offsets"} if packed else set())
    assert moved.lengths is batch.lengths


@pytest.mark.gpu
def test_on_cuda_the_numbers_arrive_and_the_host_waits_for_nothing():
    with no_wait():
        moved = upload(PARTS, torch.device("cuda"))
    assert all(torch.equal(mine.cpu(), part) for mine, part in zip(moved, PARTS, strict=True))
