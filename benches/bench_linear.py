"""The linear layers of an encoder: `gliner_fast.linear` beside torch's own, over the rows of a batch without padding.

Twelve layers with weights of their own take turns, as in a model: no weight is in the cache when its turn comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest

import pytest
import torch
import torch.nn.functional as F

from benches.compare import SCALE, Race
from gliner_fast._rust import PackedWeights
from gliner_fast.linear import VARIABLE, choose_linear, linear, packing_pays

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
    layers = [
        (torch.randn(out, given, generator=generator) * given**-0.5, torch.zeros(out)) for given, out in shapes * LAYERS
    ]
    spread = torch.zeros(2**16)  # enough for all of torch's threads
    vectors = {given: torch.randn(rows, given, generator=generator) for given in (width, 4 * width)}

    def run(
        multiply: Callable[..., torch.Tensor], asked: str = "", packs: Sequence[PackedWeights | None] = ()
    ) -> Callable[[], None]:
        def all_layers() -> None:
            with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
                patch.setenv(VARIABLE, asked)
                for (weight, bias), packed in zip_longest(layers, packs):
                    spread.mul(1.0)  # in a model something of torch's own comes before each
                    more = () if packed is None else ("none", packed)
                    multiply(vectors[weight.shape[1]], weight, bias, *more)

        return all_layers

    error, executors, packs = 0.0, set[str](), list[PackedWeights | None]()
    with torch.inference_mode():
        for weight, _ in layers:
            pays = packing_pays(vectors[weight.shape[1]], weight)
            packs.append(PackedWeights(weight.numpy()) if pays else None)
        for (weight, bias), packed in zip(layers[: len(shapes)], packs, strict=False):
            given = vectors[weight.shape[1]]
            executors.add(choose_linear(given, weight) if packed is None else "packed")
            expected = F.linear(given, weight, bias)
            found = linear(given, weight, bias, "none", packed)
            error = max(error, float((found - expected).abs().max() / expected.abs().max()))
    assert error <= TOLERANCE
    rivals = {} if executors == {"torch"} else {"torch": run(F.linear)}  # MKL is chosen on some CPUs
    if "onednn" not in executors:
        rivals["onednn"] = run(linear, "onednn")
    operations = 2 * rows * LAYERS * sum(given * out for given, out in shapes)
    race.run(
        run(linear, packs=packs),
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
