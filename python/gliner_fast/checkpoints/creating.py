"""A configuration -> the parts of a new model, to be trained (compat section 1.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from gliner_fast.checkpoints import locating, tensor_names, tokenizer_loading
from gliner_fast.checkpoints.parts import Parts, build_network, keep_to_positions, prepare_process
from gliner_fast.checkpoints.tokenizer_loading import CheckpointTokenizer
from gliner_fast.config import GLiNERConfig
from gliner_fast.encoder import TransformersEncoder, word_table
from gliner_fast.encoders import packed_t5
from gliner_fast.encoders.deberta import DebertaEncoder
from gliner_fast.errors import CheckpointError, UnsupportedCheckpointError, reason_of
from gliner_fast.network import Network
from gliner_fast.word_splitters import word_splitter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def create_parts(
    config: GLiNERConfig,
    tokenizer: PreTrainedTokenizerBase | None,
    labels_tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    hub: locating.HubOptions,
    backbone_from_pretrained: bool,
    resize_token_embeddings: bool = True,
) -> Parts:
    """A new model, to be trained: a random head, and random encoders or the pretrained ones that the settings name.

    Raises:
        CheckpointError: an encoder or a tokenizer cannot be had, or is not of the shape that the settings tell.
        UnsupportedCheckpointError: the settings are of a kind that is not made here.
        ImportError: a library of the word splitter is missing.
        ValueError: a tokenizer of labels for a model that is no bi-encoder.
    """
    config.refuse_unsupported()
    if config.is_relex:
        raise UnsupportedCheckpointError(
            "relation extraction models are loaded and run here, but not made anew: gliner makes them"
        )
    if labels_tokenizer is not None and not config.is_bi_encoder:
        raise ValueError("labels_tokenizer is given, but no labels_encoder: leave it out, or name one in the settings")
    splitter = word_splitter(config.words_splitter_type)
    encoder_config = locating.load_encoder_config(config, hub)
    if tokenizer is None:
        own = tokenizer_loading.load_tokenizer(None, config, hub)
    else:
        own = CheckpointTokenizer.of(tokenizer)
    of_labels = None
    if config.is_bi_encoder:
        config, of_labels = _complete_bi_encoder(config, encoder_config, own, labels_tokenizer, hub)
    else:
        own, config = tokenizer_loading.add_special_tokens(own, config, resize_token_embeddings)
        config = config.replace(encoder_config={**encoder_config, "vocab_size": max(config.vocab_size, len(own))})
    prepare_process()
    network = build_network(config, "the configuration")
    _initialise(network.encoder, config.encoder_config)
    if network.label_encoder is not None:
        _initialise(network.label_encoder.encoder, config.labels_encoder_config)
    keep_to_positions(network, own, of_labels)
    if backbone_from_pretrained:
        _copy_backbones(network, config, hub)
    return Parts(config, network, own, of_labels, words_splitter=splitter)


def _complete_bi_encoder(
    config: GLiNERConfig,
    encoder_config: Mapping[str, Any],
    tokenizer: CheckpointTokenizer,
    labels_tokenizer: PreTrainedTokenizerBase | None,
    hub: locating.HubOptions,
) -> tuple[GLiNERConfig, CheckpointTokenizer]:
    """All settings of a new bi-encoder, and the tokenizer of its labels.

    Nothing is added to its tokenizers, since labels stand in no text: what `gliner` adds to that of texts has no
    embeddings there. Nor has it an LSTM, of which `gliner` saves one that nobody runs (Q11).
    """
    labels_config = locating.load_labels_config(config, hub)
    assert labels_config is not None, "a bi-encoder names the encoder of its labels"
    if labels_tokenizer is None:
        of_labels = tokenizer_loading.load_label_tokenizer(None, config, hub)
    else:
        of_labels = CheckpointTokenizer.of(labels_tokenizer)
    complete = config.replace(
        encoder_config=_with_rows_for(tokenizer, encoder_config),
        labels_encoder_config=_with_rows_for(of_labels, labels_config),
        num_rnn_layers=0,
        class_token_index=-1,
        vocab_size=-1,
    )
    return complete, of_labels


def _with_rows_for(tokenizer: CheckpointTokenizer, encoder_config: Mapping[str, Any]) -> Mapping[str, Any]:
    """An encoder's settings with a row of embeddings for each subword; spare rows stay."""
    rows, needed = encoder_config.get("vocab_size"), tokenizer.highest_id() + 1
    return encoder_config if isinstance(rows, int) and rows >= needed else {**encoder_config, "vocab_size": needed}


