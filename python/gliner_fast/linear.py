"""Linear layers by whoever multiplies fastest: oneDNN for float32 on x86 CPUs, else as torch does it.

torch sends float32 products to MKL, which was not made for every CPU. On an EPYC 7003, weights cold, oneDNN was 1.2
times as fast with 512 rows of the base size, 1.3 times with 128, 1.7 times with 64 (`pytest benches/bench_linear.py`).
The weights stay where and as they are.
"""

from __future__ import annotations

import os
import platform
from functools import cache
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["none", "gelu"]

VARIABLE = "GLINER_FAST_LINEAR"


def linear(vectors: Tensor, weight: Tensor, bias: Tensor | None = None, activation: Activation = "none") -> Tensor:
    """activation(vectors @ weight.T + bias): (..., I), (O, I), (O,) -> (..., O).

    Args:
        vectors: what goes in.
        weight: as `torch.nn.Linear` holds it.
        bias: may be left out.
        activation: of the sum; `gelu` is the exact one, by the error function.
    """
    if uses_onednn(vectors, weight):
        algorithm = "none" if activation == "gelu" else ""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(vectors, weight, bias, activation, [], algorithm)
        return out
    out = F.linear(vectors, weight, bias)
    return F.gelu(out) if activation == "gelu" else out


class Linear(nn.Linear):
    """`torch.nn.Linear`, but by `linear`, and with an activation if it should have one."""

    activation: Activation = "none"

    def __init__(self, inputs: int, outputs: int, activation: Activation = "none") -> None:
        super().__init__(inputs, outputs)
        self.activation = activation

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name)
        """(..., I) -> (..., O)."""
        return linear(input, self.weight, self.bias, self.activation)


def take_linear(module: nn.Module) -> None:
    """Makes every `torch.nn.Linear` inside a module, though not its subclasses, a `Linear`."""
    for inner in module.modules():
        if type(inner) is nn.Linear:
            inner.__class__ = Linear


def uses_onednn(vectors: Tensor, weight: Tensor) -> bool:
    """Whether `linear` takes oneDNN: float32 on an x86 CPU, with no gradient asked for, which its call has none of.

    Nor has it a fast way with a weight that is a part of another's rows: it was a hundred times slower than torch.

    Raises:
        ValueError: the environment variable names nobody who multiplies.
    """
    if torch.compiler.is_compiling():  # the compiler has its own choice
        return False
    return (
        vectors.device.type == "cpu"
        and vectors.dtype == weight.dtype == torch.float32
        and not torch.is_grad_enabled()
        and weight.is_contiguous()
        and cast(bool, torch.backends.mkldnn.enabled)
        and _chooses_onednn(os.environ.get(VARIABLE, ""))
    )


@cache
def _chooses_onednn(asked: str) -> bool:
    if asked not in ("", "torch", "onednn"):
        raise ValueError(f"{VARIABLE} is {asked!r}: expected torch or onednn, or leave it unset for the fastest")
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return asked != "torch" and is_x86 and has_onednn and hasattr(torch.ops.mkldnn, "_linear_pointwise")
