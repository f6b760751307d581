"""What follows the attention in a layer of BERT's kind, in one native call where its weights are packed.

Linear layer, residual and norm, then two linear layers with a GELU between them, residual and norm: seven calls of
torch, which with one short text take longer to find their arguments than some of them to compute. The weights went
through the caches meanwhile, and left nothing of the interpreter there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, nn

from gliner_fast import _rust
from gliner_fast.linear import Linear, packing_pays
from gliner_fast.native import torch_must_see
from gliner_fast.openmp import parallel_address
from gliner_fast.packed_weights import readable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    NativeNorm = tuple[NDArray[np.float32], NDArray[np.float32], float]
    NativeDense = tuple[_rust.Int16Weights | _rust.PackedWeights, NDArray[np.float32] | None]


@dataclass(frozen=True)
class Sublayers:
    """A layer's modules but for those that go into its attention; others may have taken the place of ours.

    Attributes:
        attention_output: of what the attention gives.
        attention_norm: of that and the residual.
        intermediate: to the inner width, with a GELU after it.
        output: back to the width of the layer.
        output_norm: of that and the residual.
    """

    attention_output: nn.Module
    attention_norm: nn.Module
    intermediate: nn.Module
    output: nn.Module
    output_norm: nn.Module

    def apply(self, attended: Tensor, hidden: Tensor) -> Tensor | None:
        """What becomes of the rows, (N, D), or None where the modules have to be called one after another.

        That depends on the shapes, the modules and the CPU alone: with weights in whole numbers, and where
        `packing_pays` for the intermediate layer.

        Args:
            attended: what the attention gives, (N, E).
            hidden: what came into the layer, (N, D).
        """
        if torch_must_see() or not (_is_plain(attended) and _is_plain(hidden)):
            return None
        attention_output, intermediate, output = self.attention_output, self.intermediate, self.output
        if not (_is_ours(attention_output) and _is_ours(intermediate) and _is_ours(output)):
            return None
        pays = cache(lambda: packing_pays(hidden, intermediate.weight))
        if intermediate.int16 is None and not pays():
            return None
        norms = _native_norm(self.attention_norm), _native_norm(self.output_norm)
        if norms[0] is None or norms[1] is None:
            return None
        layers = [_native_dense(layer, pays) for layer in (attention_output, intermediate, output)]
        if layers[0] is None or layers[1] is None or layers[2] is None:
            return None
        out = hidden.new_empty(hidden.shape)
        _rust.sublayers(
            attended.contiguous().numpy(),
            hidden.contiguous().numpy(),
            layers[0],
            norms[0],
            layers[1],
            "gelu",
            layers[2],
            norms[1],
            out.numpy(),
            torch.get_num_threads(),
            parallel_address(),
        )
        return out


def _is_plain(rows: Tensor) -> bool:
    return type(rows) is Tensor and rows.dim() == 2 and _is_native(rows)


def _is_native(tensor: Tensor) -> bool:
    return tensor.dtype is torch.float32 and tensor.device.type == "cpu"


def _is_ours(module: nn.Module) -> TypeGuard[Linear]:
    """Whether to call it is to multiply and nothing else."""
    return type(module) is Linear and _is_bare(module)


def _is_bare(module: nn.Module) -> bool:
    hooks = module._forward_hooks, module._forward_pre_hooks  # noqa: SLF001  (torch tells of them in no other way)
    return not (module.training or any(hooks))


def _native_dense(layer: Linear, pays: Callable[[], bool]) -> NativeDense | None:
    weight, bias = layer.weight, layer.bias
    if not (_is_native(weight) and (bias is None or _is_native(bias))):
        return None
    packed = layer.packed_where(pays)
    return None if packed is None else (packed[0], None if bias is None else readable(bias).numpy())


def _native_norm(norm: nn.Module) -> NativeNorm | None:
    if type(norm) is not nn.LayerNorm or not _is_bare(norm):
        return None
    weight, bias = norm.weight, norm.bias
    if weight is None or bias is None or weight.dim() != 1 or not (_is_native(weight) and _is_native(bias)):
        return None
    return readable(weight).numpy(), readable(bias).numpy(), norm.eps
