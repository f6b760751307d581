"""The linear layers of an encoder: `gliner_fast.linear` beside torch's own, over the rows of a batch without padding.

Twelve layers with weights of their own take turns, as in a model: no weight is in the cache when its turn comes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from benches.compare import SCALE, Race
from gliner_fast.linear import linear, uses_onednn

LAYERS = 12 if SCALE > 0.1 else 2
ROWS = [16, 64, 128, 256, 512, 768, 1024]
WIDTHS = {"minilm": 384, "base": 768}
TOLERANCE = 1e-5  # largest difference over the largest value


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("size", WIDTHS)
def bench_linear(race: Race, size: str, rows: int) -> None:
    width = WIDTHS[size]
    shapes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    generator = torch.Generator().manual_seed(0)
    layers = [
        [(torch.randn(out, given, generator=generator) * given**-0.5, torch.zeros(out)) for given, out in shapes]
        for _ in range(LAYERS)
    ]
    vectors = {given: torch.randn(rows, given, generator=generator) for given in (width, 4 * width)}

    def run(multiply: Callable[..., torch.Tensor]) -> Callable[[], None]:
        def all_layers() -> None:
            with torch.inference_mode():
                for layer in layers:
                    for weight, bias in layer:
                        multiply(vectors[weight.shape[1]], weight, bias)

        return all_layers

    error = 0.0
    with torch.inference_mode():
        for weight, bias in layers[0]:
            given = vectors[weight.shape[1]]
            assert uses_onednn(given, weight), "nothing to compare: torch multiplies in both"
            expected = F.linear(given, weight, bias)
            error = max(error, float((linear(given, weight, bias) - expected).abs().max() / expected.abs().max()))
    assert error <= TOLERANCE
    operations = 2 * rows * LAYERS * sum(given * out for given, out in shapes)
    race.run(
        run(linear),
        {"torch": run(F.linear)},
        agreement=f"relative error {error:.1e}",
        amount=operations,
        unit="operations",
        rows=rows,
        width=width,
        layers=LAYERS,
        dtype="float32",
    )
