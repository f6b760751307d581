"""Checkpoint tensors -> our network and back; the only file that knows the package's names (compat section 3)."""

from __future__ import annotations

import errno
import re
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from gliner_fast.checkpoints.locating import INT8_ROWS, weight_files
from gliner_fast.checkpoints.row_int8 import dequantize_rows
from gliner_fast.encoders.deberta import DebertaEncoder
from gliner_fast.errors import CheckpointError, CheckpointWarning, listed
from gliner_fast.network import Network
from gliner_fast.scorer import SpanScorer
from gliner_fast.scoring.token_scorer import TokenScorer
from gliner_fast.whole_files import errors_of_system

_ENCODER = "token_rep_layer.bert_layer.model."
_LABEL_ENCODER = "token_rep_layer.labels_encoder.model."
_SPAN_HEAD = "span_rep_layer.span_rep_layer."
_ADJACENCY = "relations_rep_layer.relation_rep_layer."
_TRIPLES = "triples_score_layer."
_SHOWN = 8

# Rows of the word-embedding matrix are read off the file, whatever the configuration says (compat section 2.2).
_EMBEDDINGS = re.compile(
    re.escape(_ENCODER) + r"(.*\.)?(word_embeddings|tok_embeddings|embed_tokens|shared|wte)\.weight$"
)
# Without those that are shared, as ALBERT's are.
_LAYER = re.compile(re.escape(_ENCODER) + r"(?:encoder\.|transformer\.)?(?:layers?|block)\.(\d{1,9})\.")
# Buffers that older transformers stored, and layers that exist in files but that GLiNER never runs.
_IGNORABLE = re.compile(r".*(position_ids|token_type_ids|\.pooler\..*|num_batches_tracked)$|^cross_fuser\..*")
# What peft calls the weights that it has put something around, and what it has put there.
_ADAPTED = re.compile(r"\.(base_layer|lora_\w+)\.")
# T5's embeddings have two names: of what a file holds under each, the package computes with the second.
_EMBEDDINGS_OF_T5 = [
    (f"{prefix}shared.weight", f"{prefix}encoder.embed_tokens.weight") for prefix in (_ENCODER, _LABEL_ENCODER)
]


def find_weights(folder: Path, variant: str | None = None) -> Path:
    """The file of weights in a checkpoint folder.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: the weights are sharded, which `gliner` does not write.
    """
    names = weight_files(variant)
    for name in names:
        if (folder / name).is_file():
            if variant is not None and name != names[0]:
                warnings.warn(f"No {names[0]} in {folder}: loading {name} and casting it", stacklevel=2)
            return folder / name
    if (folder / "model.safetensors.index.json").is_file():
        raise CheckpointError(f"{folder} holds sharded weights: merge them into one model.safetensors first")
    raise FileNotFoundError(f"No weights found in {folder}: expected model.safetensors or pytorch_model.bin there")


def write_weights(tensors: Mapping[str, Tensor], folder: Path, *, safe: bool) -> None:
    """Writes what `find_weights` finds in a folder from then on: `model.safetensors`, or `pytorch_model.bin`.

    A file is replaced as a whole: a model may be a map of the one that is there. A tensor that has two names is stored
    once, in safetensors as `gliner` does: the other name is told in the metadata.

    Raises:
        OSError: it cannot be written; names the file. An earlier one stays as it was.
    """
    target = folder / ("model.safetensors" if safe else "pytorch_model.bin")
    part = target.with_name(f"{target.name}.part")
    try:
        if safe:
            from safetensors.torch import save_file

            first_names: dict[int, str] = {}
            aliases = {name: first_names.setdefault(id(tensor), name) for name, tensor in tensors.items()}
            stored = {name: tensor for name, tensor in tensors.items() if aliases[name] == name}
            others = {name: saved for name, saved in aliases.items() if saved != name}
            with errors_of_system(target):
                part.touch()
                mode = part.stat().st_mode
                save_file(stored, part, metadata={"format": "pt", **others})
                part.chmod(mode)  # as of any new file: recent safetensors let nobody else read theirs
        else:
            with errors_of_system(target), part.open("wb") as file:
                torch.save(tensors, file)
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    outdated = ["model.fp16.safetensors", "model.bf16.safetensors", INT8_ROWS]
    for name in [*outdated, *([] if safe else ["model.safetensors"])]:
        (folder / name).unlink(missing_ok=True)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads all tensors of a file, memory-mapped where the format allows it.

    Raises:
        CheckpointError: the file is cut off or is not what its name says.
        OSError: the system does not let it be read.
    """
    try:
        if path.suffix != ".safetensors":
            # weights_only: a checkpoint is data, and must not be able to run code. Old files are no zip, so no map.
            tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        else:
            tensors = _read_safetensors(path)
    except Exception as error:  # of a broken pickle anything may come: IndexError, TypeError, ...
        # EINVAL is the file's fault: cut off, it sends torch to a place before its beginning.
        if (isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)) or isinstance(error, MemoryError):
            raise
        raise CheckpointError(f"{path} cannot be read ({error}): it is broken or cut off; fetch it again") from error
    if not isinstance(tensors, Mapping) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise CheckpointError(f"{path} does not hold a state dict: expected a mapping of names to tensors")
    for name, tensor in tensors.items():
        # A pickle may have others: without numbers, say, or with those that are not zero alone.
        is_plain = tensor.layout == torch.strided and not tensor.is_nested and tensor.device.type == "cpu"
        if not isinstance(name, str) or not is_plain:
            raise CheckpointError(f"{path} holds {name!r}, which is no plain tensor with a name: save it anew")
    return by_first_names(tensors)


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Reads the shapes of all stored tensors; of a .safetensors file its head alone, which is held to the file's size.

    Raises:
        CheckpointError: the file is cut off or is not what its name says.
    """
    if path.suffix != ".safetensors":
        return {name: tuple(tensor.shape) for name, tensor in read_weights(path).items()}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): it is broken or cut off; fetch it again") from error


