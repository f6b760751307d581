"""A state dict with the names of `gliner`'s checkpoints -> what torch's `load_state_dict` is to take in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gliner_fast.checkpoints import tensor_names
from gliner_fast.checkpoints.row_int8 import dequantize_rows

if TYPE_CHECKING:
    from gliner_fast.network import Network


@dataclass(frozen=True)
class Translated:
    """A state dict by our names.

    Attributes:
        tensors: by our names. Those of weights that were not given, or that do not fit, are the network's own, so that
            they stay as they are, and torch does not tell of names that nobody gave.
        read: given names that are done with: what they name is in `tensors`, or nobody runs it.
        missing: the package's names that were not given.
        errors: what does not fit, in torch's words.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def translate(network: Network, given: Mapping[str, Tensor]) -> Translated | None:
    """Translates a state dict; None where none of its names is the package's alone, so that torch may have it.

    Our own names may stand beside the package's, as in a state dict of the network that was updated with a file's; what
    has both is read from the package's.

    Args:
        network: that the state dict is for.
        given: tensors by the package's names, those of a compiled model, or of `int8` rows, included.
    """
    own: dict[str, Tensor] = network.state_dict(keep_vars=True)
    if given.keys() <= own.keys():
        return None  # before the names are made: this is the way of every checkpoint that is loaded
    names = tensor_names.checkpoint_names(network)
    known = {name for theirs in names.values() for name in theirs}
    tensors = dequantize_rows(tensor_names.by_first_names(given))
    if not any(name in known and name not in own for name in tensors):
        return None
    translated = Translated()
    first_names = {id(parameter): name for name, parameter in network.named_parameters()}
    for name, tensor in own.items():
        theirs = names[first_names[id(tensor)]] if id(tensor) in first_names else []
        if any(each in tensors for each in theirs) or (theirs and name not in given):
            translated.tensors[name] = _put_together(theirs, tensors, tensor, translated)
    for name in given:
        plain = tensor_names.first_name(name)
        if plain in known or plain not in tensors or tensor_names.is_unread(network, plain):
            translated.read.add(name)
    return translated


def _put_together(theirs: list[str], tensors: Mapping[str, Tensor], own: Tensor, translated: Translated) -> Tensor:
    """One of our tensors of those that it consists of; where one is not there, or does not fit, our own part of it."""
    parts, is_own = [], []
    for name, part in zip(theirs, own.detach().chunk(len(theirs)), strict=True):
        tensor = tensors.get(name)
        if tensor is None:
            if name not in translated.missing:  # T5's embeddings are two of ours
                translated.missing.append(name)
        elif tensor.shape != part.shape:
            translated.errors.append(
                f"size mismatch for {name}: copying a param with shape {tensor.shape} from checkpoint, the shape in "
                f"current model is {part.shape}."
            )
            tensor = None
        is_own.append(tensor is None)
        parts.append(part if tensor is None else tensor)
    if all(is_own):
        return own
    if len(parts) == 1:
        return parts[0]
    return torch.cat([part.to(own) for part in parts] if any(is_own) else parts)
