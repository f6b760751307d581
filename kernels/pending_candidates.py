"""The spans above their entity type's threshold: what they are, and how the host waits for those that a card finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SpanCandidates:
    """Spans that score above their type's threshold, in the order of the dense layout: text, start, width, type.

    Attributes:
        texts: (S,) int64, the text of each.
        starts: (S,) int64, its first word, counted in its text.
        widths: (S,) int64, its width index: k stands for k + 1 words.
        types: (S,) int64, its entity type, counted in its text.
        scores: (S,) sigmoids, in the dtype of the logits.
    """

    texts: Tensor
    starts: Tensor
    widths: Tensor
    types: Tensor
    scores: Tensor


class Room:
    """How many candidates a batch is given room for before their number is known: learnt from those before it.

    More types find more. Too little room is one more search, in a batch that is then late; too much is copied to the
    host for nothing.
    """

    _LEAST = 4.0  # a word: several times what a trained model finds with a few types

    def __init__(self) -> None:
        self._of_a_word = self._LEAST

    def of(self, words: int, logits: int) -> int:
        """Room for a batch of so many words, whose spans have so many logits."""
        return min(logits, 1024 + int(self._of_a_word * words))

    def learn(self, hits: int, words: int) -> None:
        """Is told what a batch needed; one that needed much is forgotten in the course of some."""
        self._of_a_word = max(self._LEAST, 1.5 * hits / max(1, words), 0.5 * self._of_a_word)


def start_copy(tensor: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Starts a tensor's way to the host; waits for nothing.

    Returns:
        The copy, in pinned memory where the tensor is on CUDA, and what happens once it is there; None where it is.
    """
    if not tensor.is_cuda:
        return tensor.cpu(), None
    on_host = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
    on_host.copy_(tensor, non_blocking=True)
    is_there = torch.cuda.Event()  # type: ignore[no-untyped-call]
    is_there.record(torch.cuda.current_stream(tensor.device))
    return on_host, is_there


@dataclass(frozen=True)
class PendingCandidates:
    """Candidates that the device is looking for; where it is the CPU, they are found already.

    Attributes:
        search: looks for as many as there is room for, again: the table, and what happens once it has come.
        read: makes candidates of hits: their places in the dense layout, (S,) int64, and logits, (S,) float32.
        table: on the host, not to be read before `wait`: 16 bytes that begin with the number of hits, little-endian;
            `room` places, int64; and as many logits, float32. All as int64, so (2 + 1.5 * room,).
        is_there: happens once the table has come; None where it has.
        learn: is told how many there would have had to be room for.
    """

    search: Callable[[int], tuple[Tensor, torch.cuda.Event | None]]
    read: Callable[[Tensor, Tensor], SpanCandidates]
    table: Tensor
    is_there: torch.cuda.Event | None
    learn: Callable[[int], None] = lambda _: None

    def wait(self) -> SpanCandidates:
        """The candidates, on the host."""
        table, is_there = self.table, self.is_there
        while True:
            if is_there is not None:
                is_there.synchronize()
            hits, room = int(table[0]), (len(table) - 2) * 2 // 3
            if hits <= room:
                self.learn(hits)
                return self.read(table[2 : 2 + hits], table[2 + room :].view(torch.float32)[:hits])
            table, is_there = self.search(hits)
