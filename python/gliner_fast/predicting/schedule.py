"""Which batch is laid out, computed and decoded when, of one request after another (DESIGN 2)."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from itertools import groupby
from threading import Event
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gliner_fast.predicting.collecting import Collector, Found
from gliner_fast.predicting.linking import asks_for_relations
from gliner_fast.predicting.out_of_memory import (
    halved_subwords,
    is_out_of_memory,
    lowered_budget,
    shortage_of_onednn,
)
from gliner_fast.predicting.preparing import Prepared
from gliner_fast.predicting.stages import HostStages
from gliner_fast.stats import Stats

if TYPE_CHECKING:
    from gliner_fast.entity import Entity
    from gliner_fast.predicting.predictor import LaidOut, Predictor

# Requests under way where the stages overlap: one whose last batches are decoded, and one that is computed.
_MOST_REQUESTS = 2


class _Planned(NamedTuple):
    """A batch to come: rows of a request."""

    collector: Collector
    rows: NDArray[np.int64]


class Schedule:
    """Takes requests through a predictor's stages, batch by batch.

    A request None says that none is ready now: it is asked for again after the next step. Where none is under way there
    is no step, so whoever has none ready then should wait for it instead.

    With overlapping stages the next batch is laid out and the one before decoded, in a thread each, while the device
    computes; and the first batches of a request are computed while the last of the one before are decoded. No batch has
    texts of two.
    """

    def __init__(
        self,
        predictor: Predictor,
        requests: Iterator[Prepared | None],
        stats: Stats | None,
        unwanted: Event | None = None,
    ) -> None:
        self._predictor = predictor
        self._requests: Iterator[Prepared | None] | None = requests  # None where no more are to come
        self._stats = Stats() if stats is None else stats
        self._is_timed = stats is not None
        self._unwanted = Event() if unwanted is None else unwanted  # set by another thread: no further batch is started
        self._budget = predictor.budget
        self._collectors: deque[Collector] = deque()  # of the requests under way
        self._waiting: deque[_Planned] = deque()
        self._coming: Future[LaidOut] | None = None  # of the first that waits
        self._in_flight: deque[tuple[_Planned, Future[Found]]] = deque()
        self._alone: _Planned | None = None  # a batch for which memory was short beside others, until it is decoded
        self._failure: Exception | None = None
        self._has_fit = False  # whether memory was enough for a request that has been given

    def run(self, stages: HostStages) -> Generator[tuple[Prepared, list[list[Entity]]], None, None]:
        """Each request with its entities, in order.

        An error ends this in the turn of its request: what those before have found is given first.
        """
        while not self._unwanted.is_set():
            self._ask_for_more(stages)
            if self._waiting and len(self._in_flight) < (stages.most_in_flight if self._alone is None else 1):
                self._start(stages)
            elif self._collectors and not self._collectors[0].undone:
                yield self._give()
            elif self._collectors:
                self._finish()
            elif self._failure is not None:
                try:
                    raise self._failure
                finally:
                    self._failure = None  # or its traceback, which holds this frame, would keep a batch's tensors
            elif self._requests is None:
                return

    def _give(self) -> tuple[Prepared, list[list[Entity]]]:
        """The first request with its entities; nothing of it is kept here."""
        collector = self._collectors.popleft()
        found = collector.result(self._stats, others_fit=self._has_fit)
        self._has_fit = self._has_fit or collector.has_fit
        return collector.prepared, found

    def _ask_for_more(self, stages: HostStages) -> None:
        """Plans further requests where too few batches wait: the next is laid out while another is started.

        A device that has at most one batch left is not kept waiting for the request after its next batch.
        """
        least = 2 if stages.overlap and len(self._in_flight) > 1 else 1
        most = _MOST_REQUESTS if stages.overlap else 1
        while self._requests is not None and len(self._waiting) < least and len(self._collectors) < most:
            try:
                prepared = next(self._requests)
            except StopIteration:
                self._requests = None
                return
            except Exception as error:  # noqa: BLE001  # raised when those before are done
                self._requests, self._failure = None, error
                return
            if prepared is None:
                return
            collector = Collector(prepared)
            self._collectors.append(collector)
            self._plan(collector, prepared.scorable, self._budget)

    def _plan(self, collector: Collector, rows: NDArray[np.int64], budget: int) -> None:
        batches = self._predictor.plan(collector.prepared, rows, budget)
        collector.undone += len(batches)
        self._waiting.extend(_Planned(collector, chosen) for chosen in batches)

    def _start(self, stages: HostStages) -> None:
        """Starts the first batch that waits."""
        predictor, planned = self._predictor, self._waiting[0]
        prepared = planned.collector.prepared
        try:
            # No name for the future: it may hold an error, whose traceback holds this frame. That reference cycle would
            # keep a batch's tensors until the garbage collector runs.
            laid_out = (self._coming or stages.lay_out(predictor.lay_out, prepared, planned.rows)).result()
            self._coming = None
            if stages.overlap and len(self._waiting) > 1:
                following = self._waiting[1]
                self._coming = stages.lay_out(predictor.lay_out, following.collector.prepared, following.rows)
            self._in_flight.append((planned, self._compute(stages, prepared, laid_out)))
        except Exception as error:  # noqa: BLE001  # raised in its turn
            self._give_way(error)
        else:
            self._waiting.popleft()

    def _compute(self, stages: HostStages, prepared: Prepared, laid_out: LaidOut) -> Future[Found]:
        """Has a batch's spans scored, then decoded."""
        # No name for the scores, or the ones of a batch would live until the next has its own.
        return stages.decode(
            self._predictor.decode, prepared, self._predictor.score(laid_out, self._stats, timed=self._is_timed)
        )

    def _finish(self) -> None:
        """Waits for the first batch in flight."""
        planned, decoding = self._in_flight.popleft()
        if planned.collector not in self._collectors:
            return  # its request has failed, and those before are still to be given
        try:
            found = decoding.result()
        except Exception as error:  # noqa: BLE001  # raised in its turn
            self._waiting.appendleft(planned)
            del decoding  # it holds the error: a reference cycle, as in `_start`
            self._give_way(error)
        else:
            planned.collector.add(found)
            self._stats.add(found.stats)
            self._budget = self._predictor.recover_budget(self._budget)
            if planned is self._alone:
                self._alone = None

    def _give_way(self, error: Exception) -> None:
        """Makes batches smaller if memory was short for the first that waits; else ends with the error."""
        self._coming = None
        shortage = shortage_of_onednn(error)
        if shortage is not None:
            error = shortage
        elif is_out_of_memory(error):
            try:
                # One row that had others beside it may fit alone.
                if not (self._in_flight and len(self._waiting[0].rows) == 1):
                    self._shrink(error)
            except MemoryError as told:
                collector, rows = self._waiting[0]
                if collector.prepared.request.options.leave_out_unfit:
                    self._waiting.popleft()
                    collector.leave_out(int(rows[0]), told)
                    self._alone = None
                    return
                error = told
            else:
                self._alone = self._waiting[0]
                return
        failed = self._waiting[0].collector
        while self._collectors.pop() is not failed:
            pass
        # Of requests before it some batches may wait, those for which memory was short.
        self._waiting = deque(planned for planned in self._waiting if planned.collector in self._collectors)
        self._requests, self._failure, self._alone = None, error, None
        del error  # its traceback may hold this frame: a reference cycle

    def _shrink(self, error: Exception) -> None:
        """Plans the first that waits anew as at least two, and what waits behind it with a lower budget."""
        predictor = self._predictor
        (first, rows), *others = self._waiting
        padded = not predictor.network.reads_packed
        halved = halved_subwords(
            first.prepared.lengths[rows], error, padded=padded, linked=asks_for_relations(first.prepared)
        )
        self._budget = lowered_budget(self._budget, halved)
        predictor.lower_budget(self._budget)
        self._waiting.clear()
        first.undone -= 1
        self._plan(first, rows, halved)
        for collector, batches in groupby(others, key=lambda batch: batch.collector):
            parts = [batch.rows for batch in batches]
            collector.undone -= len(parts)
            self._plan(collector, np.concatenate(parts), self._budget)
