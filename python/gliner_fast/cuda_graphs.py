"""One text at a time on CUDA: the encoder's kernels, recorded once for a length and started by one call (CUDA graphs).

A short text keeps a card busy for less time than the host takes to start its hundred kernels one after another. What is
recorded reads the same memory in each replay, so a text is copied there, and lengths are rounded up to buckets:
subwords behind the text belong to no text, and nobody reads what becomes of them. Hooks of the layers are called while
they are recorded, and not again.

Not measured on a card yet, so that `GLINER_FAST_CUDA_GRAPHS=1` has to ask for it.
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

from gliner_fast.native import is_recorded

VARIABLE = "GLINER_FAST_CUDA_GRAPHS"
MOST_SUBWORDS = 512  # from there on the card has enough to do
_BUCKET = 32  # a card takes no longer for these more subwords; each bucket takes some MB

# ids (L,), offsets (2,), wanted (L,) -> (L, D), however many of the subwords the offsets say are the text's.
Encode = Callable[[Tensor, Tensor, Tensor], Tensor]
# Runs a function and gives what repeats it, and where its result is then found.
Record = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]


def wants_graphs(input_ids: Tensor, texts: int) -> bool:
    """Whether a batch is one that graphs are for, and they are asked for."""
    return (
        texts == 1
        and input_ids.is_cuda
        and 0 < len(input_ids) <= MOST_SUBWORDS
        and os.environ.get(VARIABLE) == "1"
        and not torch.is_grad_enabled()
        and not is_recorded()
        and not torch.cuda.is_current_stream_capturing()
    )


def record_on_cuda(run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Records what a function starts on the current device; it must wait for nothing."""
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        run()  # once before, so that kernels are compiled and the libraries have their memory
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads go on with their own work
        out = run()
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
        encode: what was recorded, for what it refers to.
    """

    input_ids: Tensor
    offsets: Tensor
    wanted: Tensor
    replay: Callable[[], None]
    out: Tensor
    encode: Encode


class EncoderGraphs:
    """What was recorded of one encoder, by length. Safe to use from many threads.

    Args:
        record: records a function; `record_on_cuda` but in tests.
    """

    def __init__(self, record: Record = record_on_cuda) -> None:
        self._record = record
        self._lock = Lock()
        self._state: tuple[object, ...] = ()
        self._recorded: dict[tuple[int, object], _Recorded] = {}
        self._failed = False

    def run(
        self, encode: Callable[[], Encode], input_ids: Tensor, wanted: Tensor, state: tuple[object, ...]
    ) -> Tensor | None:
        """What the encoder gives for one text; None where it could not be recorded, which is warned of once.

        Args:
            encode: gives the encoder as it is now, where it has to be recorded; what that refers to is kept alive,
                since what is recorded reads it.
            input_ids: (N,) of the text.
            wanted: (R,) rows to compute.
            state: all that the encoder's result depends on beside the text, as `state_of` tells of its weights.

        Returns:
            (R, D).
        """
        length, rows = len(input_ids), len(wanted)
        bucket = -(-max(length, rows) // _BUCKET) * _BUCKET
        with self._lock:  # what is copied in is the text of this thread until its result is copied out
            if state != self._state:
                self._recorded.clear()
                self._state, self._failed = state, False
            if self._failed:
                return None
            key = bucket, _stream(input_ids)
            recorded = self._recorded.get(key)
            if recorded is None:
                try:
                    recorded = self._recorded[key] = self._begin(encode(), bucket, input_ids)
                except RuntimeError as error:
                    self._failed = True
                    warnings.warn(
                        f"the encoder could not be recorded as a CUDA graph, and runs without ({error})", stacklevel=2
                    )
                    return None
            recorded.input_ids[:length].copy_(input_ids)
            recorded.offsets[1:].fill_(length)
            recorded.wanted[:rows].copy_(wanted)
            recorded.replay()
            return recorded.out[:rows].clone()

    def _begin(self, encode: Encode, bucket: int, like: Tensor) -> _Recorded:
        input_ids, wanted = like.new_zeros(bucket), like.new_zeros(bucket)
        offsets = torch.tensor([0, bucket], device=like.device)
        with torch.cuda.device(like.device) if like.is_cuda else nullcontext():
            replay, out = self._record(lambda: encode(input_ids, offsets, wanted))
        return _Recorded(input_ids, offsets, wanted, replay, out, encode)

    def __deepcopy__(self, memo: Any) -> EncoderGraphs:
        return type(self)(self._record)  # a copy of the encoder has other weights

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._record,)


def state_of(module: nn.Module) -> tuple[object, ...]:
    """Tells whether a module's weights are still those that they were, and as they were."""
    return tuple(
        (id(weight), weight.data_ptr(), -1 if weight.is_inference() else weight._version)
        for own in module.modules()
        for weight in own.parameters(recurse=False)
    )


def _stream(tensor: Tensor) -> object:
    """The stream that is current: what is recorded for one must not run on two at once."""
    return torch.cuda.current_stream(tensor.device).cuda_stream if tensor.is_cuda else None
