"""One text at a time on CUDA: the encoder's kernels, recorded once for a length and started by one call (CUDA graphs).

A short text keeps a card busy for less time than the host takes to start its hundred kernels one after another. What is
recorded reads the same memory in each replay, so a text is copied there, and lengths are rounded up to buckets:
subwords behind the text belong to no text, and nobody reads what becomes of them.

On an H200 a short text of the base size in bf16 took less than half the time (2026-11-28, a throw-away script: 6.7 ms
for 14.2). Yet `GLINER_FAST_CUDA_GRAPHS=1` has to ask for it, since others may disturb it. While a length is recorded,
no other thread may wait for the whole device (`torch.cuda.synchronize`): that breaks a recording, and torch with it,
random numbers and all. And `torch.compile(mode="reduce-overhead")` in the same process throws memory of cuBLAS away
that recordings still use.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from gliner_fast.cpu.native import is_bare, is_recorded

VARIABLE = "GLINER_FAST_CUDA_GRAPHS"
MOST_SUBWORDS = 512  # from there on the card has enough to do
_BUCKET = 32  # a card takes no longer for these more subwords

# ids (L,), offsets (2,), wanted (L,) -> (L, D), however many of the subwords the offsets say are the text's.
Encode = Callable[[Tensor, Tensor, Tensor], Tensor]
# Runs a function and gives what repeats it, and where its result is then found.
Record = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]

# From a text's way in to its result's way out. For all encoders at once: torch records one graph at a time in a
# process, and those of one stream share memory.
_lock = Lock()
_asides: dict[tuple[int, int], tuple[Any, Any]] = {}  # by device and stream: where to record, and memory for it


def wants_graphs(input_ids: Tensor, wanted: Tensor, texts: int) -> bool:
    """Whether a batch is one that graphs are for, and they are asked for."""
    return (
        texts == 1
        and input_ids.is_cuda
        and 0 < max(len(input_ids), len(wanted)) <= MOST_SUBWORDS
        and graphs_are_asked_for()
        and not torch.is_grad_enabled()
        and not is_recorded()
        and not torch.is_autocast_enabled("cuda")  # which keeps converted weights for as long as it lasts alone
        and not torch.cuda.is_current_stream_capturing()
    )


def graphs_are_asked_for() -> bool:
    """Whether the environment variable asks for graphs.

    Raises:
        ValueError: it says neither yes nor no.
    """
    asked = os.environ.get(VARIABLE, "0")
    if asked not in ("", "0", "1"):
        raise ValueError(f"{VARIABLE} is {asked!r}: expected 1, or 0 or nothing to do without them")
    return asked == "1"


def record_on_cuda(run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Records what a function starts on the current device; it must wait for nothing.

    What is recorded for one stream shares memory, so it must be replayed on that stream, and its result read before
    anything else of the kind is replayed or recorded.
    """
    current = torch.cuda.current_stream()
    # One stream for all that is recorded for a stream: cuBLAS keeps tens of MB for each that it meets.
    place = torch.cuda.current_device(), current.cuda_stream
    if place not in _asides:
        _asides[place] = torch.cuda.Stream(), torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]
    aside, pool = _asides[place]
    aside.wait_stream(current)
    with torch.cuda.stream(aside):  # left again whatever goes wrong, which torch's own context does not promise
        try:
            run()  # once before, so that kernels are compiled and the libraries have their memory
        finally:
            current.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        try:
            # What torch keeps for itself is not to be of inference mode, or nobody else could record without it. Other
            # threads go on with their own work.
            with (
                torch.inference_mode(mode=False),
                torch.no_grad(),
                torch.cuda.graph(graph, pool=pool, stream=aside, capture_error_mode="thread_local"),
                torch.inference_mode(),
            ):
                out = run()
        except BaseException:
            del _asides[place]  # torch may take its memory for one that is being recorded
            raise
    current.wait_stream(aside)
    return graph.replay, out


@dataclass(frozen=True)
class _Recorded:
    """An encoder's run for texts of up to L subwords.

    Attributes:
        input_ids: (L,), where it reads a text.
        offsets: (2,), 0 and the subwords of the text.
        wanted: (L,), rows that are to be computed.
        replay: starts it.
        out: (L, D), where it writes.
        read: what else it reads and others might let go of.
    """

    input_ids: Tensor
    offsets: Tensor
    wanted: Tensor
    replay: Callable[[], None]
    out: Tensor
    read: object


