"""What follows the attention in a layer: one native call beside the modules one after another, both by packed weights.

Twelve layers take turns, as in a model: none finds its weights in the cache, nor the interpreter its own things.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from benches.compare import SCALE, Race, relative_error
from gliner_fast.cpu.linear import VARIABLE, Linear
from gliner_fast.cpu.whole_numbers import quantize
from gliner_fast.encoders.sublayers import finish_layer

LAYERS = 12 if SCALE > 0.1 else 2
WIDTHS = {"minilm": 384, "base": 768}
# Largest difference over the largest value: in whole numbers, a difference of rounding may become one of a unit.
TOLERANCES = {"float32": 1e-5, "int16": 2e-3, "int8": 0.05}


@pytest.mark.parametrize("rows", [16, 48, 128, 384])
@pytest.mark.parametrize("size", WIDTHS)
@pytest.mark.parametrize("dtype", TOLERANCES)
def bench_sublayers(
    race: Race, dtype: Literal["float32", "int16", "int8"], size: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "packed")
    torch.manual_seed(0)
    width = WIDTHS[size]
    layers = [make_layer(width) for _ in range(LAYERS)]
    if dtype != "float32":
        quantize(nn.ModuleList(layers).eval(), dtype)
    attended, hidden = torch.randn(rows, width), torch.randn(rows, width)

    def run(finish: Callable[[nn.ModuleDict], Tensor | None]) -> Callable[[], None]:
        def all_layers() -> None:
            with torch.inference_mode():
                for layer in layers:
                    finish(layer)

        return all_layers

    def at_once(layer: nn.ModuleDict) -> Tensor | None:
        return finish_layer(attended, hidden, **layer)

    def apart(layer: nn.ModuleDict) -> Tensor:
        normed = layer["attention_norm"](layer["attention_output"](attended).add_(hidden))
        intermediate: Any = layer["intermediate"]
        inner = intermediate.product(normed, "gelu")
        out: Tensor = layer["output_norm"](layer["output"](inner).add_(normed))
        return out

    error = 0.0
    with torch.inference_mode():
        for layer in layers:
            found, expected = at_once(layer), apart(layer)
            assert found is not None
            error = max(error, relative_error(found, expected))
    assert error <= TOLERANCES[dtype]
    race.run(
        run(at_once),
        {"modules": run(apart)},
        agreement=f"relative error {error:.1e}",
        amount=2 * rows * LAYERS * 9 * width**2,
        unit="operations",
        rows=rows,
        width=width,
        layers=LAYERS,
        dtype=dtype,
    )


def make_layer(width: int) -> nn.ModuleDict:
    layer = nn.ModuleDict(
        {
            "attention_output": Linear(width, width),
            "attention_norm": nn.LayerNorm(width, 1e-7),
            "intermediate": Linear(width, 4 * width),
            "output": Linear(4 * width, width),
            "output_norm": nn.LayerNorm(width, 1e-7),
        }
    )
    return layer.eval().requires_grad_(requires_grad=False)
