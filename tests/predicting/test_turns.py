"""Threads of Python take short turns while a card's host works in several, and their own afterwards."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from gliner_fast.predicting.stages import HostStages
from gliner_fast.predicting.turns import short_turns


@pytest.fixture(autouse=True)
def default() -> Iterator[float]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    yield sys.getswitchinterval()
    sys.setswitchinterval(before)


def test_turns_are_short_until_the_last_is_done(default: float) -> None:
    with short_turns():
        assert sys.getswitchinterval() == pytest.approx(0.0005, abs=2e-6)
        with pytest.raises(ZeroDivisionError), short_turns():
            raise ZeroDivisionError
        assert sys.getswitchinterval() == pytest.approx(0.0005, abs=2e-6)
    assert sys.getswitchinterval() == default


def test_shorter_ones_and_what_others_set_meanwhile_stay() -> None:
    sys.setswitchinterval(0.0001)
    with short_turns():
        assert sys.getswitchinterval() == pytest.approx(0.0001)
    assert sys.getswitchinterval() == pytest.approx(0.0001)
    sys.setswitchinterval(0.005)
    with short_turns():
        sys.setswitchinterval(0.01)
    assert sys.getswitchinterval() == pytest.approx(0.01)


@pytest.mark.parametrize("overlap", [False, True])
def test_a_host_of_several_threads_asks_for_them(overlap: bool, default: float) -> None:
    with HostStages(overlap=overlap):
        assert (sys.getswitchinterval() == default) is not overlap
    assert sys.getswitchinterval() == default
