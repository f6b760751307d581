"""Numbers of the host -> the device, without a wait."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def upload(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """The same tensors on a device, copied at once; they share a dtype, and memory there.

    On CUDA they are gathered in pinned memory first: only from there a copy runs while the host goes on. torch keeps
    that memory until the copy is done.
    """
    if device.type == "cpu":
        return list(tensors)
    return send(gather(tensors, pin=device.type == "cuda"), [tensor.shape for tensor in tensors], device)


def gather(tensors: Sequence[Tensor], *, pin: bool) -> Tensor:
    """Tensors of one dtype, flat and one after another: the part of an upload that any thread can do beforehand."""
    flat = [tensor.reshape(-1) for tensor in tensors]
    if not pin:
        return torch.cat(flat)
    gathered = _pinned(sum(map(len, flat)), flat[0].dtype)
    # By numpy: torch would take all threads for it, beside the thread that starts the card's kernels.
    np.concatenate([part.numpy() for part in flat], out=gathered.numpy())
    return gathered


def _pinned(numbers: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(numbers, dtype=dtype, device="cpu", pin_memory=True)


def send(gathered: Tensor, shapes: Sequence[torch.Size], device: torch.device) -> list[Tensor]:
    """What `gather` made, on a device and in its shapes again."""
    parts = torch.split(move(gathered, device), [shape.numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def move(numbers: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device; CUDA's copy may still be under way.

    Another device could read the memory after it was freed: Apple's does (https://github.com/pytorch/pytorch/issues/189690).
    """
    return numbers.to(device, non_blocking=device.type == "cuda")
