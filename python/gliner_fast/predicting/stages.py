"""The host's stages of a batch beside the device's: laying it out before, decoding it after (DESIGN 2)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from threading import Lock
from typing import Any, ParamSpec, TypeVar, cast

Given = ParamSpec("Given")
Result = TypeVar("Result")


class HostStages(ExitStack):
    """Where the host's two stages run: in a thread each, or, on a CPU, which has no time to give, in their turn.

    Attributes:
        overlap: whether there are threads.
        most_in_flight: batches that may be started and not decoded: with threads one is decoded while one is computed,
            and one more waits on the device, so that it goes on where the host pauses.
    """

    def __init__(self, *, overlap: bool) -> None:
        super().__init__()
        self.overlap = overlap
        self.most_in_flight = 3 if overlap else 1
        self._layer, self._decoder = self._thread("lay-out"), self._thread("decode")

    def _thread(self, name: str) -> ThreadPoolExecutor | None:
        """A pool of one thread, which ends with this context; None where stages do not overlap."""
        if not self.overlap:
            return None
        return self.enter_context(ThreadPoolExecutor(1, thread_name_prefix=f"gliner_fast-{name}"))

    def lay_out(self, work: Callable[Given, Result], *given: Given.args, **options: Given.kwargs) -> Future[Result]:
        """Starts laying out a batch."""
        return start(self._layer, work, *given, **options)

    def decode(self, work: Callable[Given, Result], *given: Given.args, **options: Given.kwargs) -> Future[Result]:
        """Starts decoding a batch, which waits for the device first."""
        return start(self._decoder, work, *given, **options)


def start(
    pool: ThreadPoolExecutor | None, work: Callable[Given, Result], *given: Given.args, **options: Given.kwargs
) -> Future[Result]:
    """Starts work in a pool's thread; without a pool, or where it has no thread to give, it is done here and now.

    Once the main thread has ended no pool takes work any more, and a system may have no further thread. Other threads
    and what runs at the exit may still be at it.
    """
    begun = Lock()

    def begin() -> Result:
        # A pool that could start no thread has kept the work, and may come to it yet: nobody asks it then.
        return work(*given, **options) if begun.acquire(blocking=False) else cast(Result, None)

    if pool is not None:
        with suppress(RuntimeError):
            return pool.submit(begin)
    try:
        result = begin()
    except Exception as error:  # noqa: BLE001  # raised where the result is asked for
        return failed(error)
    done: Future[Result] = Future()
    done.set_result(result)
    return done


def failed(error: Exception) -> Future[Any]:
    """What raises an error where its result is asked for."""
    # Not where the error was caught: its traceback holds that frame, and with a future in it there would be a reference
    # cycle, which keeps a batch's tensors until the garbage collector runs.
    future: Future[Any] = Future()
    future.set_exception(error)
    return future
