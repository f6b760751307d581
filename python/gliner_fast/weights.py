"""Checkpoint tensors -> our network and back."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gliner_fast.checkpoints.tensor_names import SECOND_NAMES, checkpoint_names, is_unread
from gliner_fast.checkpoints.weight_files import find_weights, read_weights
from gliner_fast.errors import CheckpointError, CheckpointWarning, listed
from gliner_fast.network import Network

_SHOWN = 8


def load_weights(
    network: Network, tensors: Mapping[str, Tensor], *, dtype: torch.dtype | None, strict: bool, source: str
) -> None:
    """Assigns the tensors of a checkpoint to a network that was built on the meta device.

    A tensor that the file lacks is named in a warning and filled with zeros, a norm's weight with ones: never with
    random numbers (Q5). One of ours that several of the file make up is filled whole, if one of these is not there.

    Args:
        network: built inside `encoder.parameters_on_meta`.
        tensors: the file's tensors, by the package's names.
        dtype: what floating tensors are cast to; None for float32.
        strict: raise for missing and for unknown tensors, instead of a warning.
        source: the file, for messages.

    Raises:
        CheckpointError: a tensor of the wrong shape, or without numbers to compute with; with `strict`, a missing or
            unknown one.
    """
    names = checkpoint_names(network)
    expected = dict(network.named_parameters())
    state: dict[str, Tensor] = {}
    missing: list[str] = []
    for ours, theirs in names.items():
        absent = [name for name in theirs if name not in tensors]
        missing += absent
        if not absent:
            parts = [tensors[name] for name in theirs]
            _refuse_other_numbers(parts, theirs, source)
            tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
            _check_shape(tensor, expected[ours], theirs, source)
        elif ours.lower().endswith("norm.weight"):
            tensor = torch.ones(expected[ours].shape)
        else:
            tensor = torch.zeros(expected[ours].shape)
        # float32 weights stay in the mapped file: the mapping is private, so that training may write to them. Windows
        # lets nobody replace or remove a file that is mapped, as saving a model does.
        state[ours] = tensor.to(dtype or torch.float32, copy=sys.platform == "win32")
    wanted = {name for theirs in names.values() for name in theirs}
    _refuse_broken_vectors({name: tensor for name, tensor in tensors.items() if name in wanted}, source)
    unknown = [name for name in tensors if name not in wanted and not is_unread(network, name)]
    _report(missing, unknown, strict=strict, source=source)
    network.load_state_dict(state, strict=False, assign=True)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    for buffer in network.buffers():
        if buffer.is_floating_point() and dtype is not None:
            buffer.data = buffer.data.to(dtype)


def _refuse_other_numbers(parts: list[Tensor], names: list[str], source: str) -> None:
    for tensor, name in zip(parts, names, strict=True):
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            lost = f", and its scales ({name}.row_scale) are not there" if tensor.dtype == torch.int8 else ""
            raise CheckpointError(f"{source}: {name} is {kind}{lost}: expected floating-point numbers; fetch it again")


def _check_shape(tensor: Tensor, expected: Tensor, names: list[str], source: str) -> None:
    if tensor.shape != expected.shape:
        raise CheckpointError(
            f"{source}: {names[0]} has the shape {tuple(tensor.shape)}, but the configuration asks for "
            f"{tuple(expected.shape)}: gliner_config.json and the weights are not of one model"
        )


def _refuse_broken_vectors(tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuses NaN and infinity in biases and norms, which are read in no time: not in matrices, which stay unread."""
    vectors = {name: tensor for name, tensor in tensors.items() if tensor.ndim == 1}
    if vectors and not torch.cat(list(vectors.values())).isfinite().all():
        broken = [name for name, vector in vectors.items() if not vector.isfinite().all()]
        raise CheckpointError(f"{source} holds NaN or infinity in {_listed(broken)}: it is broken; fetch it again")


def _report(missing: list[str], unknown: list[str], *, strict: bool, source: str) -> None:
    found = []
    if missing:
        found.append(f"it lacks {_listed(missing)}, filled with zeros (norms: ones): predictions will be poor")
    if unknown:
        found.append(f"it holds {_listed(unknown)}, which the model does not use")
    if found and strict:
        raise CheckpointError(f"{source} does not fit the model: {'; '.join(found)}")
    for sentence in found:
        warnings.warn(f"{source}: {sentence}", CheckpointWarning, stacklevel=5)


def _listed(names: list[str]) -> str:
    shown = listed(sorted(names)[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def export_weights(network: Network) -> dict[str, Tensor]:
    """All tensors of a network under the package's names, ready to be saved; the inverse of `load_weights`."""
    ours = dict(network.named_parameters())
    tensors: dict[str, Tensor] = {}
    for name, theirs in checkpoint_names(network).items():
        for their, part in zip(theirs, ours[name].detach().cpu().chunk(len(theirs)), strict=True):
            tensors[their] = part.clone().contiguous()
    for own, other in SECOND_NAMES:
        if own in tensors:
            tensors.setdefault(other, tensors[own])
    return tensors


def has_weights_of(network: Network, folder: Path, variant: str | None = None) -> bool:
    """Whether a network has the weights that lie in a folder, bit for bit but for its dtype.

    Args:
        network: as it was loaded from there, or trained since.
        folder: a checkpoint's.
        variant: of the file, as it was loaded.

    Raises:
        FileNotFoundError: there are no weights, or not any more.
        CheckpointError: they cannot be read.
    """
    network = getattr(network, "_orig_mod", network)  # what `torch.compile` wraps
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # told when they were loaded
        stored = read_weights(find_weights(folder, variant))
    ours = dict(network.named_parameters())
    for name, theirs in checkpoint_names(network).items():
        if all(their in stored for their in theirs):
            own, tensor = ours[name].detach(), torch.cat([stored[their] for their in theirs])
            if own.shape != tensor.shape or not torch.equal(own, tensor.to(own)):
                return False
    return True
