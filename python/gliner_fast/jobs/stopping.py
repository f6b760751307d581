"""Ctrl-C asks a job to stop where nothing is lost."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

Result = TypeVar("Result")


class InputStopped(Exception):  # noqa: N818  # no failure of the program: the input ends here
    """No more of the input is read, because the job was asked to stop."""


class Stop(threading.Event):
    """Set once a job is asked to stop.

    Attributes:
        is_waiting: whether the main thread waits for input. Python takes such a wait up again after each signal whose
            handler raises nothing.
        has_cut_input: whether the input was left before its end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_waiting = False
        self.has_cut_input = False

    def wait_for(self, input_: Callable[[], Result]) -> Result:
        """Gives what `input_` gives, which may wait, and must lose nothing where an exception ends it at any moment.

        Raises:
            InputStopped: the job was asked to stop, before or meanwhile.
        """
        self.is_waiting = True  # before the look at the event, or a signal between the two would be waited out
        try:
            if self.is_set():
                self.cut_input()
            return input_()
        finally:
            self.is_waiting = False

    def cut_input(self) -> None:
        """Ends the input.

        Raises:
            InputStopped: always.
        """
        self.has_cut_input = True
        raise InputStopped


@contextmanager
def stop_on_interrupt() -> Iterator[Stop]:
    """Sets an event at Ctrl-C or SIGTERM, which ends a wait for input; a second one raises KeyboardInterrupt.

    Signals reach the main thread only; elsewhere the event is never set.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    signals = (signal.SIGINT, signal.SIGTERM)

    def ask(number: int, frame: FrameType | None) -> None:
        del number, frame
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        sys.stderr.write("stopping after the slice at work; Ctrl-C or SIGTERM again stops at once\n")
        if stop.is_waiting:
            stop.cut_input()

    before = [signal.signal(number, ask) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