class EncoderGraphs:
    """What was recorded of one encoder, by length. Safe to use from many threads.

    Args:
        record: records a function; `record_on_cuda` but in tests.
    """

    def __init__(self, record: Record = record_on_cuda) -> None:
        self._record = record
        self._state: tuple[object, ...] = ()
        self._recorded: dict[tuple[int, object], _Recorded | None] = {}  # None: there was no memory for it
        self._failed = False

    def __reduce__(self) -> tuple[type[EncoderGraphs], tuple[()]]:
        """A copy of an encoder has other weights, and records for itself."""
        return EncoderGraphs, ()

    def run(
        self,
        encode: Callable[[], tuple[Encode, object]],
        input_ids: Tensor,
        wanted: Tensor,
        state: tuple[object, ...],
    ) -> Tensor | None:
        """What the encoder gives for one text; None where it could not be recorded, or not for want of memory.

        The former is warned of, once.

        Args:
            encode: gives the encoder as it is now, where it has to be recorded, and what that reads beside its weights.
            input_ids: (N,) of the text.
            wanted: (R,) rows to compute.
            state: all that the encoder's result depends on beside the text, as `Weights.state` tells of its weights.

        Returns:
            (R, D).
        """
        length, rows = len(input_ids), len(wanted)
        bucket = -(-max(length, rows) // _BUCKET) * _BUCKET
        with _lock:
            if state != self._state:
                self._recorded.clear()
                self._state, self._failed = state, False
            if self._failed:
                return None
            with torch.inference_mode():  # always: who comes later could not write to what this mode makes
                recorded = self._find(encode, bucket, input_ids)
                if recorded is None:
                    return None
                recorded.input_ids[:length].copy_(input_ids)
                recorded.offsets[1:].fill_(length)
                recorded.wanted[:rows].copy_(wanted)
                recorded.replay()
            return recorded.out[:rows].clone()

    def _find(self, encode: Callable[[], tuple[Encode, object]], bucket: int, like: Tensor) -> _Recorded | None:
        # For the current stream: two may run at once.
        key = bucket, torch.cuda.current_stream(like.device).cuda_stream if like.is_cuda else None
        if key in self._recorded:
            return self._recorded[key]
        run, read = encode()
        input_ids, wanted = like.new_zeros(bucket), like.new_zeros(bucket)
        offsets = torch.tensor([0, bucket], device=like.device)
        try:
            with torch.cuda.device(like.device) if like.is_cuda else nullcontext():
                replay, out = self._record(lambda: run(input_ids, offsets, wanted))
        except torch.OutOfMemoryError:
            self._recorded[key] = None  # it may fit without
            return None
        except RuntimeError as error:
            self._failed = True
            warnings.warn(
                f"the encoder could not be recorded as a CUDA graph, and runs without ({error})", stacklevel=2
            )
            return None
        recorded = self._recorded[key] = _Recorded(input_ids, offsets, wanted, replay, out, read)
        return recorded


class Weights:
    """The weights of a module, to tell quickly whether they are still those that they were, and as they were.

    Args:
        known: kinds of modules inside whose results depend on their weights alone.
    """

    def __init__(self, known: frozenset[type[nn.Module]]) -> None:
        self._known = known
        self._inner: list[nn.Module] = []  # without the module itself, which is likely to hold this
        self._children: list[int] = []

    def state(self, module: nn.Module) -> tuple[object, ...] | None:
        """The same as long as modules and weights are the same; None where one inside is not known or has hooks."""
        # What is private here takes a tenth of the time of what is public.
        children = [id(child) for each in (module, *self._inner) for child in each._modules.values()]  # noqa: SLF001
        if children != self._children:
            self._inner = list(module.modules())[1:]
            self._children = [id(child) for each in module.modules() for child in each._modules.values()]  # noqa: SLF001
        if not all(type(each) in self._known and is_bare(each) for each in self._inner):
            return None
        weights: list[object] = [*self._children]
        for each in (module, *self._inner):
            for weight in each._parameters.values():
                if weight is not None:
                    weights += id(weight), weight.data_ptr(), -1 if weight.is_inference() else weight._version
        return tuple(weights)
