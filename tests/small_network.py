"""A network small enough to run anywhere in no time, and a batch for it, without checkpoint or tokenizer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from gliner_fast.batch import Batch
from gliner_fast.config import GLiNERConfig
from gliner_fast.network import Network
from tests.checkpoint_recipes import ENCODERS


def small_network(pooling: str = "first") -> Network:
    """DeBERTa, projection, LSTM and markerV0 head with random weights, for inference."""
    encoder_config = ENCODERS["deberta-v3"][1] | {
        "vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 128, "pad_token_id": 0, "hidden_act": "gelu", "max_position_embeddings": 512,
    }  # fmt: skip
    config = GLiNERConfig(hidden_size=48, subtoken_pooling=pooling, encoder_config=encoder_config)
    torch.manual_seed(0)
    return Network(config).eval()


def small_batch(*word_counts: int) -> Batch:
    """Texts of so many words (12 and 7 if none are named), each one subword, behind the prompts of three labels."""
    words = torch.tensor(word_counts or (12, 7))
    texts, longest = len(words), 8 + int(words.max())
    rows = torch.arange(texts)[:, None] * longest
    return Batch(
        rows=np.arange(texts),
        input_ids=torch.randint(1, 100, (texts, longest), generator=torch.Generator().manual_seed(0)),
        lengths=8 + words,
        word_counts=words,
        class_counts=torch.full((texts,), 3),
        pooled_positions=torch.cat([first + torch.arange(8, 8 + own) for first, own in zip(rows, words, strict=True)]),
        pooled_words=torch.arange(int(words.sum())),
        class_positions=(rows + torch.tensor([1, 3, 5])).flatten().clone(),  # a view tells a compiler of its base
    )


def packed(batch: Batch) -> Batch:
    """The same texts one after another, without padding."""
    longest = batch.input_ids.shape[1]
    is_subword = torch.arange(longest) < batch.lengths[:, None]  # (B, L)
    place = is_subword.flatten().cumsum(0) - 1  # (B * L,) of each subword among the packed ones
    return replace(
        batch,
        input_ids=batch.input_ids[is_subword],
        pooled_positions=place[batch.pooled_positions],
        class_positions=place[batch.class_positions],
        offsets=torch.cat([torch.zeros(1, dtype=torch.int64), batch.lengths.cumsum(0)]),
    )
