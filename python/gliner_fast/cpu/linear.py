"""Linear layers by whoever multiplies fastest: MKL, oneDNN or our Rust for float32 on x86 CPUs, else as torch does it.

torch sends float32 products to MKL, which was not made for every CPU. On an EPYC 7003, weights cold, base size, oneDNN
was 1.0 to 1.3 times as fast with 128 to 1,024 rows. With the few rows of one short text ours is faster than both: 2.1,
1.5 and 1.3 times as fast as torch with 16, 48 and 80 rows.

On a Xeon with AVX-512 MKL is the fastest with many rows. With few it packs weights as long as it multiplies them: there
`Linear` keeps them packed, for as much memory again. Run by run that was 1.1 to 1.4 times as fast as torch with 16
rows, 1.1 to 1.3 with 48, and 1.0 to 1.1 with 80 to 256 (both: `GLINER_FAST_BENCH_SCALE=0.3 pytest
benches/bench_linear.py`, base size). Where weights are not packed, few rows go to ours if the weights begin on a line
of the cache, as those of a mapped file seldom do.

On an EPYC 9004, AMD's with AVX-512, packed weights were faster than oneDNN: by the same bench 3.9, 1.5, 1.1, 1.1 and
1.03 times with 16, 48, 80, 128 and 256 rows, and as fast with as many as a batch has. Kept there, they make texts in
bulk 1.04 times as fast, and a text alone 1.27 times (a throw-away script, interleaved).

Layers that have their weights in whole numbers too (`whole_numbers.py`) multiply these, whatever the environment says.

On CUDA torch multiplies. In 16 bits the product takes GELU along, in its form by tanh, on sums that are not rounded
yet: 0.0005 off at most, where rounding the sum, as torch does before a GELU of its own, is as much or more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_fast import _rust
from gliner_fast.cpu.native import (
    asked_executor,
    has_avx512,
    is_float32_on_cpu,
    is_recorded,
    is_x86,
    mkl_is_fastest,
    rust_is_fastest,
    torch_must_see,
)
from gliner_fast.cpu.openmp import parallel_address
from gliner_fast.cpu.packed_weights import Packed, Reordered, readable
from gliner_fast.cpu.signal_stack import keep_signals_away
from gliner_fast.precision import cpu_features

if TYPE_CHECKING:
    from typing_extensions import Self

    from gliner_fast._rust import Int8Weights, Int16Weights, PackedWeights

    WholeWeights = Int8Weights | Int16Weights
    AnyWeights = WholeWeights | PackedWeights

Layer = TypeVar("Layer", bound=nn.Module)
Activation = Literal["none", "gelu"]
LinearExecutor = Literal["torch", "onednn", "rust"]
Asked = Literal["", LinearExecutor, "packed"]
_NAMES = (*get_args(LinearExecutor), "packed")

VARIABLE = "GLINER_FAST_LINEAR"

# Weights from which our call, some microseconds, is made up for, and rows up to which ours is then the fastest.
_FEWEST_WEIGHTS = 2**17
_MOST_ROWS = 80
# Such rows of packed weights where MKL is the fastest with many; of large layers, as many as the longest texts of most
# checkpoints have words.
_MOST_PACKED_ROWS, _MOST_OF_LARGE = 64, 384
_LARGE = 2**20
# Where it is oneDNN.
_MOST_BESIDE_ONEDNN = 1024
_LINE = 64  # bytes


def linear(
    vectors: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: Activation = "none",
    packed: AnyWeights | None = None,
) -> Tensor:
    """activation(vectors @ weight.T + bias): (..., I), (O, I), (O,) -> (..., O).

    Args:
        vectors: what goes in.
        weight: as `torch.nn.Linear` holds it.
        bias: may be left out.
        activation: of the sum; `gelu` is the exact one, by the error function, but in 16 bits on CUDA.
        packed: the same weights as `Linear.packed` gave them for these vectors, to be multiplied instead.
    """
    if packed is not None:
        return _packed_linear(vectors, packed, bias, activation)
    executor = choose_linear(vectors, weight)
    if executor == "onednn":
        return _onednn_linear(vectors, weight, bias, activation)
    if executor == "rust":
        return _native_linear(vectors, weight, bias, activation)
    return _torch_linear(vectors, weight, bias, activation)


def _torch_linear(vectors: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
    if activation == "none":
        return F.linear(vectors, weight, bias)
    if bias is not None and _product_takes_gelu(vectors, weight, bias):
        return product_with_gelu(vectors, weight, bias)
    return F.gelu(F.linear(vectors, weight, bias))


def product_with_gelu(vectors: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """gelu(vectors @ weight.T + bias) as one call, without a gradient; on CUDA GELU's form by tanh."""
    out: Tensor = torch._addmm_activation(  # noqa: SLF001  (what torch's own transformer layers call)
        bias, vectors.reshape(-1, vectors.shape[-1]), weight.t(), use_gelu=True
    )
    return out.view(*vectors.shape[:-1], len(weight))


