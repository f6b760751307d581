"""DeBERTa's layers over packed texts on a GPU, with what is the same for all of them asked once a batch.

A batch takes some hundred kernels. What the modules ask before each of them takes the host longer than to start it: a
single text waits for that, and so do the host's other threads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_fast.cpu.linear import Linear, asked_linear, product_with_gelu
from gliner_fast.cpu.native import all_have_hooks, allows_tf32, has_nothing_added, is_recorded
from gliner_fast.encoders.attention_executor import PackedTexts
from gliner_fast.encoders.deberta_layer import DebertaLayer
from gliner_fast.encoders.residual_norm import asked_norm
from gliner_fast.kernels.attention_reference import Positions

_MODULES = {
    "qkv": Linear,
    "attention_output": Linear,
    "attention_norm": nn.LayerNorm,
    "intermediate": Linear,
    "output": Linear,
    "output_norm": nn.LayerNorm,
}


def run_on_gpu(
    hidden: Tensor,
    layers: Sequence[DebertaLayer],
    positions: Sequence[Positions],
    texts: PackedTexts,
    wanted: Tensor | None,
    *,
    scale: float,
) -> Tensor | None:
    """Runs the layers by kernels; None where the modules have to be called instead.

    They have to be where one is not ours or has something added, in training, under autocast, while torch compiles or
    traces, and where an environment variable says who computes products or norms.

    Args:
        hidden: (N, D), what the first layer reads.
        layers: of DeBERTa.
        positions: of each layer.
        texts: how subwords belong to texts.
        wanted: (R,) rows of the last layer; None for all.
        scale: of query . key.

    Returns:
        (N, D), or (R, D) where only some rows are wanted.
    """
    if not _is_on_gpu(hidden) or _somebody_asks(hidden) or not layers:
        return None
    from gliner_fast.kernels.add_norm import MOST_COLUMNS, add_norm
    from gliner_fast.kernels.disentangled_attention import disentangled_attention

    weights = list(filter(None, (_weights_of(layer, hidden) for layer in layers)))
    if len(weights) < len(layers) or hidden.shape[1] > MOST_COLUMNS:
        return None
    with_gelu = product_with_gelu if hidden.dtype in (torch.bfloat16, torch.float16) else _product_then_gelu
    longest, tf32, heads = texts.longest, allows_tf32(), layers[0].heads
    for layer, own, own_positions in zip(layers, weights, positions, strict=True):
        to_qkv, after_attention, first_norm, to_inner, to_outer, second_norm = own
        qkv = F.linear(hidden, *to_qkv).view(hidden.shape[0], 3, heads, -1)  # (N, 3, H, head_dim)
        attended = disentangled_attention(
            qkv, own_positions, longest=longest, offsets=texts.offsets, scale=scale, allow_tf32=tf32
        ).flatten(1)  # (N, D)
        if wanted is not None and layer is layers[-1]:
            hidden, attended = hidden[wanted], attended[wanted]
        hidden = add_norm(F.linear(attended, *after_attention), hidden, *first_norm, eps=layer.attention_norm.eps)
        inner = with_gelu(hidden, *to_inner)  # (N, F)
        hidden = add_norm(F.linear(inner, *to_outer), hidden, *second_norm, eps=layer.output_norm.eps)
    return hidden


def _is_on_gpu(hidden: Tensor) -> bool:
    return hidden.is_cuda


def _somebody_asks(hidden: Tensor) -> bool:
    return bool(
        torch.is_grad_enabled()
        or is_recorded()
        or torch.is_autocast_enabled(hidden.device.type)
        or asked_linear()
        or asked_norm()
        or all_have_hooks()
    )


def _weights_of(layer: DebertaLayer, hidden: Tensor) -> list[tuple[Tensor, Tensor]] | None:
    """Weight and bias of each module of a layer; None where it is not as we built it, or they are of another kind."""
    if type(layer) is not DebertaLayer or layer.training or not has_nothing_added(layer):
        return None
    modules = layer._modules  # noqa: SLF001  (torch's way to attributes takes several times as long)
    found: list[tuple[Tensor, Tensor]] = []
    dtype, device = hidden.dtype, hidden.device
    for name, kind in _MODULES.items():
        module = modules.get(name)
        if module is None or type(module) is not kind or module.training or not has_nothing_added(module):
            return None
        weight, bias = module._parameters["weight"], module._parameters["bias"]
        if weight is None or bias is None or not (weight.dtype is bias.dtype is dtype):
            return None
        if weight.device != device or bias.device != device:
            return None
        found.append((weight, bias))
    return found


def _product_then_gelu(vectors: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.gelu(F.linear(vectors, weight, bias))
