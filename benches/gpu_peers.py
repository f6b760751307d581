"""`gliner` with other people's attention under it: what a user with a card could pick instead of ours.

Both are loaded as `gliner` loads a checkpoint, in fp16, and are to be given sorted texts. Neither is compiled: `gliner`
itself keeps FlashDeBERTa from its compiler, and of disentangled-flash nothing is compiled for packed texts.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from gliner_fast.encoders.flash_attention import HEAD_DIMS


def gpu_peers(head_dim: int) -> dict[str, Callable[[Path, str], Any]]:
    """Those that are installed and take heads of this width, by name: each loads a checkpoint onto a device."""
    peers: dict[str, Callable[[Path, str], Any]] = {}
    if find_spec("flashdeberta") is not None:
        peers["FlashDeBERTa"] = load_flash_deberta
    if find_spec("disentangled_flash") is not None and head_dim in HEAD_DIMS:
        peers["disentangled-flash"] = load_disentangled_flash
    return peers


def load_flash_deberta(path: Path, device: str) -> Any:
    """`gliner`'s own switch for FlashDeBERTa."""
    with patch.dict(os.environ, USE_FLASHDEBERTA="1"):
        model = _load(path, device)
    name = type(model.model.token_rep_layer.bert_layer.model).__name__
    assert name == "FlashDebertaV2Model", f"gliner took {name}: it looks for the package when it is imported"
    return model


def load_disentangled_flash(path: Path, device: str) -> Any:
    """`gliner` with DeBERTa's layers by disentangled-flash over packed texts: packed once before the first layer."""
    from disentangled_flash import optimize_deberta, pack_padded_with_info, unpack_packed
    from transformers.modeling_outputs import BaseModelOutput

    model = _load(path, device)
    deberta = model.model.token_rep_layer.bert_layer.model
    optimize_deberta(deberta, backend="triton" if device.startswith("cuda") else "torch")
    name = type(deberta.encoder).__name__
    assert name == "DebertaV2OptimizedEncoder", f"disentangled-flash left {name}: it does not take this checkpoint"

    def forward(input_ids: Tensor, attention_mask: Tensor, **_: Any) -> BaseModelOutput:
        embedded = deberta.embeddings(input_ids=input_ids, mask=attention_mask)
        packed, offsets, info = pack_padded_with_info(embedded, attention_mask)
        packed = deberta.encoder.forward_packed(
            packed, offsets, info.max_seqlen, output_hidden_states=False, packed_info=info
        ).last_hidden_state
        hidden, _ = unpack_packed(packed, offsets, input_ids.shape[1], packed_info=info)
        return BaseModelOutput(last_hidden_state=hidden)

    deberta.forward = forward
    return model


def _load(path: Path, device: str) -> Any:
    from gliner import GLiNER

    model = GLiNER.from_pretrained(path, map_location=device)
    return model.to(torch.float16) if device.startswith("cuda") else model
