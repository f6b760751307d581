"""The least time that given work can take, by peaks measured in the same run; on a card, time on the card alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TypedDict

import torch
import torch.nn.functional as F

from gliner_fast.cpu.linear import Linear
from gliner_fast.encoders.deberta_config import DebertaConfig

# Twice the L2 cache of an H100 and more: to write it throws out what a call before left there.
SCRATCH_BYTES = 256 * 2**20
CALLS, REPLAYS = 10, 11


@dataclass(frozen=True)
class Work:
    """What cannot be left out: bytes that must cross the memory bus once, and operations (a multiply-add is two)."""

    bytes: int
    operations: int


@dataclass(frozen=True)
class Peaks:
    """What the card reaches: bytes and operations a second."""

    bytes: float
    operations: float

    def floor(self, work: Work) -> float:
        """Seconds below which the work cannot be done: its bytes and operations overlap at best."""
        return max(work.bytes / self.bytes, work.operations / self.operations)


class SpanCounts(TypedDict):
    """Sizes of a batch of spans, by the names that all who score them take."""

    word_counts: Sequence[int]
    class_counts: Sequence[int]
    max_width: int


def span_scores_work(
    word_counts: Sequence[int], class_counts: Sequence[int], max_width: int, hidden: int, size: int
) -> Work:
    """The work of `kernels.span_scores`: every input read once, every logit written once, true spans alone computed.

    Args:
        word_counts: words of each text.
        class_counts: entity types of each text.
        max_width: K.
        hidden: H.
        size: bytes of a number.
    """
    words, types = sum(word_counts), sum(class_counts)
    texts = list(zip(word_counts, class_counts, strict=True))
    logits = sum(words * max_width * types for words, types in texts)
    scores = sum(sum(max(0, words - width) for width in range(max_width)) * types for words, types in texts)
    return Work(size * (2 * words * hidden + types * (hidden + 1) + logits), 2 * hidden * scores)


def encoder_operations(config: DebertaConfig, lengths: Sequence[int], wanted: int | None = None) -> int:
    """Operations of an encoder's products over true subwords; those of positions are left out, as no result needs all.

    Args:
        config: of the encoder.
        lengths: subwords of each text.
        wanted: subwords whose hidden states are read; the last layer need not be finished for others. None for all.
    """
    width, inner = config.hidden_size, config.intermediate_size
    heads, rest = 3 * width * width, width * width + 2 * width * inner  # queries, keys, values; output, inner layers
    attention = sum(length * length for length in lengths) * 2 * width  # scores, and values by their weights
    unfinished = 0 if wanted is None else sum(lengths) - wanted
    return 2 * (config.layers * (sum(lengths) * (heads + rest) + attention) - unfinished * rest)


def cpu_peak(dtype: torch.dtype = torch.float32) -> float:
    """Operations a second that torch's threads reach in a product, by whichever library is faster."""
    left, layer = torch.randn(768, 768).to(dtype), Linear(768, 3072).to(dtype).eval()
    seconds: dict[str, list[float]] = {"torch": [], "ours": []}
    with torch.inference_mode():
        for _ in range(25):
            for name, multiply in (("torch", partial(F.linear, weight=layer.weight)), ("ours", layer)):
                begin = time.perf_counter()
                multiply(left)
                seconds[name].append(time.perf_counter() - begin)
    return 2 * 768 * 768 * 3072 / min(statistics.median(times) for times in seconds.values())


@cache
def measure_peaks(dtype: torch.dtype) -> Peaks:
    """Of the current CUDA device: a copy of 1 GiB, and an 8,192 cubed product in the dtype (fp32 without TF32)."""
    source = torch.ones(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    factor = torch.randn(8192, 8192, device="cuda").to(dtype)
    product = torch.empty_like(factor)
    copy = device_seconds(lambda: target.copy_(source))
    multiply = device_seconds(lambda: torch.mm(factor, factor, out=product))
    return Peaks(2 * 2**30 / copy, 2 * 8192**3 / multiply)


def device_seconds(call: Callable[[], object]) -> float:
    """Seconds of a call on the current CUDA device, from a cold L2 cache, without the host's share.

    A graph of calls, each after a write of the scratch, less a graph of the writes alone: short kernels would else be
    timed by how fast Python starts them. The call must not allocate what it returns anew each time, nor wait.
    """
    scratch = torch.empty(SCRATCH_BYTES, dtype=torch.uint8, device="cuda")
    call()  # compiles, before anything is captured

    def both() -> None:
        scratch.zero_()
        call()

    return (_replay_seconds(both) - _replay_seconds(scratch.zero_)) / CALLS


def _replay_seconds(call: Callable[[], object]) -> float:
    """Median seconds of a graph of CALLS calls."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            call()
    seconds: list[float] = []
    for _ in range(REPLAYS):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        seconds.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(seconds)
