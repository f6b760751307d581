"""Weights as int8 with one scale a row: a quarter of float32's size, for models that travel in a wheel.

A matrix NAME is stored as int8 beside `NAME.row_scale`, (rows,) float32; NAME[i] x row_scale[i] is what it was, within
1/254 of the row's largest number. Only storage: networks compute in the dtype that they are loaded in.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_SCALE = ".row_scale"
_LEAST = 4096  # numbers; what is smaller is hardly worth a scale


def quantize_rows(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with every large matrix in int8 rows; the others, biases above all, as they are."""
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or tensor.numel() < _LEAST or not tensor.is_floating_point():
            stored[name] = tensor
            continue
        largest = tensor.float().abs().amax(dim=1)  # (rows,)
        scale = torch.where(largest > 0, largest / 127, 1.0)
        stored[name] = (tensor.float() / scale[:, None]).round().to(torch.int8)
        stored[name + _SCALE] = scale
    return stored


def is_scale(name: str) -> bool:
    """Whether a stored tensor holds the scales of another's rows."""
    return name.endswith(_SCALE)


def dequantize_rows(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse, in float32; tensors that are in no int8 rows come back as they are.

    Raises:
        ValueError: a matrix and its scales do not go together, or these are no numbers.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if name.endswith(_SCALE) and name.removesuffix(_SCALE) in stored:
            continue
        scale = stored.get(name + _SCALE)
        if scale is None:
            tensors[name] = tensor
        elif tensor.dtype != torch.int8 or tensor.ndim != 2 or scale.shape != tensor.shape[:1]:
            raise ValueError(
                f"{name!r} is {tensor.dtype} of {tuple(tensor.shape)} with {tuple(scale.shape)} scales: expected an "
                "int8 matrix with one scale a row"
            )
        elif not scale.is_floating_point() or not scale.isfinite().all():
            raise ValueError(f"the scales {name}{_SCALE} are {scale.dtype}, or NaN or infinite: expected finite floats")
        else:
            tensors[name] = tensor.float() * scale[:, None].float()
    return tensors
