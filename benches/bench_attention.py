"""Disentangled attention of one layer on a CUDA device: the kernel over packed texts beside torch over padded ones.

And the same with the products before it, beside the disentangled-flash package, which makes both.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import accumulate

import pytest
import torch

from benches.compare import Race
from benches.floor import device_seconds
from gliner_fast.encoders.attention_executor import AttentionExecutor, PackedTexts, attend
from gliner_fast.encoders.deberta_config import DebertaConfig, position_rows
from gliner_fast.encoders.deberta_layer import DebertaLayer
from gliner_fast.encoders.deberta_positions import LayerPositions
from gliner_fast.encoders.flash_attention import FlashAttention, FlashTexts
from gliner_fast.kernels.attention_reference import Positions, disentangled_attention_reference

HEADS, HEAD_DIM, SUBWORDS = 12, 64, 2**14
CONFIG = {
    "hidden_size": HEADS * HEAD_DIM, "num_attention_heads": HEADS, "intermediate_size": 3072, "position_buckets": 256,
    "max_position_embeddings": 512, "relative_attention": True, "share_att_key": True, "type_vocab_size": 0,
    "position_biased_input": False, "norm_rel_ebd": "layer_norm", "pos_att_type": ["c2p", "p2c"],
}  # fmt: skip


ON_CUDA = pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.gpu)])
EVERY_DTYPE = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
EVERY_LENGTH = pytest.mark.parametrize("length", [32, 64, 128, 256, 512])


def lengths_up_to(length: int) -> list[int]:
    """Texts of three quarters of a length and up, as batches cut from sorted texts have them."""
    return torch.linspace(0.75 * length, length, SUBWORDS // length).long().tolist()


@ON_CUDA
@EVERY_DTYPE
@EVERY_LENGTH
def bench_attention(race: Race, length: int, dtype: torch.dtype, device: str) -> None:
    config = DebertaConfig.read(CONFIG)
    assert config is not None
    lengths = lengths_up_to(length)
    scale = (3 * HEAD_DIM) ** -0.5
    torch.manual_seed(0)
    qkv = torch.randn(sum(lengths), 3, HEADS, HEAD_DIM, device=device).to(dtype)
    keys, queries = (torch.randn(2, HEADS, 512, HEAD_DIM, device=device) * scale).to(dtype)
    rows = position_rows(length, config).to(device)
    positions = Positions(keys, queries, rows.int())
    packed = PackedTexts(lengths, torch.tensor([0, *accumulate(lengths)], device=device))
    padded = torch.nn.utils.rnn.pad_sequence(qkv.split(lengths), batch_first=True)  # (B, L, 3, H, head_dim)
    layer = DebertaLayer(config).eval()
    by_distance = LayerPositions(keys[:, rows.flip(0)], queries[:, rows], scale)
    key_padding = (torch.arange(length) >= torch.tensor(lengths)[:, None]).to(device)[:, None, None, :]

    def ours() -> torch.Tensor:
        return attend(qkv, positions, packed, scale=scale, executor="triton")

    @torch.inference_mode()
    def torch_padded() -> torch.Tensor:
        return layer._attend_heads(padded, by_distance, key_padding, 0)  # (B, H, L, head_dim)

    exact = disentangled_attention_reference(
        qkv.double(), Positions(keys.double(), queries.double(), positions.rows), lengths=lengths, scale=scale
    )
    unpadded = torch.cat([text[:, :own].transpose(0, 1) for text, own in zip(torch_padded(), lengths, strict=True)])
    error, bound = (float((found.double() - exact).abs().max()) for found in (ours(), unpadded))
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
    race.benchmark.extra_info["device_seconds"] = {"ours": device_seconds(ours), "torch": device_seconds(torch_padded)}


@ON_CUDA
@EVERY_DTYPE
@EVERY_LENGTH
def bench_attention_with_products(race: Race, length: int, dtype: torch.dtype, device: str) -> None:
    """Queries, keys and values, and the attention: what decides between our kernel and the package's as the default."""
    pytest.importorskip("disentangled_flash", reason="carry the wheels of `make gpu-wheels`")
    config = DebertaConfig.read(CONFIG)
    assert config is not None
    lengths, width = lengths_up_to(length), HEADS * HEAD_DIM
    scale = (3 * HEAD_DIM) ** -0.5
    torch.manual_seed(0)
    hidden = torch.randn(sum(lengths), width, device=device).to(dtype)
    weight = (torch.randn(3 * width, width, device=device) * width**-0.5).to(dtype)
    bias, relative = torch.randn(3 * width, device=device).to(dtype), torch.randn(512, width, device=device).to(dtype)
    rows = position_rows(length, config).int().to(device)

    def project_tables(dtype: torch.dtype) -> torch.Tensor:
        given = [part.to(dtype) for part in (relative, weight[: 2 * width], bias[: 2 * width])]
        projected: torch.Tensor = torch.nn.functional.linear(*given) * scale
        return projected.view(-1, 2, HEADS, HEAD_DIM).permute(1, 2, 0, 3).contiguous()  # (2, H, rows, head_dim)

    tables = project_tables(dtype)
    offsets = torch.tensor([0, *accumulate(lengths)], device=device)
    packed, told = PackedTexts(lengths, offsets), FlashTexts(lengths, offsets)

    def attend_in_ours(hidden: torch.Tensor, tables: torch.Tensor, executor: AttentionExecutor) -> torch.Tensor:
        qkv = torch.nn.functional.linear(hidden, weight.to(hidden.dtype), bias.to(hidden.dtype))
        queries, keys = tables
        qkv = qkv.view(-1, 3, HEADS, HEAD_DIM)
        return attend(qkv, Positions(keys, queries, rows), packed, scale=scale, executor=executor).flatten(1)

    @torch.inference_mode()
    def ours() -> torch.Tensor:
        return attend_in_ours(hidden, tables, "triton")

    with torch.inference_mode():
        package = FlashAttention(config, weight, bias, relative)

    @torch.inference_mode()
    def theirs() -> torch.Tensor:
        return package(hidden, told)

    exact = attend_in_ours(hidden.double(), project_tables(torch.float64), "torch")
    error, bound = (float((found.double() - exact).abs().max()) for found in (ours(), theirs()))
    assert error <= 2 * bound + 1e-5
    race.run(
        ours,
        {"disentangled-flash": theirs},
        agreement=f"error {error:.1e}, of disentangled-flash {bound:.1e}",
        amount=sum(lengths),
        unit="subwords",
        length=length,
        heads=HEADS,
        head_dim=HEAD_DIM,
        dtype=str(dtype).removeprefix("torch."),
    )
    seconds = race.benchmark.extra_info["device_seconds"] = {"ours": device_seconds(ours)}
    with suppress(RuntimeError):  # what waits for the card cannot be recorded
        seconds["disentangled-flash"] = device_seconds(theirs)
