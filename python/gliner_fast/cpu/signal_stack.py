"""Stacks for signal handlers, where oneDNN computes where they would write.

Some of oneDNN's products in float32, on CPUs with AVX2 and AVX-512, have the stack pointer lead into their workspace on
the heap. A signal that comes meanwhile, Ctrl-C as well as a timer's, has the system write the registers below it, over
whatever lies there: a crash, or wrong numbers. It was mended in oneDNN in March 2026
(https://github.com/uxlfoundation/oneDNN/issues/4845), after torch 2.11's.

Python's handlers run on a stack of their own where the thread has one (bpo-43390), so that nothing is written there.
Most of a process's signals come to its main thread, whoever computes meanwhile; but those of a timer of CPU time
(`ITIMER_PROF`, which profilers set) come to a thread that computes, which may be one of torch's.
"""

from __future__ import annotations

import threading

import torch

from gliner_fast import _rust
from gliner_fast.cpu.openmp import parallel_address

_own = threading.local()  # of each thread that computes: how many of torch's worked for it when they got stacks


def keep_signals_away() -> None:
    """Has handlers run elsewhere than on the stack of the thread that calls, or of torch's that work for it."""
    threads = torch.get_num_threads()
    if getattr(_own, "threads", None) != threads:
        _rust.take_signal_stacks(parallel_address())
        _own.threads = threads
