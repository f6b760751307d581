"""Linear layers by whoever multiplies fastest: MKL, oneDNN or our Rust for float32 on x86 CPUs, else as torch does it.

torch sends float32 products to MKL, which was not made for every CPU. On an EPYC 7003, weights cold, base size, oneDNN
was 1.0 to 1.3 times as fast with 128 to 1,024 rows. With the few rows of one short text ours is faster than both: 2.1,
1.5 and 1.3 times as fast as torch with 16, 48 and 80 rows (`GLINER_FAST_BENCH_SCALE=0.3 pytest
benches/bench_linear.py`). On a Xeon with AVX-512 MKL keeps what is more, and few rows go to ours where weights begin on
a line of the cache, as those of a mapped file seldom do.
The weights stay where and as they are.

Layers that have their weights in whole numbers too (`int16.py`) multiply these, whatever the environment says.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_fast import _rust
from gliner_fast.native import is_recorded, is_x86, mkl_is_fastest, rust_is_fastest, torch_must_see
from gliner_fast.openmp import parallel_address

if TYPE_CHECKING:
    from typing_extensions import Self

    from gliner_fast._rust import Int16Weights

Activation = Literal["none", "gelu"]
LinearExecutor = Literal["torch", "onednn", "rust"]

VARIABLE = "GLINER_FAST_LINEAR"

# Rows up to which ours is the fastest, and weights from which its call, some microseconds, is made up for.
_MOST_ROWS = 80
_FEWEST_WEIGHTS = 2**17
_LINE = 64  # bytes


def linear(
    vectors: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: Activation = "none",
    int16: Int16Weights | None = None,
) -> Tensor:
    """activation(vectors @ weight.T + bias): (..., I), (O, I), (O,) -> (..., O).

    Args:
        vectors: what goes in.
        weight: as `torch.nn.Linear` holds it.
        bias: may be left out.
        activation: of the sum; `gelu` is the exact one, by the error function.
        int16: the same weights in whole numbers, to be multiplied instead wherever they can be.
    """
    if int16 is not None and not torch_must_see() and vectors.dtype is torch.float32 and vectors.device.type == "cpu":
        return _int16_linear(vectors, int16, bias, activation)
    executor = choose_linear(vectors, weight)
    if executor == "onednn":
        algorithm = "none" if activation == "gelu" else ""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(vectors, weight, bias, activation, [], algorithm)
        return out
    if executor == "rust":
        return _native_linear(vectors, weight, bias, activation)
    out = F.linear(vectors, weight, bias)
    return F.gelu(out) if activation == "gelu" else out


def _native_linear(vectors: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
    out = _rust.linear(
        vectors.detach().reshape(-1, vectors.shape[-1]).contiguous().numpy(),
        weight.detach().numpy(),
        None if bias is None else bias.detach().clone().numpy(),  # aligned, wherever in a file it lies
        activation,
        torch.get_num_threads(),
        parallel_address(),
    )
    return torch.from_numpy(out).view(*vectors.shape[:-1], len(weight))


def _int16_linear(vectors: Tensor, weights: Int16Weights, bias: Tensor | None, activation: Activation) -> Tensor:
    outputs, inputs = weights.shape
    out = vectors.new_empty(*vectors.shape[:-1], outputs)
    weights.apply(
        vectors.reshape(-1, inputs).contiguous().numpy(),
        None if bias is None else bias.clone().numpy(),  # aligned, wherever in a file it lies
        activation,
        out.view(-1, outputs).numpy(),
        torch.get_num_threads(),
        parallel_address(),
    )
    return out


@dataclass(frozen=True)
class WholeNumbers:
    """Weights in whole numbers of 16 bits, and of which weights.

    Attributes:
        parts: the columns of the weights, in one part or more.
        stamp: tells when the weights are others than those that were packed.
    """

    parts: tuple[Int16Weights, ...]
    stamp: tuple[object, ...]

    @classmethod
    def pack(cls, weight: Tensor, parts: int = 1) -> WholeNumbers:
        """(O, I) float32 on the CPU, in equal parts of the columns."""
        own = [part.detach().clone(memory_format=torch.contiguous_format) for part in weight.chunk(parts, dim=1)]
        return cls(tuple(_rust.Int16Weights(part.numpy()) for part in own), _stamp(weight))

    def are_of(self, weight: Tensor) -> bool:
        """Whether these are the weights as they are now."""
        return self.stamp == _stamp(weight)


def _stamp(weight: Tensor) -> tuple[object, ...]:
    return weight.data_ptr(), weight.dtype, weight.device, -1 if weight.is_inference() else weight._version


class Linear(nn.Linear):
    """`torch.nn.Linear`, but by `linear`, and with an activation if it should have one.

    Attributes:
        activation: of the sum.
        int16: the weights in whole numbers too, where `int16.quantize` put them. They are gone once the weights change,
            move, or may change, and from copies and what is pickled.
    """

    activation: Activation = "none"
    int16: WholeNumbers | None = None

    def __init__(self, inputs: int, outputs: int, activation: Activation = "none") -> None:
        super().__init__(inputs, outputs)
        self.activation = activation

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name)
        """(..., I) -> (..., O)."""
        return linear(input, self.weight, self.bias, self.activation, *self.whole_numbers(1))

    def whole_numbers(self, parts: int) -> Sequence[Int16Weights | None]:
        """The weights in whole numbers, in so many parts by columns; None for each where there are none of them.

        Drops them where the weights are others by now, or may be soon: a gradient is asked for.
        """
        packed = self.int16
        if packed is not None and (torch.is_grad_enabled() or not packed.are_of(self.weight)):
            packed = self.int16 = None
        return [None] * parts if packed is None or len(packed.parts) != parts else packed.parts

    def train(self, mode: bool = True) -> Self:
        """As torch's; weights that are to change stand in no whole numbers any more."""
        if mode:
            self.int16 = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: all but the whole numbers."""
        return {name: value for name, value in self.__dict__.items() if name != "int16"}


def take_linear(module: nn.Module) -> None:
    """Makes every `torch.nn.Linear` inside a module, though not its subclasses, a `Linear`."""
    for inner in module.modules():
        if type(inner) is nn.Linear:
            inner.__class__ = Linear


def choose_linear(vectors: Tensor, weight: Tensor) -> LinearExecutor:
    """Who multiplies: `torch`, but for float32 on a CPU with no gradient asked for, which the others have none of.

    Nor has oneDNN a fast way with a weight that is a part of another's rows: it was a hundred times slower than torch.

    Raises:
        ValueError: the environment variable names nobody who multiplies.
    """
    if is_recorded():
        return "torch"
    if not (
        vectors.device.type == weight.device.type == "cpu"
        and vectors.dtype == weight.dtype == torch.float32
        and not torch.is_grad_enabled()
        and weight.is_contiguous()
        and weight.numel() > 0
    ):
        return "torch"
    asked = _asked(os.environ.get(VARIABLE, ""))
    is_plain = type(vectors) is Tensor and type(weight) in (Tensor, nn.Parameter) and weight.data_ptr() % 4 == 0
    if asked == "torch" or (asked == "rust" and is_plain):
        return cast(LinearExecutor, asked)
    few = vectors.numel() <= _MOST_ROWS * vectors.shape[-1] and weight.numel() >= _FEWEST_WEIGHTS
    # Vectors of AVX-512 fill a line of the cache, so that those of a weight that begins within one are read from two:
    # MKL, which packs them first, is then the faster.
    few = few and is_plain and (weight.data_ptr() % _LINE == 0 or not mkl_is_fastest())
    if not asked and few and rust_is_fastest():
        return "rust"
    if not asked and mkl_is_fastest():
        return "torch"
    is_enabled = cast(bool, torch.backends.mkldnn.enabled)
    return "onednn" if is_enabled and _has_onednn() else "torch"


@cache
def _asked(name: str) -> str:
    if name and name not in get_args(LinearExecutor):
        names = ", ".join(get_args(LinearExecutor))
        raise ValueError(f"{VARIABLE} is {name!r}: expected one of {names}, or leave it unset for the fastest")
    return name


@cache
def _has_onednn() -> bool:
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return is_x86() and has_onednn and hasattr(torch.ops.mkldnn, "_linear_pointwise")