def _product_takes_gelu(vectors: Tensor, weight: Tensor, bias: Tensor) -> bool:
    return (
        vectors.is_cuda
        and vectors.dtype in (torch.bfloat16, torch.float16)
        and vectors.dtype is weight.dtype is bias.dtype
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cuda")
        and not is_recorded()
        and asked_linear() != "torch"
    )


def _onednn_linear(vectors: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
    keep_signals_away()
    algorithm = "none" if activation == "gelu" else ""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(vectors, weight, bias, activation, [], algorithm)
    return out


def _native_linear(vectors: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
    out = _rust.linear(
        vectors.detach().reshape(-1, vectors.shape[-1]).contiguous().numpy(),
        weight.detach().numpy(),
        None if bias is None else readable(bias).numpy(),
        activation,
        torch.get_num_threads(),
        parallel_address(),
    )
    return torch.from_numpy(out).view(*vectors.shape[:-1], len(weight))


def _packed_linear(vectors: Tensor, weights: AnyWeights, bias: Tensor | None, activation: Activation) -> Tensor:
    outputs = weights.shape[0]
    out = vectors.new_empty(*vectors.shape[:-1], outputs)
    weights.apply(
        vectors.reshape(-1, vectors.shape[-1]).contiguous().numpy(),  # whose width is for the native module to check
        None if bias is None else readable(bias).numpy(),
        activation,
        out.view(-1, outputs).numpy(),
        torch.get_num_threads(),
        parallel_address(),
    )
    return out


class Linear(nn.Linear):
    """`torch.nn.Linear`, but by `linear`, and with packed weights if it pays.

    Packed weights are gone once the weights change, move, or may change, and from copies and what is pickled.

    Attributes:
        whole: the weights in whole numbers too, where `whole_numbers.quantize` put them.
        float32: the weights packed too, where a few rows were multiplied with them.
        reordered: the weights in bf16 as AMX reads them too, where there is AMX.
    """

    whole: Packed[WholeWeights] | None = None
    float32: Packed[PackedWeights] | None = None
    reordered: Reordered | None = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name)
        """(..., I) -> (..., O)."""
        return self.product(input, "none")

    def product(self, vectors: Tensor, activation: Activation) -> Tensor:
        """(..., I) -> (..., O), with an activation of the sum: who calls this has seen that nothing is added to it."""
        if vectors.is_cuda and self.whole is None and self.float32 is None and self.reordered is None:
            # None of the questions below, which take a host longer than it takes to start a product.
            return _torch_linear(vectors, self.weight, self.bias, activation)
        reordered = self._reordered_for(vectors)
        if reordered is not None:
            return _onednn_linear(vectors, reordered, self.bias, activation)
        return linear(vectors, self.weight, self.bias, activation, *self.packed(vectors))

    def _reordered_for(self, vectors: Tensor) -> Tensor | None:
        """The weights as AMX reads them, for inference in bf16; None to do without. What became stale is dropped."""
        weight, reordered = self.weight, self.reordered
        is_other = vectors.dtype is not torch.bfloat16 or vectors.device.type != "cpu"
        if reordered is None and is_other:
            return None
        pays = not (is_other or torch_must_see()) and reordering_pays(weight)
        if reordered is not None and not (pays and reordered.is_of(weight)):
            reordered = self.reordered = None
        fits = vectors.shape[-1] == weight.shape[1] and (self.bias is None or self.bias.dtype is torch.bfloat16)
        if not (pays and fits):
            return None  # what does not fit is for torch to refuse
        if reordered is None:
            reordered = self.reordered = Reordered.lay_out(weight)
        return reordered.weight

    def packed(self, vectors: Tensor, parts: int = 1) -> Sequence[AnyWeights | None]:
        """The weights packed to be multiplied with `vectors`, in so many parts by columns; None for each to do without.

        Who multiplies depends on the shapes and the CPU alone, so that a text's answer is always the same: weights are
        packed the first time that it pays. They are dropped where they are others by now, or may be soon: a gradient
        is asked for.
        """
        if is_recorded():
            return [None] * parts
        if torch.is_grad_enabled() and (self.whole is not None or self.float32 is not None):
            self.whole = self.float32 = None
        if torch_must_see() or type(vectors) is not Tensor or not is_float32_on_cpu(vectors):
            self._current(parts)  # what became stale is not kept until they are multiplied again
            return [None] * parts
        return self.packed_where(lambda: packing_pays(vectors, self.weight, parts), parts) or [None] * parts

    def packed_where(self, pays: Callable[[], bool], parts: int = 1) -> Sequence[AnyWeights] | None:
        """The weights packed, in so many parts by columns; None to do without.

        They are packed now if they were not, and dropped where the weights are others by now. That the product is one
        of inference in float32 on the CPU is for the caller to know.

        Args:
            pays: asked whether to pack weights in float32; not where `whole_numbers.quantize` has put whole numbers.
            parts: of the columns.
        """
        weight = self.weight
        whole, float32 = self._current(parts)
        if whole is not None:
            return whole.parts if len(whole.parts) == parts else None
        if not is_packable(weight) or not pays():
            return None
        if float32 is None:
            float32 = self.float32 = Packed.pack(_rust.PackedWeights, weight, parts)
        return float32.parts

    def _current(self, parts: int) -> tuple[Packed[WholeWeights] | None, Packed[PackedWeights] | None]:
        """What is packed of the weights as they are now; what is of others, or in other parts, is dropped."""
        weight = self.weight
        whole, float32 = self.whole, self.float32  # other threads may drop them meanwhile
        if whole is not None:
            followed = whole.follow(weight)
            if followed is not whole:
                whole = self.whole = followed
        if float32 is not None and (len(float32.parts) != parts or not float32.are_of(weight)):
            float32 = self.float32 = None
        return whole, float32

    def train(self, mode: bool = True) -> Self:
        """As torch's; weights that are to change are not packed any more."""
        if mode:
            self.whole = self.float32 = self.reordered = None
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """As torch's; what was packed is gone once weights have another dtype or device, wherever they go then."""
        own = self._parameters
        before = own.get("weight")
        place = None if before is None else (before.dtype, before.device)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        after = own.get("weight")
        if after is None or (after.dtype, after.device) != place:
            self.whole = self.float32 = self.reordered = None
        return self

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: all but what was packed."""
        return {name: value for name, value in self.__dict__.items() if name not in ("whole", "float32", "reordered")}


def expect_weights(module: nn.Module, name: str) -> Linear:
    """A layer that is read by its weights, and not called: `expect_layer` of a `Linear`."""
    return expect_layer(module, Linear, name)


def expect_layer(module: nn.Module, kind: type[Layer], name: str) -> Layer:
    """A layer of this class that is read by its weights, and not called.

    Raises:
        TypeError: something else has taken its place, or that of its `forward`, which would not take part.
    """
    is_patched = "forward" in module.__dict__
    if not isinstance(module, kind) or type(module).forward is not kind.forward or is_patched:
        found = f"a {type(module).__name__}" + (" with a forward of its own" if is_patched else "")
        raise TypeError(
            f"{name} is {found}: this layer is read by its weights and never called, so that an adapter around it "
            "would take no part; merge the adapter into the weights (of peft: merge_and_unload)"
        )
    return module


def take_linear(module: nn.Module) -> None:
    """Makes every `torch.nn.Linear` inside a module, though not its subclasses, a `Linear`."""
    for inner in module.modules():
        if type(inner) is nn.Linear:
            inner.__class__ = Linear


def asked_linear() -> Asked:
    """Who the environment variable says multiplies; nothing for the fastest.

    Raises:
        ValueError: it names nobody who multiplies.
    """
    return cast(Asked, asked_executor(VARIABLE, _NAMES))


def choose_linear(vectors: Tensor, weight: Tensor) -> LinearExecutor:
    """Who multiplies with weights as they lie: `torch`, but where the others can.

    Raises:
        ValueError: the environment variable names nobody who multiplies.
    """
    if not _others_can(vectors, weight):
        return "torch"
    asked = asked_linear()
    is_plain = _is_plain(vectors, weight)
    if asked == "torch" or (asked == "rust" and is_plain):
        return asked
    is_free = asked in ("", "packed")
    few = is_plain and vectors.numel() <= _MOST_ROWS * vectors.shape[-1] and weight.numel() >= _FEWEST_WEIGHTS
    # Vectors of AVX-512 fill a line of the cache, so that those of a weight that begins within one are read from two:
    # MKL, which packs them first, is then the faster.
    few = few and (weight.data_ptr() % _LINE == 0 or not mkl_is_fastest())
    if is_free and few and rust_is_fastest():
        return "rust"
    if is_free and mkl_is_fastest():
        return "torch"
    is_enabled = cast(bool, torch.backends.mkldnn.enabled)
    return "onednn" if is_enabled and _has_onednn() else "torch"


def packing_pays(vectors: Tensor, weight: Tensor, parts: int = 1) -> bool:
    """Whether weights that are kept packed, in so many parts, multiply these vectors the fastest.

    Raises:
        ValueError: the environment variable names nobody who multiplies.
    """
    if not (_others_can(vectors, weight) and _is_plain(vectors, weight)):
        return False
    asked = asked_linear()
    if asked:
        return asked == "packed"
    numbers = weight.numel() // parts
    if not mkl_is_fastest():
        most = _MOST_BESIDE_ONEDNN
    elif numbers >= _LARGE:
        most = _MOST_OF_LARGE
    else:
        most = _MOST_PACKED_ROWS
    is_fast = numbers >= _FEWEST_WEIGHTS and vectors.numel() <= most * vectors.shape[-1]
    return is_fast and has_avx512() and rust_is_fastest()


def reordering_pays(weight: Tensor) -> bool:
    """Whether a weight is worth being kept as AMX reads it as well.

    Raises:
        ValueError: the environment variable names nobody who multiplies.
    """
    return (
        type(weight) is nn.Parameter
        and not weight.is_inference()  # such a one does not tell when it is changed
        and weight.dtype is torch.bfloat16
        and weight.device.type == "cpu"
        and weight.is_contiguous()
        and weight.numel() >= _FEWEST_WEIGHTS
        and asked_linear() in ("", "packed")
        and bool(torch.backends.mkldnn.enabled)
        and has_amx()
    )


@cache
def has_amx() -> bool:
    """Whether the CPU multiplies bf16 in tiles, and oneDNN is there to have it do so."""
    return "amx_bf16" in cpu_features() and _has_onednn()


def is_packable(weight: Tensor) -> bool:
    """Whether a weight stays where it is, to be compared with its packed copy: one computed from others does not."""
    return (
        type(weight) is nn.Parameter
        and not weight.is_inference()  # such a one does not tell when it is changed
        and is_float32_on_cpu(weight)
        and weight.is_contiguous()
        and weight.data_ptr() % 4 == 0
    )


def _others_can(vectors: Tensor, weight: Tensor) -> bool:
    """Whether others than torch can multiply: float32 on a CPU, with no gradient asked for and no autocast.

    None of them has a gradient, and under autocast torch chooses the precision. Nor has oneDNN a fast way with a weight
    that is a part of another's rows: it was a hundred times slower than torch.
    """
    return not torch_must_see() and (
        is_float32_on_cpu(vectors) and is_float32_on_cpu(weight) and weight.is_contiguous() and weight.numel() > 0
    )


def _is_plain(vectors: Tensor, weight: Tensor) -> bool:
    """Whether the native module can read them."""
    return type(vectors) is Tensor and type(weight) in (Tensor, nn.Parameter) and weight.data_ptr() % 4 == 0


@cache
def _has_onednn() -> bool:
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return is_x86() and has_onednn and hasattr(torch.ops.mkldnn, "_linear_pointwise")
