"""Whether the host waits for a CUDA device, as torch tells it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_NOTICE = "Synchronization debug mode is a prototype"  # once a process, whatever the mode
_WAITED = "called a synchronizing CUDA operation"


def _set(mode: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_NOTICE)
        torch.cuda.set_sync_debug_mode(mode)


@contextmanager
def no_wait() -> Iterator[None]:
    """Raises RuntimeError for what makes the host wait; waiting for an event is none of it."""
    try:
        _set("error")
        yield
    finally:
        _set("default")


@contextmanager
def counted_waits() -> Iterator[list[str]]:
    """Gathers what makes the host wait."""
    waits: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            torch.cuda.set_sync_debug_mode("warn")
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits += [str(each.message) for each in caught if _WAITED in str(each.message)]