def first_name(name: str) -> str:
    """The name by which a stored tensor is read."""
    name = name.replace("_orig_mod.", "")  # a compiled model saves its keys with this prefix
    return next((ours for ours, computed_with in _EMBEDDINGS_OF_T5 if name == computed_with), name)


def by_first_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stored tensors by the names by which they are read: of two for one, that which the package computes with."""
    seconds = [name for name in tensors if first_name(name) != name.replace("_orig_mod.", "")]
    named = {first_name(name): tensor for name, tensor in tensors.items()}
    return {**named, **{first_name(name): tensors[name] for name in seconds}}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator there)
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    # gliner stores one of several aliased tensors and the others' names in the metadata.
    for omitted, saved in metadata.items():
        if saved in tensors and omitted not in tensors:
            tensors[omitted] = tensors[saved]
    return dequantize_rows(tensors)


def embedding_rows(tensors: Mapping[str, Tensor]) -> int | None:
    """V, rows of the stored word-embedding matrix; None if the file has none."""
    matrices = (tensor for name, tensor in tensors.items() if _EMBEDDINGS.match(name) and tensor.ndim == 2)
    return next((len(matrix) for matrix in matrices), None)


def encoder_layers(tensors: Mapping[str, Tensor]) -> int | None:
    """Layers of the stored encoder; None where they do not bear numbers as in most encoders."""
    numbers = [int(match[1]) for name in tensors if (match := _LAYER.match(name))]
    return max(numbers) + 1 if numbers else None


def lstm_layers(tensors: Mapping[str, Tensor]) -> int:
    """Layers of the stored LSTM; 0 if there is none (Q4: then none is made up)."""
    layers = 0
    while f"rnn.lstm.weight_ih_l{layers}" in tensors:
        layers += 1
    return layers


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


def is_unread(network: Network, name: str) -> bool:
    """Whether a stored tensor may stay unread without a warning."""
    # Bi-encoders carry an LSTM that nobody runs (Q11).
    return bool(_IGNORABLE.match(name)) or (network.label_encoder is not None and name.startswith("rnn."))


def _refuse_other_numbers(parts: list[Tensor], names: list[str], source: str) -> None:
    for tensor, name in zip(parts, names, strict=True):
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            lost = f", and its scales ({name}.row_scale) are not there" if tensor.dtype == torch.int8 else ""
            raise CheckpointError(f"{source}: {name} is {kind}{lost}: expected floating-point numbers; fetch it again")


def _refuse_broken_vectors(tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuses NaN and infinity in biases and norms, which are read in no time: not in matrices, which stay unread."""
    vectors = {name: tensor for name, tensor in tensors.items() if tensor.ndim == 1}
    if vectors and not torch.cat(list(vectors.values())).isfinite().all():
        broken = [name for name, vector in vectors.items() if not vector.isfinite().all()]
        raise CheckpointError(f"{source} holds NaN or infinity in {_listed(broken)}: it is broken; fetch it again")


def _check_shape(tensor: Tensor, expected: Tensor, names: list[str], source: str) -> None:
    if tensor.shape != expected.shape:
        raise CheckpointError(
            f"{source}: {names[0]} has the shape {tuple(tensor.shape)}, but the configuration asks for "
            f"{tuple(expected.shape)}: gliner_config.json and the weights are not of one model"
        )


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
    for own, other in _EMBEDDINGS_OF_T5:
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


