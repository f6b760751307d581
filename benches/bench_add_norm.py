"""Residual and layer norm on a CUDA device: one kernel beside torch's two calls, and from how many rows on it pays."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benches.compare import Race
from benches.floor import device_seconds
from gliner_fast.kernels.add_norm import add_norm, add_norm_reference

WIDTH = 768


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rows", [64, 256, 1024, 4096, 16384])
def bench_add_norm(race: Race, rows: int, dtype: torch.dtype, device: str) -> None:
    torch.manual_seed(0)
    norm = nn.LayerNorm(WIDTH).to(device, dtype).eval()
    vectors, residual = torch.randn(2, rows, WIDTH, device=device).to(dtype)
    given = vectors, residual, norm.weight, norm.bias

    @torch.inference_mode()
    def ours() -> torch.Tensor:
        return add_norm(*given, eps=norm.eps)

    spare = vectors.clone()  # what is added to changes from call to call; how long that takes does not

    @torch.inference_mode()
    def theirs() -> torch.Tensor:
        normed: torch.Tensor = norm(spare.add_(residual))
        return normed

    with torch.inference_mode():
        exact = add_norm_reference(*(part.double() for part in given), eps=norm.eps)
        plain = add_norm_reference(*given, eps=norm.eps)
    error, bound = (float((found.double() - exact).abs().max()) for found in (ours(), plain))
    assert error <= 2 * bound + 1e-5
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
