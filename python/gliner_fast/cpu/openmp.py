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
    # As the loader does for torch itself: first among what all may use, preloaded libraries too, then among the
    # libraries that torch needs.
    return _address_in(None) or _address_in(torch_module.origin if torch_module else None)


def _address_in(library: str | None) -> int:
    try:
        return ctypes.cast(ctypes.CDLL(library).GOMP_parallel, ctypes.c_void_p).value or 0
    except (OSError, AttributeError, TypeError):  # the last from Windows, where no library has the name None
        return 0
