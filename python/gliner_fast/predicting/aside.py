"""A CUDA device's work for a batch whose network is done, beside the batches that were begun since."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

_HIGH = -1  # priority: there is little to do, and the host waits for it


@contextmanager
def aside_from(stream: torch.cuda.Stream, ready: torch.cuda.Event) -> Iterator[None]:
    """Has the device do what is begun inside as soon as it has come to `ready`, and not behind all else in `stream`.

    At the end none of it is left to do, whatever went wrong. The memory of what it reads is that of `stream`, which
    writes its next tensors there without knowing of anybody aside: who begins it keeps hold of that until then. What it
    makes is not to be kept on the device: in `stream` nobody waits for it.

    Args:
        stream: where batches are computed.
        ready: happens there once what is read inside has been made.
    """
    aside = _aside_from(stream.device, stream.cuda_stream)
    aside.wait_event(ready)
    try:
        with torch.cuda.stream(aside):
            yield
    finally:
        aside.synchronize()


@contextmanager
def autocast_as(device_type: str, dtype: torch.dtype, *, keeps: bool) -> Iterator[None]:
    """Autocast in this thread, as another one has it.

    Where the last autocast of a thread ends, torch forgets the weights that it keeps cast for all threads, and the one
    that starts batches would cast them anew for each: so to torch this is never a thread's last.

    Args:
        device_type: "cuda" or "cpu".
        dtype: what is computed in.
        keeps: weights that are cast are taken from what is kept, and kept. They are all threads', whatever the stream.
    """
    torch.autocast_increment_nesting()
    try:
        with torch.autocast(device_type, dtype, cache_enabled=keeps):
            yield
    finally:
        torch.autocast_decrement_nesting()


@cache
def _aside_from(device: torch.device, stream: int) -> torch.cuda.Stream:  # noqa: ARG001  (what it is kept by)
    """The same for a stream each time: to each new one torch's allocator and cuBLAS give memory of its own."""
    aside: torch.cuda.Stream = torch.cuda.Stream(device, priority=_HIGH)  # type: ignore[no-untyped-call]
    return aside
