"""A layer's weights a second time, as the native module multiplies them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gliner_fast import _rust

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

Kind = TypeVar("Kind", bound="_rust.Int8Weights | _rust.Int16Weights | _rust.PackedWeights")

Stamp = tuple[object, ...]


# Numbers of a tensor that are looked at: a prime, so that they stand in other rows and columns. Few, since each comes
# from a line of memory that nothing else reads: sixty of each matrix took a tenth of a lone short text's time in int16,
# these a twentieth (a throw-away script).
_SAMPLED = 7
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Sample:
    """Some numbers of weights, where they lie and as they were: they tell of writes behind torch's back.

    Such writes go by way of `.data`, or change tensors that were made under `torch.inference_mode`. One that leaves
    most numbers as they are, such as of a few rows or by a mask that prunes, may go unseen.

    Attributes:
        places: the bits of some numbers of each, in the weights' own memory.
        bits: the same as they were.
    """

    places: tuple[NDArray[np.integer], ...]
    bits: tuple[bytes, ...]

    @classmethod
    def take(cls, weights: Iterable[Tensor]) -> Self:
        """Of those weights that lie on the CPU."""
        lines = [_line(own.detach()) for own in weights if own.device.type == "cpu"]
        places = tuple(
            own.view(_BITS[own.element_size()])[:: max(1, len(own) // _SAMPLED) | 1].numpy()
            for own in lines
            if len(own)
        )
        return cls(places, tuple(own.tobytes() for own in places))

    def is_as_it_was(self) -> bool:
        """Whether none of the numbers has changed."""
        return all(own.tobytes() == bits for own, bits in zip(self.places, self.bits, strict=True))


def _line(weight: Tensor) -> Tensor:
    """Numbers of a tensor where they lie: all of them, or a diagonal of a matrix that is not in one piece by rows."""
    if weight.is_contiguous():
        return weight.view(-1)
    while weight.dim() > 1:
        weight = weight.diagonal()
    return weight


@dataclass(frozen=True)
class Packed(Generic[Kind]):
    """Packed weights, and of which weights.

    Attributes:
        parts: the columns of the weights, in one part or more.
        stamp: tells when the weights are others than those that were packed.
        of: those weights where they lie, so that no others come to lie there.
        sample: some of their numbers; whole numbers do not tell which they were made of.
        checksum: of all of them, for the same reason; None where they are packed again where they may be others.
    """

    parts: tuple[Kind, ...]
    stamp: Stamp
    of: NDArray[np.float32]
    sample: Sample
    checksum: int | None = None

    @classmethod
    def pack(cls, kind: type[Kind], weight: Tensor, parts: int = 1) -> Self:
        """(O, I) float32 on the CPU, in equal parts of the columns."""
        stamp = stamp_of(weight)  # a change while they are packed makes it another
        columns = [readable(part) for part in weight.detach().chunk(parts, dim=1)]
        packed = tuple(kind(part.numpy()) for part in columns)
        if kind is _rust.PackedWeights:
            return cls(packed, stamp, weight.detach().numpy(), Sample.take([]))
        return cls(packed, stamp, weight.detach().numpy(), Sample.take([weight]), _checksum(weight))

    def are_of(self, weight: Tensor) -> bool:
        """Whether these are the weights as they are now.

        Weights that were written to behind torch's back say so by some numbers of each matrix, so that a change of a
        few others goes unseen (`Sample`).
        """
        if self.stamp != stamp_of(weight) or not self.sample.is_as_it_was():
            return False
        first = 0
        for part in self.parts:
            if isinstance(part, _rust.PackedWeights) and not part.resembles(self.of, first):
                return False
            first += part.shape[1]
        return True

    def follow(self, weight: Tensor) -> Self | None:
        """These, or as many for the same numbers at another address; None where the weights are others by now.

        To share weights among processes, as to send a model to one that is spawned does, moves them.
        """
        if self.are_of(weight):
            return self
        stamp = stamp_of(weight)
        # The old place is not looked at: it may be somebody else's by now.
        if self.checksum is None or stamp[1:] != self.stamp[1:] or stamp == self.stamp:
            return None
        moved = replace(self, stamp=stamp, of=weight.detach().numpy(), sample=Sample.take([weight]))
        return moved if _checksum(weight) == self.checksum else None


def _checksum(weight: Tensor) -> int:
    """Of all numbers of weights on the CPU; it takes a third of the time that packing does."""
    return zlib.crc32(np.ascontiguousarray(weight.detach().numpy()).data)


# Rows that oneDNN is told to expect; with 512 those of one text are as fast as with fewer, and many nearly so.
_EXPECTED_ROWS = 512


@dataclass(frozen=True)
class Reordered:
    """Weights in bf16 as AMX reads them: oneDNN would lay them out so for each product.

    Attributes:
        weight: (O, I), in a layout that oneDNN alone reads.
        stamp: tells when the weights are others than those that were laid out.
        of: those weights where they lie, so that no others come to lie there.
        sample: some of their numbers.
    """

    weight: Tensor
    stamp: Stamp
    of: Tensor
    sample: Sample

    @classmethod
    def lay_out(cls, weight: Tensor) -> Self:
        """(O, I) bf16 on the CPU."""
        stamp, own = stamp_of(weight), weight.detach()
        with torch.inference_mode(mode=False), torch.no_grad():
            laid_out = torch.ops.mkldnn._reorder_linear_weight(own, _EXPECTED_ROWS)  # noqa: SLF001
            return cls(laid_out, stamp, own, Sample.take([own]))

    def is_of(self, weight: Tensor) -> bool:
        """Whether these are the weights as they are now; a change behind torch's back may go unseen (`Sample`)."""
        return self.stamp == stamp_of(weight) and self.sample.is_as_it_was()


def stamp_of(weight: Tensor) -> Stamp:
    """What is another once a weight was moved, or changed by way of torch."""
    return weight.data_ptr(), weight.shape, weight.stride(), weight.dtype, weight.device, version_of(weight)


def version_of(weight: Tensor) -> int:
    """How often torch has changed a weight in place; -1 for one of `torch.inference_mode`, which is not counted."""
    return -1 if weight.is_inference() else weight._version


def readable(tensor: Tensor) -> Tensor:
    """The same numbers where the native module can read them: where in a file they lie is up to the file."""
    tensor = tensor.detach()
    is_readable = tensor.is_contiguous() and tensor.data_ptr() % tensor.element_size() == 0
    return tensor if is_readable else tensor.clone(memory_format=torch.contiguous_format)


def numbers_of(tensor: Tensor) -> NDArray[Any]:
    """As the native module takes them: contiguous, and bf16, which numpy does not know, by its bits."""
    tensor = readable(tensor)
    return (tensor.view(torch.uint16) if tensor.dtype is torch.bfloat16 else tensor).numpy()
