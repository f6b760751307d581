"""ModernBERT's queries and keys turned on a CUDA device: one kernel, in place, beside torch's passes in float32."""

from __future__ import annotations

import pytest
import torch

from benches.compare import Race
from benches.floor import device_seconds
from gliner_fast.kernels.attention_reference import Rotations
from gliner_fast.kernels.rotations import rotate_in_place

HEADS, HEAD_DIM, LONGEST = 12, 64, 128


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("subwords", [128, 4096, 65_536])
def bench_rotations(race: Race, subwords: int, dtype: torch.dtype, device: str) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(subwords, 3, HEADS, HEAD_DIM, device=device).to(dtype)
    angles = torch.rand(LONGEST, HEAD_DIM // 2, device=device) * 6
    rotations, places = Rotations(angles.cos(), angles.sin()), torch.arange(subwords, device=device) % LONGEST

    @torch.inference_mode()
    def theirs() -> torch.Tensor:
        return rotations.rotate(qkv, places)

    exact = Rotations(angles.double().cos(), angles.double().sin()).rotate(qkv.double(), places)
    spare = qkv.clone()  # is turned on and on: how long that takes does not change

    @torch.inference_mode()
    def ours() -> torch.Tensor:
        rotate_in_place(spare, rotations, places)
        return spare

    error, bound = (float((found.double() - exact).abs().max()) for found in (ours(), theirs()))
    assert error <= 2 * bound + 1e-5
    del exact
    race.run(
        ours,
        {"torch": theirs},
        agreement=f"error {error:.1e}, of torch {bound:.1e}",
        amount=subwords,
        unit="subwords",
        subwords=subwords,
        heads=HEADS,
        dtype=str(dtype).removeprefix("torch."),
    )
    race.benchmark.extra_info["device_seconds"] = device_seconds(ours)
