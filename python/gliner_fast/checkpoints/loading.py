"""A checkpoint folder -> the parts of a model."""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gliner_fast import weights
from gliner_fast.checkpoints import locating, tensor_names, tokenizer_loading, weight_files
from gliner_fast.checkpoints.parts import Parts, build_network, keep_to_positions, prepare_process, readers
from gliner_fast.checkpoints.tokenizer_loading import CheckpointTokenizer
from gliner_fast.config import CONFIG_NAME, GLiNERConfig
from gliner_fast.encoder import parameters_on_meta, word_embeddings
from gliner_fast.errors import CheckpointError, CheckpointWarning, UnsupportedCheckpointError
from gliner_fast.network import Network
from gliner_fast.word_splitters import word_splitter


def load_parts(
    folder: Path,
    *,
    overrides: Mapping[str, Any],
    hub: locating.HubOptions,
    dtype: torch.dtype | None,
    variant: str | None,
    strict: bool,
    resize_token_embeddings: bool,
) -> Parts:
    """Loads a checkpoint folder of any era (compat sections 1.2, 2.2 to 2.4).

    Raises:
        FileNotFoundError: configuration or weights are missing.
        CheckpointError: something in it is broken or does not fit.
        UnsupportedCheckpointError: it is of a kind that this version does not run.
        ImportError: a library of its word splitter is missing.
    """
    prepare_process()
    had_tracer = "torch._dynamo" in sys.modules
    config = GLiNERConfig.from_file(folder / CONFIG_NAME, **overrides)
    config.refuse_unsupported()
    splitter = word_splitter(config.words_splitter_type)
    path = weight_files.find_weights(folder, variant)
    tensors = weight_files.read_weights(path)
    encoder_config = locating.load_encoder_config(config, hub)
    tokenizer = tokenizer_loading.load_tokenizer(folder, config, hub)
    label_tokenizer = None
    if config.is_bi_encoder:  # no special tokens of GLiNER's: labels stand in no text
        label_tokenizer = tokenizer_loading.load_label_tokenizer(folder, config, hub)
    else:
        tokenizer, config = tokenizer_loading.add_special_tokens(tokenizer, config, resize_token_embeddings)
    rows = tensor_names.embedding_rows(tensors)
    if rows is not None:
        if config.is_bi_encoder:  # new ones of gliner's have its tokens, and no embeddings for them
            tokenizer = tokenizer.without_unread(tokenizer_loading.added_tokens(config), rows)
        special = {} if config.is_bi_encoder else {"entity": config.class_token_index}
        if config.is_relex:
            special["relation"] = config.rel_token_index
        for name, number in special.items():
            if rows <= max(number, 0):
                raise CheckpointError(
                    f"{path} has {rows} word embeddings, but the {name} token has the id {number}: "
                    "tokenizer and weights are not of one model"
                )
        encoder_config = {**encoder_config, "vocab_size": rows}
    config = config.replace(
        encoder_config=encoder_config,
        labels_encoder_config=locating.load_labels_config(config, hub),
        num_rnn_layers=config.num_rnn_layers if config.is_bi_encoder else _lstm_layers(config, tensors, path),
    )
    _refuse_more_layers(encoder_config, tensors, path)
    with parameters_on_meta():
        network = build_network(config, str(folder / CONFIG_NAME))
    _refuse_larger_vocabulary(network, tokenizer, label_tokenizer, path)
    keep_to_positions(network, tokenizer, label_tokenizer)
    if any(buffer.is_meta for buffer in network.buffers()):  # made out of parameters, and nobody fills them
        raise UnsupportedCheckpointError(
            f"{folder / CONFIG_NAME}: the encoder {encoder_config.get('model_type')!r} keeps second copies of its "
            "weights, in whole numbers: such encoders are not run here"
        )
    weights.load_weights(network, tensors, dtype=dtype, strict=strict, source=str(path))
    if not (had_tracer or gc.isenabled()) and "torch._dynamo" in sys.modules:
        # What transformers imported along has left a frame that refers to itself (torch.fx.wrap), and so keeps what its
        # callers hold, this model too. The garbage collector has met it long ago, unless it is off.
        gc.collect()
    return Parts(config, network, tokenizer, label_tokenizer, splitter)


def _lstm_layers(config: GLiNERConfig, tensors: Mapping[str, torch.Tensor], path: Path) -> int:
    """The LSTM's layers as the file has them: one that was never trained is worse than none (Q4)."""
    stored, asked = tensor_names.lstm_layers(tensors), max(0, config.num_rnn_layers)
    if stored < asked and getattr(config, "has_rnn", True) is not False:
        warnings.warn(
            f"{path} holds {stored} LSTM layers where {CONFIG_NAME} asks for {asked}: running with {stored}",
            CheckpointWarning,
            stacklevel=5,
        )
    return min(stored, asked)


def _refuse_more_layers(encoder_config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuses layers that the file does not have before all those that are asked for are built."""
    stored = tensor_names.encoder_layers(tensors)
    asked = encoder_config.get("num_hidden_layers", encoder_config.get("num_layers"))
    if stored is not None and isinstance(asked, int) and asked > stored:
        raise CheckpointError(
            f"{path} has {stored} layers of the encoder, but the configuration asks for {asked}: {CONFIG_NAME} and the "
            "weights are not of one model"
        )


def _refuse_larger_vocabulary(
    network: Network, tokenizer: CheckpointTokenizer, label_tokenizer: CheckpointTokenizer | None, path: Path
) -> None:
    """Refuses subwords without an embedding: they would end the first prediction that meets one, a GPU's process too.

    Args:
        network: with encoders as wide in rows as their weights.
        tokenizer: of the texts.
        label_tokenizer: of the labels, where these have an encoder of their own.
        path: the file of weights, for messages.
    """
    for name, own, encoder in readers(network, tokenizer, label_tokenizer):
        rows, highest = word_embeddings(encoder), own.highest_id()
        if rows is not None and highest >= rows:
            raise CheckpointError(
                f"{path} has {rows} word embeddings, but the {name} has subwords with ids up to {highest}: tokenizer "
                "and weights are not of one model"
            )
