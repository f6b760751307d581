"""Whole numbers of 16 bits in place of float32: for CPUs that multiply no shorter floating-point numbers.

Every linear layer's weights, and what goes into it, are rounded row by row to 14 bits with a scale of their own; sums,
attention, norms, the word LSTM and the span scores stay in float32. AVX2 multiplies sixteen such numbers at a time, and
eight float32. How often an answer changes: `python -m benches.precision`.
"""

from __future__ import annotations

import torch
from torch import nn

from gliner_fast import _rust
from gliner_fast.linear import Linear
from gliner_fast.scorer import SpanScorer


def quantize(network: nn.Module) -> None:
    """Gives the layers of a network their weights in whole numbers beside those in float32: half as much memory again.

    They are used for inference in float32 on the CPU alone, and dropped when the network is put into training mode.

    Raises:
        ValueError: the network is not in float32 on the CPU.
    """
    weight = next(network.parameters())
    if weight.device.type != "cpu" or weight.dtype is not torch.float32:
        raise ValueError(
            f"int16 replaces products of float32 on the CPU, but the model is in {weight.dtype} on {weight.device}: "
            "load it without dtype and map_location, or leave int16 out"
        )
    network.eval()
    folded: set[nn.Module] = set()  # layers whose weights the scorer reads by itself
    for module in network.modules():
        if isinstance(module, SpanScorer):
            folded |= {layer for layer in (module.joint, module.out) if layer is not None}
            if module.joint is not None:
                first, second = module.joint.weight.chunk(2, dim=1)
                module.int16_halves = pack(first), pack(second)
    for module in network.modules():
        if isinstance(module, Linear) and module not in folded:
            module.int16 = pack(module.weight)


def pack(weight: torch.Tensor) -> _rust.Int16Weights:
    """(O, I) float32 -> the same in whole numbers."""
    return _rust.Int16Weights(weight.detach().contiguous().clone().numpy())


def is_quantized(network: nn.Module) -> bool:
    """Whether the network's layers have their weights in whole numbers too."""
    return any(isinstance(module, Linear) and module.int16 is not None for module in network.modules())
