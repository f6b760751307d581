"""`encoder.py`: modules on the meta device, whatever other threads build meanwhile."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock

import pytest
from torch import nn

from gliner_fast import encoder
from gliner_fast.encoder import parameters_on_meta


def build_on_meta() -> nn.Linear:
    with parameters_on_meta():
        return nn.Linear(2, 2)


def test_parameters_are_on_meta_and_buffers_are_real():
    with parameters_on_meta():
        norm = nn.BatchNorm1d(2)
    assert norm.weight.is_meta
    assert norm.running_mean is not None
    assert not norm.running_mean.is_meta
    assert not nn.Linear(2, 2).weight.is_meta


def test_what_another_thread_builds_meanwhile_is_real():
    with parameters_on_meta(), ThreadPoolExecutor(1) as other:
        assert not other.submit(nn.Linear, 2, 2).result(timeout=60).weight.is_meta
        assert nn.Linear(2, 2).weight.is_meta


def test_checkpoints_that_are_built_in_two_threads_leave_modules_as_they_were(monkeypatch: pytest.MonkeyPatch):
    both_ask, lock, before = Event(), Lock(), nn.Module.register_parameter

    class Told:
        def __enter__(self) -> None:
            if not lock.acquire(blocking=False):
                both_ask.set()
                lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    monkeypatch.setattr(encoder._building, "lock", Told())
    with ThreadPoolExecutor(1) as other:
        with parameters_on_meta():
            second = other.submit(build_on_meta)
            assert both_ask.wait(timeout=60)
        assert second.result(timeout=60).weight.is_meta
    try:
        assert nn.Module.register_parameter is before
    finally:
        nn.Module.register_parameter = before  # type: ignore[method-assign]
