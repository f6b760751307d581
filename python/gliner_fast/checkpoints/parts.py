"""What a model is made of, and what loading one and making a new one share."""

from __future__ import annotations

from dataclasses import dataclass

from gliner_fast.checkpoints.tokenizer_loading import CheckpointTokenizer
from gliner_fast.config import GLiNERConfig
from gliner_fast.cpu.forking import survive_forks
from gliner_fast.cpu.heap import keep_freed_memory
from gliner_fast.encoder import TransformersEncoder, readable_subwords
from gliner_fast.encoders.deberta import DebertaEncoder
from gliner_fast.errors import CheckpointError, reason_of
from gliner_fast.network import Network
from gliner_fast.words import WordTriples


def prepare_process() -> None:
    """Readies a process for a model: freed memory stays with it, and processes forked from it compute in one thread."""
    keep_freed_memory()
    survive_forks()


@dataclass(frozen=True)
class Parts:
    """What a model is made of; a bi-encoder alone has a tokenizer of labels, and the default splitter is None."""

    config: GLiNERConfig
    network: Network
    tokenizer: CheckpointTokenizer
    label_tokenizer: CheckpointTokenizer | None = None
    words_splitter: WordTriples | None = None


def build_network(config: GLiNERConfig, source: str) -> Network:
    """A network, with what torch and transformers do not make of its settings told as the settings' fault.

    Raises:
        CheckpointError: no network can be made by them.
        ImportError: the encoder, or its attention, needs a library that is missing.
    """
    try:
        return Network(config)
    except (CheckpointError, ImportError, MemoryError):
        raise
    except Exception as error:
        raise CheckpointError(f"{source}: no network can be built of its settings: {reason_of(error)}") from error


def keep_to_positions(
    network: Network, tokenizer: CheckpointTokenizer, label_tokenizer: CheckpointTokenizer | None = None
) -> None:
    """Has tokenizers cut what encoders have no position for: a longer text would end the prediction that meets it."""
    for _, own, encoder in readers(network, tokenizer, label_tokenizer):
        own.readable = readable_subwords(encoder)


def readers(
    network: Network, tokenizer: CheckpointTokenizer, label_tokenizer: CheckpointTokenizer | None
) -> list[tuple[str, CheckpointTokenizer, DebertaEncoder | TransformersEncoder]]:
    """Each tokenizer, by the name that messages give it, and the encoder that reads its subwords."""
    readers = [("tokenizer", tokenizer, network.encoder)]
    if label_tokenizer is not None and network.label_encoder is not None:
        readers.append(("tokenizer of the labels", label_tokenizer, network.label_encoder.encoder))
    return readers
