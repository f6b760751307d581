"""What a CUDA device does in a call: when something runs on it, and the most memory that is held."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile


def profiled(call: Callable[[], object], *, with_host: bool = False) -> profile:
    """A call's profile, of the card alone or of its host, too; the call need not wait for the card."""
    activities = [*([ProfilerActivity.CPU] if with_host else []), ProfilerActivity.CUDA]
    profiler = profile(activities=activities, acc_events=True)
    with profiler:
        call()
        torch.cuda.synchronize()
    return profiler


def on_card(profiler: profile) -> list[Any]:
    """The kernels and copies among the events of a profile; none where CUPTI, which tells of them, is not allowed."""
    return [event for event in profiler.events() if event.device_type == DeviceType.CUDA]


def busy_seconds(events: Iterable[Any]) -> float:
    """Seconds in which at least one kernel or copy runs: libraries have streams of their own beside ours."""
    return covered((event.time_range.start, event.time_range.end) for event in events) / 1e6


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """What intervals cover together."""
    total, end = 0.0, -math.inf
    for first, last in sorted(intervals):
        total += max(0.0, last - max(first, end))
        end = max(end, last)
    return total


def peak_bytes(call: Callable[[], object]) -> int:
    """The most memory that a call holds on the current CUDA device, above what was held before it."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
