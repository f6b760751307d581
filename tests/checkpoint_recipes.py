"""What random checkpoints are made of: sizes, encoders, and every kind that the parity tests go through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# (layers, hidden, heads, intermediate, hidden of the GLiNER head, rows of the embedding matrix)
_Size = tuple[int, int, int, int, int, int]
SIZES = {
    "tiny": (2, 64, 4, 128, 48, 2_048),
    "tiny-two-heads": (2, 64, 2, 128, 48, 2_048),  # as wide as kernels of others take them
    "small": (6, 768, 12, 3_072, 512, 128_004),
    "base": (12, 768, 12, 3_072, 512, 128_004),
    "large": (24, 1_024, 16, 4_096, 512, 128_004),
}
# Those of ModernBERT and its kin (Ettin), which gliner-bi-small-v2.0 and its larger brothers have.
MODERNBERT_SIZES = {
    "small": (19, 512, 8, 768, 512, 50_372),
    "base": (22, 768, 12, 1_152, 512, 50_372),
    "large": (28, 1_024, 16, 2_624, 512, 50_372),
}

# Those of mT5; in small models distances are to pass all that they tell apart, and heads to be narrower than the layer.
MT5_SIZES = {
    "tiny": (2, 64, 3, 96, 48, 2_048),
    "small": (8, 512, 6, 1_024, 512, 250_112),
    "base": (12, 768, 12, 2_048, 512, 250_112),
    "large": (24, 1_024, 16, 2_816, 512, 250_112),
}
SIZES_OF: dict[str, dict[str, _Size]] = {"modernbert": SIZES | MODERNBERT_SIZES, "mt5": MT5_SIZES}

# Settings that an encoder adds to the common ones, and the tokenizer that its family uses.
_DEBERTA = {
    "model_type": "deberta-v2", "type_vocab_size": 0, "layer_norm_eps": 1e-7, "relative_attention": True,
    "max_relative_positions": -1, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"], "position_biased_input": False,
}  # fmt: skip
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "deberta-v3": ("unigram", _DEBERTA),
    # The v2 layout: a convolution beside the first layer, absolute positions, keys of its own for positions.
    "deberta-v2": (
        "unigram",
        _DEBERTA | {"share_att_key": False, "position_biased_input": True, "conv_kernel_size": 3, "conv_act": "gelu"},
    ),
    # No buckets and one direction only, as a first DeBERTa has them.
    "deberta-unbucketed": (
        "unigram",
        _DEBERTA | {"position_buckets": -1, "max_relative_positions": 64, "pos_att_type": ["c2p"]},
    ),
    "bert": ("wordpiece", {"model_type": "bert", "type_vocab_size": 2, "layer_norm_eps": 1e-12}),
    "t5": ("t5", {"model_type": "t5", "feed_forward_proj": "relu"}),
    "mt5": ("t5", {"model_type": "mt5", "feed_forward_proj": "gated-gelu"}),  # T5 1.1 and gliner-x
    "modernbert": (
        "byte-bpe",
        {
            "model_type": "modernbert", "hidden_activation": "gelu", "global_attn_every_n_layers": 2,
            "local_attention": 16, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2,
        },
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a checkpoint is made of. The defaults are the shape of most published models."""

    encoder: str = "deberta-v3"
    size: str = "tiny"
    hidden_size: int | None = None  # of the head; None: as the size has it, which needs a projection
    vocab_size: int | None = None
    span_mode: str = "markerV0"
    represent_spans: bool = False  # of a token-level model: whether it scores the spans that it marks
    subtoken_pooling: str = "first"
    num_rnn_layers: int = 1
    embed_ent_token: bool = True
    max_width: int = 12
    max_len: int = 384
    tokenizer: str | None = None  # a family of `make_tokenizer`; None: the one that suits the encoder
    max_subwords: int | None = None  # the tokenizer's limit, and the rows of BERT's position table
    label_encoder: str | None = None  # of a bi-encoder, as wide as the tiny size
    post_fusion_schema: str = ""  # of a bi-encoder whose labels and words attend to each other, in two layers
    relations_layer: str | None = None  # of a model that finds relations, too
    triples_layer: str | None = None
    embed_rel_token: bool = True
    safetensors: bool = True
    era: str = "current"  # how the folder is laid out: see `_rewrite_as`
    fraction_above_half: float = 0.02
    score_spread: float = 2.5  # standard deviation of the logits
    seed: int = 0


WIDTH = SIZES["tiny"][1]  # a head of this width has no projection
LABEL_SUBWORDS = 40  # of a bi-encoder's label; the rest is cut off

