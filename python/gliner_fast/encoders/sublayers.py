"""What follows the attention in a layer of BERT's, ModernBERT's or T5's kind, in one native call with packed weights.

Linear layer, residual and norm, then two linear layers with a GELU between them, residual and norm: seven calls of
torch, which with one short text take longer to find their arguments than some of them to compute. The weights went
through the caches meanwhile, and left nothing of the interpreter there.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Literal, TypeGuard, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_fast import _rust
from gliner_fast.cpu.linear import Linear, is_packable, packing_pays
from gliner_fast.cpu.native import is_bare, is_float32_on_cpu, rust_is_fastest, torch_must_see
from gliner_fast.cpu.openmp import parallel_address
from gliner_fast.cpu.packed_weights import numbers_of, readable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    NativeNorm = tuple[NDArray[np.float32], NDArray[np.float32] | None, float, bool]
    NativeDense = tuple[_rust.Int8Weights | _rust.Int16Weights | _rust.PackedWeights, NDArray[np.float32] | None]


def finish_layer(
    attended: Tensor,
    hidden: Tensor,
    *,
    attention_output: nn.Module,
    attention_norm: nn.Module,
    intermediate: nn.Module,
    output: nn.Module,
    output_norm: nn.Module,
) -> Tensor | None:
    """What becomes of the rows, (N, D), or None where the modules have to be called one after another.

    One call it is for inference in float32 on the CPU, where all modules are ours or torch's own with nothing added,
    and their weights are in whole numbers or `packing_pays` for the intermediate layer: for a model as it is, the
    shapes and the CPU decide.

    Args:
        attended: what the attention gives, (N, A).
        hidden: what came into the layer, (N, D).
        attention_output: of what the attention gives, (N, A) -> (N, D).
        attention_norm: of that and the residual.
        intermediate: (N, D) -> (N, F); a GELU follows, whether it is the module's own or not.
        output: (N, F) -> (N, D).
        output_norm: of that and the residual.
    """
    norms = attention_norm, output_norm
    parts = _packed_parts(attended, hidden, (attention_output, intermediate, output), norms)
    if parts is None:
        return None
    (first, second, third), (first_norm, second_norm) = parts
    out = hidden.new_empty(hidden.shape)
    _rust.sublayers(
        readable(attended).numpy(),
        readable(hidden).numpy(),
        first,
        first_norm,
        second,
        "gelu",
        third,
        second_norm,
        out.numpy(),
        torch.get_num_threads(),
        parallel_address(),
    )
    return out


def finish_gated_layer(
    attended: Tensor,
    hidden: Tensor,
    *,
    attention_output: nn.Module,
    norm: nn.Module,
    intermediate: nn.Module,
    output: nn.Module,
    gates: nn.Module | None = None,
    activation: Literal["gelu", "gelu_tanh"] = "gelu",
) -> Tensor | None:
    """The same for a layer of ModernBERT's or T5's kind, whose norm comes first, and whose activation is a gate's.

    Args:
        attended: what the attention gives, (N, A).
        hidden: what came into the layer, (N, D).
        attention_output: of what the attention gives, (N, A) -> (N, D).
        norm: of that and the residual together.
        intermediate: (N, D) -> (N, 2F); the activation of the first half follows, times the second. With `gates`
            (N, D) -> (N, F), all of it activated.
        output: (N, F) -> (N, D).
        gates: (N, D) -> (N, F), what that is multiplied with; None: the intermediate layer gives it too.
        activation: whether it is a module's own or not.
    """
    linears = (attention_output, intermediate, output) + (() if gates is None else (gates,))
    parts = _packed_parts(attended, hidden, linears, (norm,))
    if parts is None:
        return None
    (first, second, third, *fourth), (own_norm,) = parts
    out = hidden.new_empty(hidden.shape)
    _rust.gated_sublayers(
        readable(attended).numpy(),
        readable(hidden).numpy(),
        first,
        own_norm,
        second,
        fourth[0] if fourth else None,
        activation,
        third,
        out.numpy(),
        torch.get_num_threads(),
        parallel_address(),
    )
    return out


def _packed_parts(
    attended: Tensor, hidden: Tensor, linears: Sequence[nn.Module], norms: Sequence[nn.Module]
) -> tuple[list[NativeDense], list[NativeNorm]] | None:
    """What the native call takes of the modules; None where they are to be called themselves.

    Args:
        attended: as for `finish_layer`.
        hidden: as for `finish_layer`.
        linears: of what the attention gives, the intermediate one, the one behind it, and others.
        norms: all that there are.
    """
    if not (_are_rows(attended) and _are_rows(hidden)) or torch_must_see():
        return None
    ours = [linear for linear in linears if _is_ours(linear)]
    if len(ours) != len(linears):
        return None
    intermediate = ours[1]
    pays = cache(lambda: packing_pays(hidden, intermediate.weight))
    if intermediate.whole is None and not pays():
        return None
    native_norms = [own for own in map(_native_norm, norms) if own is not None]
    if len(native_norms) != len(norms) or not all(map(_is_readable, ours)):
        return None
    dense = [own for own in (_native_dense(linear, pays) for linear in ours) if own is not None]
    return None if len(dense) != len(ours) else (dense, native_norms)


def _are_rows(rows: Tensor) -> bool:
    return type(rows) is Tensor and rows.dim() == 2 and is_float32_on_cpu(rows)


def _is_ours(module: nn.Module) -> TypeGuard[Linear]:
    return type(module) is Linear and is_bare(module)


def _is_readable(layer: Linear) -> bool:
    has_weights = layer.whole is not None or is_packable(layer.weight)
    return has_weights and (layer.bias is None or is_float32_on_cpu(layer.bias))


def _native_dense(layer: Linear, pays: Callable[[], bool]) -> NativeDense | None:
    packed = layer.packed_where(pays)
    if packed is None or len(packed) != 1:
        return None
    return packed[0], None if layer.bias is None else readable(layer.bias).numpy()


def _is_t5s(norm: nn.Module) -> bool:
    return type(norm).__name__ == "T5LayerNorm" and type(norm).__module__.startswith("transformers.")


def _native_norm(norm: nn.Module) -> NativeNorm | None:
    is_t5s = _is_t5s(norm)
    if not (type(norm) is nn.LayerNorm or is_t5s) or not is_bare(norm):
        return None
    weight = cast("Tensor | None", norm.weight)
    bias = None if is_t5s else cast("Tensor | None", norm.bias)
    epsilon = cast(float, norm.variance_epsilon if is_t5s else norm.eps)
    if weight is None or weight.dim() != 1 or not is_float32_on_cpu(weight):
        return None
    if bias is None:
        return readable(weight).numpy(), None, epsilon, not is_t5s
    return (readable(weight).numpy(), readable(bias).numpy(), epsilon, True) if is_float32_on_cpu(bias) else None


def norm_rows(rows: Tensor, norm: nn.Module) -> Tensor:
    """norm(rows), (N, D) -> (N, D); T5's, which torch has no fast way for, in one pass where it can be."""
    is_t5s = _is_t5s(norm) and is_bare(norm) and not torch_must_see()
    if is_t5s and _native_pays(rows) and norm.weight.dtype is rows.dtype:
        weight = readable(norm.weight.float()).numpy()
        native = weight, None, cast(float, norm.variance_epsilon), False
        out = torch.empty_like(rows)
        _rust.norm_rows(numbers_of(rows), native, numbers_of(out), torch.get_num_threads(), parallel_address())
        return out
    normed: Tensor = norm(rows)
    return normed


def gate(rows: Tensor, gates: Tensor) -> Tensor:
    """GELU by tanh of rows, times their gates, (N, F) twice -> (N, F); in one pass where it can be."""
    if _native_pays(rows) and _native_pays(gates) and rows.dtype is gates.dtype and rows.shape == gates.shape:
        out = torch.empty_like(rows)
        _rust.gate(
            numbers_of(rows),
            numbers_of(gates),
            "gelu_tanh",
            numbers_of(out),
            torch.get_num_threads(),
            parallel_address(),
        )
        return out
    return F.gelu(rows, approximate="tanh") * gates


def _native_pays(rows: Tensor) -> bool:
    is_taken = rows.device.type == "cpu" and rows.dtype in (torch.float32, torch.bfloat16)
    is_plain = type(rows) is Tensor and rows.dim() == 2 and rows.is_contiguous()
    return is_taken and is_plain and not torch_must_see() and rust_is_fastest()
