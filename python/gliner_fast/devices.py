"""One model on several devices: copies of its network, and windows of texts for whichever is free."""

from __future__ import annotations

import copy
import dataclasses
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import nullcontext
from queue import SimpleQueue
from threading import Event
from typing import TYPE_CHECKING, TypeVar

import torch

from gliner_fast.int16 import is_quantized, quantize
from gliner_fast.precision import choose_device
from gliner_fast.predict import Predictor
from gliner_fast.stats import Stats
from gliner_fast.token_budget import default_budget

if TYPE_CHECKING:
    from gliner_fast.entity import Entity
    from gliner_fast.model import GLiNER
    from gliner_fast.preparing import Prepared

Item = TypeVar("Item")
Devices = str | Sequence[str | torch.device]


def parse_devices(devices: Devices) -> list[torch.device]:
    """The devices that a user names: "all" (every CUDA device; without one, the CPU), one name, or a list of them.

    Raises:
        ValueError: no device, or one that is not here.
    """
    if devices == "all":
        count = torch.cuda.device_count()
        return [torch.device("cuda", index) for index in range(count)] or [torch.device("cpu")]
    names = [devices] if isinstance(devices, str) else list(devices)
    if not names:
        raise ValueError("devices is empty: name at least one, such as ['cuda:0', 'cuda:1'], or 'all'")
    return [_numbered(choose_device(str(name))) for name in names]


def _numbered(device: torch.device) -> torch.device:
    """The same by its number: "cuda" is this thread's current device, which need not be another thread's."""
    return torch.device("cuda", torch.cuda.current_device()) if str(device) == "cuda" else device


def spread(model: GLiNER, devices: Sequence[torch.device]) -> list[Predictor]:
    """A predictor on each device. The model's own network serves its device once; each other has a copy of its own.

    Raises:
        ValueError: the model multiplies int16, and a device is not the CPU; or it is compiled, and would be copied.
    """
    own = model.predictor()
    predictors: list[Predictor] = []
    is_taken = False
    for device in devices:
        is_own = not is_taken and is_same(device, own.device)
        is_taken |= is_own
        if is_own:
            predictors.append(own)
            continue
        if getattr(own.network, "_compiled_call_impl", None) is not None:
            raise ValueError(
                f"the model is compiled, and a compiled one cannot be copied to {device}: leave out compile(), or give "
                "each device a model and some of the texts"
            )
        network = copy.deepcopy(own.network).to(device)
        if is_quantized(own.network):
            quantize(network)  # copies have no whole numbers, and other devices multiply none
        budget = model.token_budget or default_budget(network, device)
        predictors.append(dataclasses.replace(own, network=network, device=device, budget=budget))
    return predictors


def predict_on_all(
    predictors: Sequence[Predictor],
    items: Iterable[Item],
    prepare: Callable[[Item], Prepared],
    stats: Stats,
) -> Generator[tuple[Item, Prepared, list[list[Entity]]], None, None]:
    """Predicts items on whichever device is free, and gives them in their order.

    Two items a device are under way, so that one is prepared while another is computed. An error is raised here, in the
    turn of its item.

    Args:
        predictors: one a device.
        items: read lazily, as far ahead as there are places under way.
        prepare: makes subwords of an item, in a thread.
        stats: what is done is added to it, item by item.
    """
    idle: SimpleQueue[Predictor] = SimpleQueue()
    ended = Event()
    for predictor in predictors:
        idle.put(predictor)

    def work(item: Item) -> tuple[Prepared, list[list[Entity]], Stats]:
        prepared, own = prepare(item), Stats()
        predictor = idle.get()
        budget = predictor.budget

        def lower_budget(lower: int) -> None:
            nonlocal budget
            budget = lower  # of this device, from now on
            predictor.lower_budget(lower)

        try:
            if ended.is_set():
                raise CancelledError
            with torch.cuda.device(predictor.device) if predictor.device.type == "cuda" else nullcontext():
                return prepared, dataclasses.replace(predictor, lower_budget=lower_budget).predict(prepared, own), own
        finally:
            idle.put(dataclasses.replace(predictor, budget=budget))

    source, places = iter(items), 2 * len(predictors)
    under_way: deque[tuple[Item, Future[tuple[Prepared, list[list[Entity]], Stats]]]] = deque()
    pool = ThreadPoolExecutor(places, thread_name_prefix="gliner_fast-device")
    try:
        while True:
            for item in source:
                under_way.append((item, pool.submit(work, item)))
                if len(under_way) == places:
                    break
            if not under_way:
                return
            item, coming = under_way.popleft()
            prepared, found, own = coming.result()
            stats.add(own)
            yield item, prepared, found
    finally:
        ended.set()  # what waits for a device is not begun
        pool.shutdown(cancel_futures=True)


def is_same(one: torch.device, other: torch.device) -> bool:
    """Whether two names mean one device: "cuda" is the current CUDA device."""

    def index(device: torch.device) -> int:
        is_current = device.type == "cuda" and device.index is None
        return torch.cuda.current_device() if is_current else device.index or 0

    return one.type == other.type and index(one) == index(other)
