"""Python's garbage collector while a job runs."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


@contextmanager
def spare_what_is_there(devices: Sequence[torch.device]) -> Iterator[None]:
    """Has the garbage collector pass over the objects of this moment, those of torch and the model among them.

    A thorough collection looks through all that it does not pass over; no thread goes on meanwhile, and a GPU waits
    (docs/jobs.md has how long, and the command that tells). They come once in tens of thousands of
    texts: on a CPU a matter of minutes, and so nothing is done there. Where somebody else spares objects already,
    nothing is changed either.

    Args:
        devices: where the job computes.
    """
    if gc.get_freeze_count() or all(device.type != "cuda" for device in devices):
        yield
        return
    gc.collect()  # or garbage, with tensors in it perhaps, would stay until the end
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
