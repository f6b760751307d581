"""The threads that torch runs its own work on, for the native module's."""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.util import find_spec


@cache
def parallel_address() -> int:
    """The address of `GOMP_parallel` in the OpenMP library that torch itself uses; 0 where torch has none that has it.

    The native module runs its work on torch's threads through it: new threads would fight with them for the cores,
    since they spin for a while after each product.
    """
    torch_module = find_spec("torch._C")
    try:
        # The loader looks for the name in this library, then in those that it needs: the one that torch computes with
        # is among them.
        library = ctypes.CDLL(torch_module.origin if torch_module else None)
        return ctypes.cast(library.GOMP_parallel, ctypes.c_void_p).value or 0
    except (OSError, AttributeError):
        return 0
