"""Lets a process that was forked from one with a loaded model compute; by itself it would wait for ever.

The parent's threads do not exist in the child: nobody does torch's work there, or releases the locks that they held.
"""

from __future__ import annotations

import codecs
import importlib
import os
from functools import cache
from typing import Protocol
from weakref import WeakSet


class HasLock(Protocol):
    """Holds a lock that another thread may have when the process is forked."""

    def renew_lock(self) -> None:
        """Takes a new one, without asking for the old one."""


_with_locks: WeakSet[HasLock] = WeakSet()


@cache
def survive_forks() -> None:
    """Has processes forked from now on compute in one thread.

    torch's threads (libgomp's, on Linux) are not there in a forked process, which would wait for them at its first
    large operation: so does torch by itself, and `gliner` with it, but in a DataLoader's workers, which have one
    thread. A process that is spawned, or that loads its own model, is not concerned.
    """
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=_compute_in_one_thread)
        # Imported at the first prediction otherwise: a module has a lock while one thread imports it.
        importlib.import_module("numpy.ma")  # by np.unique
        codecs.lookup("utf-32-le")


def renew_lock_in_children(owner: HasLock) -> None:
    """Has an object take a new lock in processes that are forked from now on, as long as it lives."""
    _register_renewal()
    _with_locks.add(owner)


@cache
def _register_renewal() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_renew_locks)


def _compute_in_one_thread() -> None:
    import torch  # here: word splitters ask for locks alone, before anybody needs torch

    torch.set_num_threads(1)


def _renew_locks() -> None:
    for owner in list(_with_locks):
        owner.renew_lock()