def checkpoint_names(network: Network) -> dict[str, list[str]]:
    """The package's name of each of our parameters; several where ours is theirs, one below the other.

    Raises:
        CheckpointError: a parameter has none, such as an adapter's.
    """
    modules = {
        **_head_names(network.scorer),
        **_mlp_names("relations.pairs", "pair_rep_layer"),
        **_span_head_names("relations.spans"),
        "projection": "token_rep_layer.projection",
        "label_encoder.projection": "token_rep_layer.labels_projection",
        "rnn.lstm": "rnn.lstm",
    }
    names: dict[str, list[str]] = {}
    for ours, _ in network.named_parameters():
        try:
            names[ours] = _names_of(ours, network, modules)
        except (KeyError, ValueError) as error:  # noqa: PERF203
            raise CheckpointError(
                f"the model's parameter {ours} has no place in a checkpoint: if it is an adapter's, merge the adapter "
                "into the weights (of peft: merge_and_unload)"
            ) from error
    return names


def _names_of(ours: str, network: Network, modules: Mapping[str, str]) -> list[str]:
    """Raises KeyError or ValueError where there is no name."""
    module, _, kind = ours.rpartition(".")
    if _ADAPTED.search(ours):
        raise KeyError(ours)
    if ours.startswith("encoder."):
        return _encoder_names(ours.removeprefix("encoder."), network.encoder, _ENCODER)
    if ours.startswith("label_encoder.encoder.") and network.label_encoder is not None:
        own = ours.removeprefix("label_encoder.encoder.")
        return _encoder_names(own, network.label_encoder.encoder, _LABEL_ENCODER)
    if ours.startswith("relations.adjacency."):
        return [_ADJACENCY + ours.removeprefix("relations.adjacency.")]
    if ours.startswith("relations.triples."):
        return [_TRIPLES + ours.removeprefix("relations.triples.")]
    return [f"{modules[module]}.{kind}"]


def _encoder_names(ours: str, encoder: nn.Module, prefix: str) -> list[str]:
    """Names of a parameter of an encoder, as transformers names it behind a prefix."""
    if not isinstance(encoder, DebertaEncoder):
        return [prefix + ours.removeprefix("model.")]
    module, _, kind = ours.rpartition(".")
    return [prefix + part for part in _deberta_names(module, kind)]


def _mlp_names(ours: str, theirs: str) -> dict[str, str]:
    """Of the two layers of a `ProjectionMLP` or `PairScorer`: in the package's, ReLU and dropout are 1 and 2."""
    return {f"{ours}.inner": f"{theirs}.0", f"{ours}.outer": f"{theirs}.3"}


def _span_head_names(ours: str, *, has_joint: bool = True) -> dict[str, str]:
    """Of the layers that make span vectors; `marker` has one behind the MLPs, others have two."""
    return {
        **_mlp_names(f"{ours}.start", f"{_SPAN_HEAD}project_start"),
        **_mlp_names(f"{ours}.end", f"{_SPAN_HEAD}project_end"),
        f"{ours}.joint": f"{_SPAN_HEAD}out_project.0",
        f"{ours}.out": f"{_SPAN_HEAD}out_project" + (".3" if has_joint else ""),
    }


def _head_names(scorer: SpanScorer | TokenScorer) -> dict[str, str]:
    """The package's name of each layer of a head."""
    if isinstance(scorer, TokenScorer):
        return {
            **_mlp_names("scorer.labels", "prompt_rep_layer"),
            "scorer.words": "scorer.proj_token",
            "scorer.types": "scorer.proj_label",
            "scorer.joint": "scorer.out_mlp.0",
            "scorer.out": "scorer.out_mlp.3",
        }
    return {
        **_mlp_names("scorer.prompt", "prompt_rep_layer"),
        **_span_head_names("scorer", has_joint=scorer.joint is not None),
    }


def _deberta_names(module: str, kind: str) -> list[str]:
    """Names that transformers gives a parameter of `DebertaEncoder`."""
    fixed = {
        "word_embeddings": "embeddings.word_embeddings",
        "embedding_norm": "embeddings.LayerNorm",
        "relative_embeddings": "encoder.rel_embeddings",
        "relative_norm": "encoder.LayerNorm",
    }
    if module in fixed:
        return [f"{fixed[module]}.{kind}"]
    _, layer, part = module.split(".")
    prefix = f"encoder.layer.{layer}"
    if part == "qkv":
        return [f"{prefix}.attention.self.{name}_proj.{kind}" for name in ("query", "key", "value")]
    inner = {
        "attention_output": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "intermediate": "intermediate.dense",
        "output": "output.dense",
        "output_norm": "output.LayerNorm",
    }
    return [f"{prefix}.{inner[part]}.{kind}"]


def from_backbone(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A transformers encoder's own tensors under the names that they have in a checkpoint."""
    return {_ENCODER + name: tensor for name, tensor in tensors.items()}
