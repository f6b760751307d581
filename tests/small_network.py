"""A network small enough to run anywhere in no time, and a batch for it, without checkpoint or tokenizer."""

from __future__ import annotations

import numpy as np
import torch

from gliner_fast.batch import Batch
from gliner_fast.config import GLiNERConfig
from gliner_fast.network import SpanNetwork
from tests.checkpoints import ENCODERS


def small_network(pooling: str = "first") -> SpanNetwork:
    """DeBERTa, projection, LSTM and markerV0 head with random weights, for inference."""
    encoder_config = ENCODERS["deberta-v3"][1] | {
        "vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 128, "pad_token_id": 0, "hidden_act": "gelu", "max_position_embeddings": 512,
    }  # fmt: skip
    config = GLiNERConfig(hidden_size=48, subtoken_pooling=pooling, encoder_config=encoder_config)
    torch.manual_seed(0)
    return SpanNetwork(config).eval()


def small_batch() -> Batch:
    """Two texts of 12 and 7 words, each one subword, behind the prompts of three labels."""
    first_words = [torch.arange(8, 20), 20 + torch.arange(8, 15)]
    return Batch(
        rows=np.arange(2),
        input_ids=torch.randint(1, 100, (2, 20), generator=torch.Generator().manual_seed(0)),
        lengths=torch.tensor([20, 15]),
        word_counts=torch.tensor([12, 7]),
        class_counts=torch.tensor([3, 3]),
        pooled_positions=torch.cat(first_words),
        pooled_words=torch.arange(19),
        class_positions=torch.tensor([1, 3, 5, 21, 23, 25]),
    )
