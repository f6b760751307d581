"""DeBERTa's attention on a CPU, one layer of the base size: the Rust kernel beside torch over texts by length."""

from __future__ import annotations

import pytest
import torch

from benches.compare import Race
from gliner_fast.encoders.attention_executor import PackedTexts, attend
from gliner_fast.encoders.deberta import DebertaEncoder
from gliner_fast.encoders.deberta_config import DebertaConfig
from gliner_fast.kernels.attention_reference import Positions

HEADS, HEAD_DIM = 12, 64
CONFIG = {
    "model_type": "deberta-v2", "hidden_size": HEADS * HEAD_DIM, "num_attention_heads": HEADS, "num_hidden_layers": 1,
    "intermediate_size": 64, "vocab_size": 101, "relative_attention": True, "position_buckets": 256,
    "max_position_embeddings": 512, "norm_rel_ebd": "layer_norm", "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "type_vocab_size": 0,
}  # fmt: skip
BATCHES = {
    "sentence": [45],
    "sentences": [62, 58, 55, 51, 47, 45, 44, 40],
    "sentences-of-one-length": [48] * 10,
    "paragraphs": [140, 128, 121, 110],
    "document": [450],
}


@pytest.mark.parametrize("name", BATCHES)
def bench_attention_cpu(race: Race, name: str) -> None:
    config = DebertaConfig.read(CONFIG)
    assert config is not None
    torch.manual_seed(0)
    encoder, lengths = DebertaEncoder(config).eval(), BATCHES[name]
    layer, rows = encoder._layers()[0], encoder._rows_by_distance(max(lengths), torch.device("cpu"))
    with torch.inference_mode():
        keys, queries = encoder._position_tables(mirrored=False)[0]
        groups = next(encoder._groups(lengths))
        qkv = torch.randn(sum(lengths), 3, HEADS, HEAD_DIM)
    texts = PackedTexts(lengths, torch.tensor(0))

    @torch.inference_mode()
    def rust() -> torch.Tensor:
        return attend(qkv, Positions(keys, queries, rows), texts, scale=encoder._scale, executor="rust").flatten(1)

    @torch.inference_mode()
    def grouped() -> torch.Tensor:
        return layer.attend_grouped(qkv, groups)

    error = float((rust() - grouped()).abs().max())
    assert error < 1e-4, error
    race.run(
        rust,
        {"torch, by length": grouped},
        agreement=f"difference {error:.1e}",
        amount=sum(lengths),
        unit="subwords",
        lengths=lengths,
        heads=HEADS,
        head_dim=HEAD_DIM,
        dtype="float32",
    )
