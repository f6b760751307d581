"""Files of weights: which one a checkpoint folder holds, and the tensors in it, out and in."""

from __future__ import annotations

import errno
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gliner_fast.checkpoints.locating import INT8_ROWS, weight_names
from gliner_fast.checkpoints.row_int8 import dequantize_rows
from gliner_fast.checkpoints.tensor_names import by_first_names
from gliner_fast.errors import CheckpointError
from gliner_fast.whole_files import errors_of_system


def find_weights(folder: Path, variant: str | None = None) -> Path:
    """The file of weights in a checkpoint folder.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: the weights are sharded, which `gliner` does not write.
    """
    names = weight_names(variant)
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
