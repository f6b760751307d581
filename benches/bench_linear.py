"""An encoder's linear layers: `gliner_fast.cpu.linear` beside torch's own, over the rows of a batch without padding.

Twelve layers with weights of their own take turns, as in a model: no weight is in the cache when its turn comes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benches.compare import SCALE, Race, relative_error
from gliner_fast.cpu.linear import VARIABLE, Linear, choose_linear, linear

LAYERS = 12 if SCALE > 0.1 else 2
ROWS = [16, 48, 80, 128, 256, 512, 768, 1024]
WIDTHS = {"minilm": 384, "base": 768}
TOLERANCE = 1e-5  # largest difference over the largest value


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("size", WIDTHS)
def bench_linear(race: Race, size: str, rows: int) -> None:
    width = WIDTHS[size]
    shapes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    generator = torch.Generator().manual_seed(0)
    layers = [make_layer(given, out, generator) for given, out in shapes * LAYERS]
    spread = torch.zeros(2**16)  # enough for all of torch's threads
    vectors = {given: torch.randn(rows, given, generator=generator) for given in (width, 4 * width)}

    def run(multiply: Callable[[Linear, torch.Tensor], torch.Tensor], asked: str = "") -> Callable[[], None]:
        def all_layers() -> None:
            with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
                patch.setenv(VARIABLE, asked)
                for layer in layers:
                    spread.mul(1.0)  # in a model something of torch's own comes before each
                    multiply(layer, vectors[layer.in_features])

        return all_layers

    def by_torch(layer: Linear, given: torch.Tensor) -> torch.Tensor:
        return F.linear(given, layer.weight, layer.bias)

    error, executors = 0.0, set[str]()
    with torch.inference_mode():
        for layer in layers[: len(shapes)]:
            given = vectors[layer.in_features]
            found, expected = layer(given), by_torch(layer, given)
            executors.add("packed" if layer.float32 is not None else choose_linear(given, layer.weight))
            error = max(error, relative_error(found, expected))
    assert error <= TOLERANCE
    rivals = {} if executors == {"torch"} else {"torch": run(by_torch)}  # MKL is chosen on some CPUs
    if "onednn" not in executors:
        rivals["onednn"] = run(lambda layer, given: linear(given, layer.weight, layer.bias), "onednn")
    operations = 2 * rows * LAYERS * sum(given * out for given, out in shapes)
    race.run(
        run(lambda layer, given: layer(given)),
        rivals,
        agreement=f"relative error {error:.1e}",
        amount=operations,
        unit="operations",
        rows=rows,
        width=width,
        layers=LAYERS,
        dtype="float32",
        executors=", ".join(sorted(executors)),
    )


def make_layer(given: int, out: int, generator: torch.Generator) -> Linear:
    """One whose weights begin off a line of the cache, as most of a mapped file do."""
    layer = Linear(given, out).eval()
    weight = torch.empty(given * out + 1)[1:].view(out, given).normal_(std=given**-0.5, generator=generator)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    nn.init.zeros_(layer.bias)
    return layer
