"""The product before GELU on a CUDA device: GELU taken into it beside GELU after it, as torch by itself has it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from benches.compare import Race
from benches.floor import device_seconds
from gliner_fast.cpu.linear import product_with_gelu

WIDTH, INNER = 768, 3072


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rows", [32, 1024, 32768])
def bench_gelu(race: Race, rows: int, dtype: torch.dtype, device: str) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(WIDTH, INNER).to(device, dtype)
    vectors = torch.randn(rows, WIDTH, device=device).to(dtype)
    weight, bias = layer.weight, layer.bias

    @torch.inference_mode()
    def ours() -> torch.Tensor:
        return product_with_gelu(vectors, weight, bias)

    @torch.inference_mode()
    def theirs() -> torch.Tensor:
        return F.gelu(F.linear(vectors, weight, bias))

    some = vectors[:512].double()
    with torch.inference_mode():
        exact = F.gelu(F.linear(some, weight.double(), bias.double()))
    error, bound = (float((found[: len(some)].double() - exact).abs().max()) for found in (ours(), theirs()))
    assert error <= bound + 1e-3  # of the form by tanh: 0.0005
    race.run(
        ours,
        {"torch": theirs},
        agreement=f"error {error:.1e}, of torch {bound:.1e}",
        amount=rows,
        unit="rows",
        rows=rows,
        width=WIDTH,
        dtype=str(dtype).removeprefix("torch."),
    )
    race.benchmark.extra_info["device_seconds"] = device_seconds(ours)