KINDS: dict[str, Recipe] = {
    "deberta": Recipe(),
    "deberta-two-heads": Recipe(size="tiny-two-heads", seed=26),
    "deberta-same-width": Recipe(hidden_size=WIDTH, seed=1),
    "deberta-no-lstm": Recipe(num_rnn_layers=0, seed=2),
    "deberta-two-lstm": Recipe(num_rnn_layers=2, seed=3),
    "deberta-marker": Recipe(span_mode="marker", seed=4),
    "deberta-last": Recipe(subtoken_pooling="last", seed=5),
    "deberta-mean": Recipe(subtoken_pooling="mean", seed=6),
    "deberta-max": Recipe(subtoken_pooling="max", seed=7),
    "deberta-label-word": Recipe(embed_ent_token=False, seed=8),
    "deberta-bin": Recipe(safetensors=False, seed=9),
    "deberta-narrow": Recipe(max_width=3, max_len=24, seed=10),
    "deberta-v2": Recipe(encoder="deberta-v2", seed=11),
    "deberta-unbucketed": Recipe(encoder="deberta-unbucketed", seed=12),
    "bert": Recipe(encoder="bert", max_subwords=512, seed=13),
    "bert-same-width": Recipe(encoder="bert", max_subwords=512, hidden_size=WIDTH, span_mode="marker", seed=14),
    "bert-cut-first": Recipe(encoder="bert", max_subwords=96, seed=15),
    "bert-cut-last": Recipe(encoder="bert", max_subwords=96, subtoken_pooling="last", num_rnn_layers=0, seed=16),
    "bert-cut-mean": Recipe(encoder="bert", max_subwords=96, subtoken_pooling="mean", num_rnn_layers=2, seed=17),
    "bert-label-word": Recipe(encoder="bert", max_subwords=512, embed_ent_token=False, safetensors=False, seed=18),
    "modernbert": Recipe(encoder="modernbert", num_rnn_layers=0, seed=19),
    "t5": Recipe(encoder="t5", seed=36),
    "mt5": Recipe(encoder="mt5", subtoken_pooling="mean", seed=37),
    "token-mt5": Recipe(span_mode="token_level", encoder="mt5", safetensors=False, seed=57),
    "bi": Recipe(label_encoder="bert", seed=31),
    "bi-same-width": Recipe(label_encoder="deberta-v3", hidden_size=32, num_rnn_layers=0, span_mode="marker", seed=32),
    "bi-bert": Recipe(encoder="bert", max_subwords=96, label_encoder="bert", safetensors=False, seed=33),
    "bi-modernbert": Recipe(encoder="modernbert", label_encoder="modernbert", subtoken_pooling="mean", seed=34),
    "bi-token": Recipe(span_mode="token_level", label_encoder="bert", seed=35),
    "bi-fused": Recipe(label_encoder="bert", post_fusion_schema="l2l-l2t-t2t", num_rnn_layers=0, seed=58),
    "bi-token-fused": Recipe(
        span_mode="token_level",
        encoder="bert",
        max_subwords=96,
        label_encoder="bert",
        post_fusion_schema="t2l-l2t",
        safetensors=False,
        seed=59,
    ),
    "token": Recipe(span_mode="token_level", seed=27),
    "token-same-width": Recipe(span_mode="token_level", hidden_size=WIDTH, num_rnn_layers=0, max_width=3, seed=28),
    "token-bert": Recipe(span_mode="token_level", encoder="bert", max_subwords=512, safetensors=False, seed=29),
    "token-modernbert": Recipe(span_mode="token_level", encoder="modernbert", num_rnn_layers=2, seed=30),
    "token-spans": Recipe(span_mode="token_level", represent_spans=True, seed=70),
    "token-spans-bert": Recipe(
        span_mode="token_level",
        represent_spans=True,
        encoder="bert",
        max_subwords=96,
        subtoken_pooling="mean",
        num_rnn_layers=0,
        safetensors=False,
        fraction_above_half=0.04,
        seed=71,
    ),
    "bi-token-spans": Recipe(span_mode="token_level", represent_spans=True, label_encoder="bert", seed=73),
    "era-v1": Recipe(era="v1", tokenizer="deberta", span_mode="marker", hidden_size=WIDTH, safetensors=False, seed=20),
    "era-nuner-zero": Recipe(
        era="v1", tokenizer="deberta", span_mode="marker", max_width=1, safetensors=False, seed=21
    ),
    "era-v2": Recipe(era="v2", safetensors=False, seed=22),
    "era-v2-with-tokenizer": Recipe(era="v2-with-tokenizer", seed=23),
    "era-has-rnn": Recipe(era="has-rnn", seed=24),
    # The reference puts a random LSTM into this one (C§9 Q4); `without-rnn` is the same model as it was meant.
    "era-has-rnn-false": Recipe(era="has-rnn", num_rnn_layers=0, seed=25),
    "without-rnn": Recipe(num_rnn_layers=0, seed=25),
}

# Those that find relations, which answer in a form of their own.
RELATION_KINDS: dict[str, Recipe] = {
    "relex": Recipe(relations_layer="mlp", seed=60),
    "relex-none": Recipe(relations_layer="none", encoder="bert", max_subwords=512, safetensors=False, seed=61),
    "relex-dot": Recipe(relations_layer="dot", num_rnn_layers=0, hidden_size=WIDTH, seed=62),
    "relex-bilinear": Recipe(relations_layer="bilinear", embed_rel_token=False, subtoken_pooling="mean", seed=63),
    "relex-attention": Recipe(relations_layer="attention", seed=64),
    "relex-gcn": Recipe(relations_layer="gcn", seed=65),
    "relex-gat": Recipe(relations_layer="GAT", span_mode="marker", seed=66),
    "relex-triples": Recipe(relations_layer="bilinear", triples_layer="DistMult", encoder="modernbert", seed=67),
    "token-relex": Recipe(span_mode="token_level", relations_layer="mlp", seed=68),
    "token-relex-none": Recipe(
        span_mode="token_level", relations_layer="none", encoder="bert", max_subwords=96, seed=69
    ),
    "token-relex-gat": Recipe(span_mode="token_level", relations_layer="gat", seed=72),
}
