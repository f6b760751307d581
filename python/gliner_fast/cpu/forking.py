"""A process forked from one with a model computes in one thread: in several it would wait for ever."""

from __future__ import annotations

import os
from functools import cache

import torch


@cache
def survive_forks() -> None:
    """Has processes forked from now on compute in one thread.

    torch's threads (libgomp's, on Linux) are not there in a forked process, which would wait for them at its first
    large operation: so does torch by itself, and `gliner` with it, but in a DataLoader's workers, which have one
    thread. A process that is spawned, or that loads its own model, is not concerned.
    """
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=_compute_in_one_thread)


def _compute_in_one_thread() -> None:
    torch.set_num_threads(1)
