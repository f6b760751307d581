"""What follows the attention in a layer of BERT's kind, in one native call where its weights are packed.

Linear layer, residual and norm, then two linear layers with a GELU between them, residual and norm: seven calls of
torch, which with one short text take longer to find their arguments than some of them to compute. The weights went
through the caches meanwhile, and left nothing of the interpreter there.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, nn

from gliner_fast import _rust
from gliner_fast.cpu.linear import Linear, is_packable, packing_pays
from gliner_fast.cpu.native import is_bare, is_float32_on_cpu, torch_must_see
from gliner_fast.cpu.openmp import parallel_address
from gliner_fast.cpu.packed_weights import readable

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    NativeNorm = tuple[NDArray[np.float32], NDArray[np.float32], float]
    NativeDense = tuple[_rust.Int16Weights | _rust.PackedWeights, NDArray[np.float32] | None]


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
    if not (_are_rows(attended) and _are_rows(hidden)) or torch_must_see():
        return None
    if not (_is_ours(attention_output) and _is_ours(intermediate) and _is_ours(output)):
        return None
    pays = cache(lambda: packing_pays(hidden, intermediate.weight))
    if intermediate.int16 is None and not pays():
        return None
    norms = _native_norm(attention_norm), _native_norm(output_norm)
    linears = (attention_output, intermediate, output)
    if norms[0] is None or norms[1] is None or not all(map(_is_readable, linears)):
        return None
    dense = [_native_dense(linear, pays) for linear in linears]
    if dense[0] is None or dense[1] is None or dense[2] is None:
        return None
    out = hidden.new_empty(hidden.shape)
    _rust.sublayers(
        readable(attended).numpy(),
        readable(hidden).numpy(),
        dense[0],
        norms[0],
        dense[1],
        "gelu",
        dense[2],
        norms[1],
        out.numpy(),
        torch.get_num_threads(),
        parallel_address(),
    )
    return out


def _are_rows(rows: Tensor) -> bool:
    return type(rows) is Tensor and rows.dim() == 2 and is_float32_on_cpu(rows)


def _is_ours(module: nn.Module) -> TypeGuard[Linear]:
    return type(module) is Linear and is_bare(module)


def _is_readable(layer: Linear) -> bool:
    has_weights = layer.int16 is not None or is_packable(layer.weight)
    return has_weights and (layer.bias is None or is_float32_on_cpu(layer.bias))


def _native_dense(layer: Linear, pays: Callable[[], bool]) -> NativeDense | None:
    packed = layer.packed_where(pays)
    if packed is None or len(packed) != 1:
        return None
    return packed[0], None if layer.bias is None else readable(layer.bias).numpy()


def _native_norm(norm: nn.Module) -> NativeNorm | None:
    if type(norm) is not nn.LayerNorm or not is_bare(norm):
        return None
    weight, bias = norm.weight, norm.bias
    if (
        weight is None
        or bias is None
        or weight.dim() != 1
        or not (is_float32_on_cpu(weight) and is_float32_on_cpu(bias))
    ):
        return None
    return readable(weight).numpy(), readable(bias).numpy(), norm.eps
