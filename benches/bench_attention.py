"""Disentangled attention of one layer on a CUDA device: the kernel over packed texts beside torch over padded ones."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch

from benches.compare import Race
from benches.floor import device_seconds
from gliner_fast.attention_executor import PackedTexts, attend
from gliner_fast.deberta import DebertaLayer, LayerPositions
from gliner_fast.deberta_config import DebertaConfig, position_rows
from gliner_fast.kernels.disentangled_attention import Positions, disentangled_attention_reference

HEADS, HEAD_DIM, SUBWORDS = 12, 64, 2**14
CONFIG = {
    "hidden_size": HEADS * HEAD_DIM, "num_attention_heads": HEADS, "intermediate_size": 3072, "position_buckets": 256,
    "max_position_embeddings": 512, "relative_attention": True, "share_att_key": True, "type_vocab_size": 0,
    "position_biased_input": False, "norm_rel_ebd": "layer_norm", "pos_att_type": ["c2p", "p2c"],
}  # fmt: skip


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("length", [32, 64, 128, 256, 512])
def bench_attention(race: Race, length: int, dtype: torch.dtype, device: str) -> None:
    """Texts of three quarters of a length and up, as batches cut from sorted texts have them."""
    config = DebertaConfig.read(CONFIG)
    assert config is not None
    texts = SUBWORDS // length
    lengths = torch.linspace(0.75 * length, length, texts).long().tolist()
    scale = (3 * HEAD_DIM) ** -0.5
    torch.manual_seed(0)
    qkv = torch.randn(sum(lengths), 3, HEADS, HEAD_DIM, device=device).to(dtype)
    keys, queries = (torch.randn(2, HEADS, 512, HEAD_DIM, device=device) * scale).to(dtype)
    rows = position_rows(length, config).to(device)
    positions = Positions(keys, queries, rows.int())
    packed = PackedTexts(lengths, torch.tensor([0, *accumulate(lengths)], device=device))
    inside = torch.arange(length, device=device) < torch.tensor(lengths, device=device)[:, None]  # (B, L)
    padded = qkv.new_zeros(texts, length, 3, HEADS, HEAD_DIM)
    padded[inside] = qkv
    layer = DebertaLayer(config).eval()
    by_distance = LayerPositions(keys[:, rows.flip(0)], queries[:, rows], scale)
    key_padding = ~inside[:, None, None, :]

    def ours() -> torch.Tensor:
        return attend(qkv, positions, packed, scale=scale, executor="triton")

    @torch.inference_mode()
    def torch_padded() -> torch.Tensor:
        return layer._attend_heads(padded, by_distance, key_padding, 0)  # (B, H, L, head_dim)

    exact = disentangled_attention_reference(
        qkv.double(), Positions(keys.double(), queries.double(), positions.rows), lengths=lengths, scale=scale
    )
    error, bound = (
        float((found.double() - exact).abs().max()) for found in (ours(), torch_padded().transpose(1, 2)[inside])
    )
    assert error <= 2 * bound + 1e-5
    race.run(
        ours,
        {"torch, padded": torch_padded},
        agreement=f"error {error:.1e}, of torch {bound:.1e}",
        amount=sum(lengths),
        unit="subwords",
        length=length,
        heads=HEADS,
        head_dim=HEAD_DIM,
        dtype=str(dtype).removeprefix("torch."),
    )
    race.benchmark.extra_info["device_seconds"] = device_seconds(ours)
