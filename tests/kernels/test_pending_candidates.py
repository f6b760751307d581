"""What a card finds comes to the host: when it may be read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gliner_fast.kernels.pending_candidates import PendingCandidates, start_copy


class OnCard(Tensor):
    """A tensor that says that it is on the second card."""

    is_cuda, device = True, torch.device("cuda", 1)


def test_a_copy_from_a_card_has_come_once_its_own_stream_has_made_it(monkeypatch: pytest.MonkeyPatch):
    empty, recorded = torch.empty, []

    class Event:
        def record(self, stream: str) -> None:
            recorded.append((stream, on_host[0].tolist()))

    def pinned(*size: Any, pin_memory: bool, **options: Any) -> Tensor:
        assert pin_memory
        on_host.append(empty(*size, **options))
        return on_host[0]

    on_host: list[Tensor] = []
    monkeypatch.setattr(torch, "empty", pinned)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    copy, is_there = start_copy(torch.arange(5).as_subclass(OnCard))
    assert copy is on_host[0]
    assert isinstance(is_there, Event)
    assert recorded == [("stream of cuda:1", [0, 1, 2, 3, 4])]


def test_what_a_card_finds_is_read_once_it_has_come_also_where_there_was_too_little_room():
    class Arrival:
        def __init__(self, table: Tensor, *numbers: int) -> None:
            self.table, self.numbers = table, torch.tensor(numbers)

        def synchronize(self) -> None:
            self.table.copy_(self.numbers)

    def search(places: int) -> tuple[Tensor, Any]:
        assert places == 1
        table = torch.zeros(2 + 16 + 8, dtype=torch.int64)
        return table, Arrival(table, 1, 0, 7, *[-1] * 15, *[0] * 8)

    first, learnt = torch.zeros(2, dtype=torch.int64), []
    pending = PendingCandidates(search, lambda *found: found, first, Arrival(first, 1, 0), learnt.append)
    keys, logits = pending.wait()
    assert (keys.tolist(), logits.tolist(), learnt) == ([7], [0.0], [1])
