"""One model on several devices: copies of its network, and windows of texts for whichever is free."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from gliner_fast.cpu.whole_numbers import Packing
from gliner_fast.precision import choose_device
from gliner_fast.predicting.out_of_memory import Recovery
from gliner_fast.predicting.predictor import Predictor
from gliner_fast.predicting.stages import failed, start
from gliner_fast.predicting.token_budget import default_budget
from gliner_fast.stats import Stats

if TYPE_CHECKING:
    from gliner_fast.entity import Entity
    from gliner_fast.methods.prediction import PredictionMethods
    from gliner_fast.predicting.preparing import Prepared

Item = TypeVar("Item")
Devices = str | Sequence[str | torch.device]


def parse_devices(devices: Devices) -> list[torch.device]:
    """The devices that a user names: "all" (every CUDA device), one name, or a list of them.

    Without a CUDA device "all" is the CPU, and a warning tells it.

    Raises:
        ValueError: no device, or one that is not here.
    """
    if devices == "all":
        count = torch.cuda.device_count()
        if not count:
            warnings.warn("there is no CUDA device that can be used: 'all' is the CPU here", stacklevel=2)
        return [torch.device("cuda", index) for index in range(count)] or [torch.device("cpu")]
    names = [devices] if isinstance(devices, str) else list(devices)
    if not names:
        raise ValueError("devices is empty: name at least one, such as ['cuda:0', 'cuda:1'], or 'all'")
    return [_numbered(choose_device(str(name))) for name in names]


def _numbered(device: torch.device) -> torch.device:
    """The same by its number: "cuda" is this thread's current device, which need not be another thread's."""
    return torch.device("cuda", torch.cuda.current_device()) if str(device) == "cuda" else device


def spread(model: PredictionMethods, devices: Sequence[torch.device]) -> list[Predictor]:
    """A predictor on each device. The model's own network serves its device once; each other has a copy of its own.

    Raises:
        ValueError: the model multiplies whole numbers, and a device is not the CPU; or it is compiled, and would be
            copied.
    """
    own = model.predictor()
    packing = Packing.of(own.network)  # of which copies have none
    predictors: list[Predictor] = []
    is_taken = False
    for device in devices:
        is_own = not is_taken and is_same(device, own.device)
        is_taken |= is_own
        if is_own:
            predictors.append(own)
            continue
        if own.network.is_compiled:
            raise ValueError(
                f"the model is compiled, and a compiled one cannot be copied to {device}: leave out compile(), or give "
                "each device a model and some of the texts"
            )
        if packing.is_whole and device.type != "cpu":
            raise ValueError(
                f"the model multiplies whole numbers, which is for the CPU alone, and is to be copied to {device}: "
                "load one without int8 or int16"
            )
        network = copy.deepcopy(own.network).to(device)
        packing.repeat(network)
        budget = model.token_budget or default_budget(network, device)
        predictors.append(dataclasses.replace(own, network=network, device=device, budget=budget))
    for device in {own.device, *devices}:
        if device.type == "cuda":
            # Copies are made, and weights perhaps still written, on this thread's streams; those who read them have
            # others.
            torch.cuda.current_stream(device).synchronize()
    return predictors


def predict_on_all(
    predictors: Sequence[Predictor],
    items: Iterable[Item],
    prepare: Callable[[Item], Prepared],
    stats: Stats,
) -> Generator[tuple[Item, Prepared, list[list[Entity]]], None, None]:
    """Predicts items on whichever device is free, and gives them in their order.

    A thread prepares them for all devices, and one a device computes what is prepared. Two items a device are under
    way, so that one is prepared while another is computed; on CUDA it is begun before the last batch of that one is
    decoded, if it is there by then. An error is raised here, in the turn of its item.

    Args:
        predictors: one a device.
        items: read lazily, as far ahead as there are places under way.
        prepare: makes subwords of an item, in a thread.
        stats: what is done is added to it, item by item.
    """
    places = 2 * len(predictors)
    under_way: deque[tuple[Any, _Task]] = deque()
    preparer = ThreadPoolExecutor(1, thread_name_prefix="gliner_fast-prepare")
    line = _Line(predictors)

    def prepare_next(task: _Task, item: Item) -> None:
        if line.unwanted.is_set():
            return
        try:
            task.prepared = prepare(item)
        except BaseException as error:  # noqa: BLE001  # raised in the turn of its item
            task.result.set_exception(error)
        else:
            line.put(task)

    def begin() -> Iterator[tuple[Any, _Task]]:
        """Each item with its task, begun. Where `items` raises, a last task does so in its turn."""
        try:
            for item in items:
                task = _Task()
                start(preparer, prepare_next, task, item)
                yield item, task
        except Exception as error:  # noqa: BLE001
            yield None, _Task(failed(error))

    begun = begin()
    try:
        while True:
            under_way.extend(islice(begun, places - len(under_way)))
            if not under_way:
                return
            prepared, found, own = under_way[0][1].result.result()
            item = under_way.popleft()[0]
            stats.add(own)
            yield item, prepared, found
            del item, prepared, found  # or they would be in memory beside the next
    finally:
        under_way.clear()  # a task holds its error, whose traceback holds this frame: a reference cycle
        line.unwanted.set()
        preparer.shutdown()
        line.close()


@dataclass
class _Task:
    """An item that is prepared, and what it becomes."""

    result: Future[tuple[Prepared, list[list[Entity]], Stats]] = field(default_factory=Future)
    prepared: Prepared | None = None


class _Line:
    """What is prepared, before devices that take it in its order.

    A worker's `serve` returns where nothing is left, and is called again by `put`. If it waited instead, Python could
    not join its thread when a process ends while somebody still holds the results.

    Attributes:
        unwanted: once set, nothing more is taken, and no further batch started.
    """

    def __init__(self, predictors: Sequence[Predictor]) -> None:
        self.unwanted = Event()
        self._tasks: deque[_Task] = deque()
        self._idle = [_Worker(predictor, self) for predictor in predictors]
        self._lock = Lock()
        self._threads = ThreadPoolExecutor(len(predictors), thread_name_prefix="gliner_fast-device")

    def put(self, task: _Task) -> None:
        """Adds a task, for a device that has none if there is one."""
        with self._lock:
            self._tasks.append(task)
            worker = self._idle.pop() if self._idle and not self.unwanted.is_set() else None
        if worker is not None:  # not under the lock: it may have to work in this thread
            start(self._threads, worker.serve)

    def take(self, worker: _Worker, *, is_busy: bool) -> _Task | None:
        """The first task, if any; a worker that is not busy must end where there is none."""
        with self._lock:
            if self._tasks and not self.unwanted.is_set():
                return self._tasks.popleft()
            if not is_busy:
                self._idle.append(worker)
            return None

    def close(self) -> None:
        """Waits for what is at work."""
        self._threads.shutdown()
        self._idle.clear()  # workers hold this line: the reference cycle would keep copies of the network


class _Worker:
    """Has a device compute what stands in line."""

    def __init__(self, predictor: Predictor, line: _Line) -> None:
        self._predictor = predictor
        self._line = line
        self._taken: deque[_Task] = deque()  # and not given back
        self._recovery = Recovery()

    def serve(self) -> None:
        """Computes until nothing is left; an error is told to the tasks that it keeps from being done."""
        predictor = dataclasses.replace(
            self._predictor, lower_budget=self._lower_budget, recover_budget=self._recover_budget
        )
        device, stats, before = predictor.device, Stats(), Stats()
        try:
            with (
                torch.cuda.device(device) if device.type == "cuda" else nullcontext(),
                closing(predictor.predict_each(self._requests(), stats, unwanted=self._line.unwanted)) as results,
            ):
                for prepared, found in results:
                    self._taken.popleft().result.set_result((prepared, found, stats - before))
                    before = stats.copy()
                    del prepared, found  # or they would be in memory beside the next
        except BaseException as error:  # noqa: BLE001  # raised in the turn of its item
            if not self._taken:
                self._taken.extend(filter(None, [self._line.take(self, is_busy=True)]))
            while self._taken:  # none is kept: it holds the error, whose traceback holds this frame
                self._taken.popleft().result.set_exception(error)

    def _requests(self) -> Iterator[Prepared | None]:
        """What the tasks ask for; None where there is none now, and one is under way."""
        while True:
            is_busy = bool(self._taken)
            task = self._line.take(self, is_busy=is_busy)
            if task is not None:
                self._taken.append(task)
                yield task.prepared
            elif is_busy:
                yield None
            else:
                return

    def _lower_budget(self, budget: int) -> None:
        before = self._predictor.budget
        self._recovery.lower(before, before, budget)
        self._predictor = dataclasses.replace(self._predictor, budget=budget)  # of this device, from now on
        self._predictor.lower_budget(budget)

    def _recover_budget(self, budget: int) -> int:
        before = self._predictor.budget
        raised = self._recovery.after_batch(before) or before
        if raised != before:
            self._predictor = dataclasses.replace(self._predictor, budget=raised)
        self._predictor.recover_budget(budget)  # the model's own, which the next call begins with
        return max(budget, raised) if self._recovery.full else budget


def is_same(one: torch.device, other: torch.device) -> bool:
    """Whether two names mean one device: "cuda" is the current CUDA device."""

    def index(device: torch.device) -> int:
        is_current = device.type == "cuda" and device.index is None
        return torch.cuda.current_device() if is_current else device.index or 0

    return one.type == other.type and index(one) == index(other)
