"""How long one thread of Python keeps others waiting, while a CUDA device's host works in several."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

# Seconds. The thread that starts a card's kernels gives way at each of them, and by Python's default may then wait ten
# times as long for one that describes entities: kernels are started in a fraction of that.
_TURN = 0.0005
_MICROSECOND = 1e-6

_lock = Lock()
_users = 0
_before = _TURN


@contextmanager
def short_turns() -> Iterator[None]:
    """Has Python's threads change places more often than they do by default, until the last who asked is done.

    Where somebody else sets `sys.setswitchinterval` meanwhile, that stays.
    """
    global _users, _before  # noqa: PLW0603  (it is the process's)
    with _lock:
        if not _users:
            _before = sys.getswitchinterval()
            if _before > _TURN:
                sys.setswitchinterval(_TURN)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            is_ours = abs(sys.getswitchinterval() - _TURN) < 2 * _MICROSECOND
            if not _users and is_ours and _before > _TURN:
                sys.setswitchinterval(_before + _MICROSECOND / 2)  # Python cuts off what is less than one
