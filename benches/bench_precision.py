"""16 and 8 bits beside float32: linear layers, and texts -> entities in bulk and one at a time.

bf16 runs only where the CPU multiplies it natively; `gliner`'s is then a rival of whole numbers too, as is its int8 of
int8.

Random checkpoints are more easily moved than trained ones: hundreds of their spans score near the threshold. How often
a trained model's answers change is told by `python -m benches.precision`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from benches.bench_end_to_end import add_share_of_peak
from benches.compare import SCALE, Race, keys_of, words_of
from benches.conftest import LABELS, SIZES, Pair, checkpoint, texts_of
from benches.floor import cpu_peak
from benches.useful_work import UsefulWork
from gliner_fast import GLiNER, _rust
from gliner_fast.comparing.installed_gliner import load_reference
from gliner_fast.cpu.linear import linear
from gliner_fast.cpu.packed_weights import Packed
from gliner_fast.precision import cpu_features

TEXT_COUNTS = {"short": 32, "mixed": 8}
THRESHOLD = 0.5
# Of random checkpoints, whose scores crowd at the threshold: of base, `gliner` itself finds a third again in bf16.
LEAST_AGREEMENT = {"int16": 0.8, "int8": 0.1, "bf16": 0.1}
# Of products of random numbers, relative.
MOST_ERROR = {"int16": 3e-4, "int8": 1e-2}
KINDS: dict[str, type[_rust.Int16Weights | _rust.Int8Weights]] = {
    "int16": _rust.Int16Weights,
    "int8": _rust.Int8Weights,
}
LAYERS = 12 if SCALE > 0.1 else 2
WIDTHS = {"minilm": 384, "base": 768}


def has_native_bf16() -> bool:
    """Whether this CPU has an instruction for products in bf16."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(cpu_features())


NATIVE_BF16 = pytest.mark.skipif(not has_native_bf16(), reason="this CPU would emulate bf16")


@pytest.mark.parametrize("rows", [16, 48, 256, 1024])
@pytest.mark.parametrize("size", WIDTHS)
@pytest.mark.parametrize("dtype", KINDS)
def bench_whole_linear(race: Race, dtype: str, size: str, rows: int) -> None:
    width = WIDTHS[size]
    shapes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(out, given, generator=generator) * given**-0.5 for given, out in shapes * LAYERS]
    packed = [Packed.pack(KINDS[dtype], weight).parts[0] for weight in weights]
    vectors = {given: torch.randn(rows, given, generator=generator) for given in (width, 4 * width)}

    def run(whole: list[Any]) -> Callable[[], None]:
        def all_layers() -> None:
            with torch.inference_mode():
                for weight, own in zip(weights, whole, strict=True):
                    linear(vectors[weight.shape[1]], weight, packed=own)

        return all_layers

    error = 0.0
    with torch.inference_mode():
        for weight, own in zip(weights[:4], packed[:4], strict=True):
            given = vectors[weight.shape[1]]
            exact = F.linear(given.double(), weight.double())
            error = max(error, float((linear(given, weight, packed=own) - exact).norm() / exact.norm()))
    assert 0 < error < MOST_ERROR[dtype]
    race.run(
        run(packed),
        {"float32": run([None] * len(weights))},
        agreement=f"relative error {error:.1e}",
        amount=2 * rows * sum(weight.numel() for weight in weights),
        unit="operations",
        rows=rows,
        width=width,
        layers=LAYERS,
        dtype=dtype,
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", TEXT_COUNTS)
@pytest.mark.parametrize("way", ["bulk", "single"])
@pytest.mark.parametrize("dtype", [*KINDS, pytest.param("bf16", marks=NATIVE_BF16)])
@pytest.mark.timeout(1_800)
@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")  # `gliner`'s int8
def bench_precision(race: Race, pair: Callable[[str, str], Pair], dtype: str, way: str, name: str, size: str) -> None:
    models, ours = pair(size, "cpu"), GLiNER.from_pretrained(checkpoint(size), dtype=dtype)
    texts, labels = texts_of(name, TEXT_COUNTS[name]), LABELS[:5]
    calls = [[text] for text in texts] if way == "single" else [texts]

    def run(model: Any) -> Callable[[], list[list[dict[str, Any]]]]:
        return lambda: [found for own in calls for found in model.inference(own, labels, threshold=THRESHOLD)]

    rivals = {"gliner as shipped": run(models.reference), "float32": run(models.ours)}
    if has_native_bf16():
        rivals["gliner in bf16"] = run(load_reference(models.ours).to(torch.bfloat16))
    if dtype == "int8":
        quantized = load_reference(models.ours)
        quantized.quantize("int8")
        rivals["gliner in int8"] = run(quantized)
    mine, theirs = (keys_of(run(model)()) for model in (ours, models.ours))
    assert len(mine & theirs) > LEAST_AGREEMENT[dtype] * len(mine | theirs)
    work = UsefulWork.of(ours, run(ours)).encoder if dtype == "bf16" and race.is_timed else 0
    peak = cpu_peak(torch.bfloat16) if work else 0.0
    race.run(
        run(ours),
        rivals,
        agreement=f"{len(mine & theirs)} of {len(mine | theirs)} entities as in float32",
        **words_of(texts, corpus=name, labels=len(labels), size=size, threshold=THRESHOLD, way=way, dtype=dtype),
    )
    add_share_of_peak(race, work, peak, torch.bfloat16)