def _initialise(encoder: DebertaEncoder | TransformersEncoder, settings: Mapping[str, Any] | None) -> None:
    """DeBERTa's own initialisation of our DeBERTa: normal weights, no biases; transformers does that of the others."""
    if not isinstance(encoder, DebertaEncoder):
        return
    std = float((settings or {}).get("initializer_range", 0.02))
    for module in encoder.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Embedding)):
            torch.nn.init.normal_(module.weight, std=std)
            if isinstance(module, torch.nn.Linear):
                torch.nn.init.zeros_(module.bias)


def _copy_backbones(network: Network, config: GLiNERConfig, hub: locating.HubOptions) -> None:
    """Copies the weights of the pretrained encoders; of the subwords that are new, random rows stay.

    Raises:
        CheckpointError: one cannot be had, or is of another shape than the settings tell.
    """
    tensors = _read_backbone("model_name", config.model_name, config.encoder_config, hub)
    _copy_encoder(network, tensors, config.model_name)
    if config.labels_encoder is not None:
        tensors = _read_backbone("labels_encoder", config.labels_encoder, config.labels_encoder_config, hub)
        _copy_encoder(network, tensors, config.labels_encoder, of_labels=True)


def _read_backbone(
    named_in: str, name: str, encoder_config: Mapping[str, Any] | None, hub: locating.HubOptions
) -> Mapping[str, torch.Tensor]:
    """The tensors of a pretrained encoder, by transformers' names; `named_in` is the setting that names it."""
    from transformers import AutoConfig, AutoModel, T5EncoderModel

    is_t5s = (encoder_config or {}).get("model_type") in packed_t5.KINDS  # which has a decoder too
    try:
        if is_t5s:  # mT5's own class would tell of each tensor of the decoder
            settings = AutoConfig.from_pretrained(name, **hub.of_auto_class)
            backbone = T5EncoderModel.from_pretrained(name, config=settings, **hub.of_encoder)
        else:
            backbone = AutoModel.from_pretrained(name, **hub.of_auto_class)
    except Exception as error:
        raise CheckpointError(
            f"the pretrained encoder {name!r} cannot be had: {reason_of(error)}. Name a local folder in "
            f"{named_in}, or pass backbone_from_pretrained=False for a random one"
        ) from error
    tensors: Mapping[str, torch.Tensor] = backbone.state_dict()
    return tensors


def _copy_encoder(
    network: Network, tensors: Mapping[str, torch.Tensor], source: str, *, of_labels: bool = False
) -> None:
    """Copies the tensors of a pretrained encoder, all of them.

    Args:
        network: theirs is the place.
        tensors: by transformers' names.
        source: where they come from, for messages.
        of_labels: whether the encoder is that of a bi-encoder's labels.
    """
    own, prefix, setting = network.encoder, "encoder.", "encoder_config"
    if of_labels and network.label_encoder is not None:
        own, prefix, setting = network.label_encoder.encoder, "label_encoder.encoder.", "labels_encoder_config"
    tensors = tensor_names.from_backbone(tensors, of_labels=of_labels)
    names = {ours: theirs for ours, theirs in tensor_names.checkpoint_names(network).items() if ours.startswith(prefix)}
    asked = tensor_names.encoder_layers((name for theirs in names.values() for name in theirs), of_labels=of_labels)
    stored_layers = tensor_names.encoder_layers(tensors, of_labels=of_labels)
    why = f"{setting} is not that of the pretrained encoder {source!r}, "
    if asked is not None and stored_layers is not None and asked < stored_layers:
        raise CheckpointError(f"{why}which has {stored_layers} layers, not {asked}: leave {setting} out")
    words = word_table(own)
    for ours, theirs in names.items():
        parameter = network.get_parameter(ours)
        new = parameter.detach()
        parts = [tensors[name] for name in theirs if name in tensors]
        stored = torch.cat(parts) if len(parts) == len(theirs) else new.new_zeros(0)
        # The embeddings of subwords alone may differ in rows: GLiNER's tokens are new, and spare rows are dropped.
        is_of_words = words is not None and parameter is words.weight
        if stored.shape[is_of_words:] != new.shape[is_of_words:]:
            found = f"is {tuple(stored.shape)}" if parts else "is not there"
            raise CheckpointError(
                f"{why}whose {theirs[0]} {found}, where {tuple(new.shape)} is asked for: leave {setting} out"
            )
        rows = min(len(stored), len(new))
        new[:rows].copy_(stored[:rows])
