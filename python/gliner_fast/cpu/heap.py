"""What a process frees stays with it for the next tensors, where its C library can be told so."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from functools import cache

# glibc takes no larger ones from what it keeps: each is asked of the system, and returned to it.
LARGEST_KEPT = 32 * 2**20
# A layer frees less at once, in batches whose largest tensor has the size above.
_KEPT = 256 * 2**20
# Names of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


@cache
def keep_freed_memory() -> None:
    """Has glibc keep 256 MiB of freed memory at the end of a thread's heap, and take blocks of up to 32 MiB from there.

    By itself it returns a layer's tensors to the system, for some sizes after every layer, and asks for them again:
    each page is then cleared before it is written to, by the thread that writes. Does nothing with another C library,
    nor where the environment says how glibc should go about it; and nothing to tensors where torch has mimalloc for
    them, as on ARM.
    """
    said = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"}
    if _is_glibc() and said.isdisjoint(os.environ):
        mallopt = ctypes.CDLL(None).mallopt
        if mallopt(_MMAP_THRESHOLD, LARGEST_KEPT):  # 32-bit systems refuse it, and the other alone would do harm
            mallopt(_TRIM_THRESHOLD, _KEPT)


def _is_glibc() -> bool:
    if sys.platform != "win32":  # which has no `confstr`
        with suppress(OSError, ValueError):  # musl; a name that macOS does not know
            return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    return False
