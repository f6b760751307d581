"""The threads that torch runs its own work on: for the native module's, and one alone for what is small."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any


@cache
def parallel_address() -> int:
    """The address of `GOMP_parallel` in the OpenMP library that torch itself uses; 0 where torch has none that has it.

    The native module runs its work on torch's threads through it: new threads would fight with them for the cores,
    since they spin for a while after each product.
    """
    function = _function_of_torch("GOMP_parallel")
    return 0 if function is None else ctypes.cast(function, ctypes.c_void_p).value or 0


@contextmanager
def in_one_thread() -> Iterator[None]:
    """Has torch compute in the calling thread alone; what it does in other threads meanwhile keeps theirs.

    `torch.set_num_threads` would change it for all. Where torch has neither OpenMP nor MKL of a known form, this does
    nothing.
    """
    import torch

    # Asked before: in a new thread torch sets the number when it first needs it, and would undo what is set here.
    threads = torch.get_num_threads()
    set_openmp, set_mkl = (_function_of_torch(name) for name in ("omp_set_num_threads", "MKL_Set_Num_Threads_Local"))
    # MKL goes by a number of its own once somebody has called `torch.set_num_threads`; it gives the one before.
    mkl_threads = 0 if set_mkl is None else set_mkl(1)
    if set_openmp is not None:
        set_openmp(1)
    try:
        yield
    finally:
        if set_openmp is not None:
            set_openmp(threads)
        if set_mkl is not None:
            set_mkl(mkl_threads)


@cache
def _function_of_torch(name: str) -> Any | None:
    torch_module = find_spec("torch._C")
    # As the loader does for torch itself: first among what all may use, preloaded libraries too, then among the
    # libraries that torch needs.
    libraries = [None, torch_module.origin] if torch_module else [None]
    return next((function for library in libraries if (function := _function_in(library, name)) is not None), None)


def _function_in(library: str | None, name: str) -> Any | None:
    try:
        return getattr(ctypes.CDLL(library), name)
    except (OSError, AttributeError, TypeError):  # the last from Windows, where no library has the name None
        return None
