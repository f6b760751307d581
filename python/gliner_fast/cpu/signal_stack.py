"""A stack for signal handlers, for as long as oneDNN computes where they would write.

Some of oneDNN's products in float32, on CPUs with AVX2 and AVX-512, have the stack pointer lead into their workspace on
the heap. A signal that comes meanwhile, Ctrl-C as well as a timer's, has the system write the registers below it, over
whatever lies there: a crash, or wrong numbers. It was mended in oneDNN in March 2026
(https://github.com/uxlfoundation/oneDNN/issues/4845), after torch 2.11's.

Python's handlers run on a stack of their own where the thread has one (bpo-43390), so that nothing is written there.
The system gives a process's signals to its main thread, whoever computes meanwhile.
"""

from __future__ import annotations

import os
import threading

from gliner_fast import _rust

_processes: set[int] = set()  # whose main thread has such a stack: that of a forked one may be another thread


def keep_signals_away() -> None:
    """Has handlers run elsewhere than on the stack of the main thread, if that is the one that calls."""
    process = os.getpid()
    if process not in _processes and threading.current_thread() is threading.main_thread():
        _rust.take_signal_stack()
        _processes.add(process)
