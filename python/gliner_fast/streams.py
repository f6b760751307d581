"""Two CUDA streams on which batches take turns, so that a card computes the next while one ends (DESIGN 2).

A batch ends with work that fills no card: an LSTM goes word by word, in hundreds of small kernels, and few candidates
are sorted. What the next batch begins with, products of tens of thousands of rows, runs beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import repeat
from typing import Any

import torch

# By device and the caller's stream. Kept, since torch keeps memory for each stream that it meets.
_beside: dict[tuple[int, int], Any] = {}


def take_turns(device: torch.device) -> Iterator[AbstractContextManager[Any]]:
    """Contexts in which to start one batch after another: on the caller's stream of a device, and on one beside it.

    What the caller has started before is done first, on both. Where the device is not CUDA they change nothing.
    """
    if device.type != "cuda":
        return repeat(nullcontext())
    own = torch.cuda.current_stream(device)
    place = own.device_index, own.cuda_stream
    if place not in _beside:
        _beside[place] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    beside = _beside[place]
    beside.wait_stream(own)

    def contexts() -> Iterator[AbstractContextManager[Any]]:
        while True:
            yield torch.cuda.stream(own)
            yield torch.cuda.stream(beside)

    return contexts()
