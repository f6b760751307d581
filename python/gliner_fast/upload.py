"""Numbers of the host -> the device, without a wait."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def upload(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """The same tensors on a device, copied at once; they share a dtype, and memory there.

    On CUDA they are gathered in pinned memory first: only from there a copy runs while the host goes on. torch keeps
    that memory until the copy is done.
    """
    if device.type == "cpu":
        return list(tensors)
    gathered = torch.cat([tensor.reshape(-1) for tensor in tensors])
    if device.type == "cuda":
        gathered = gathered.pin_memory()
    parts = torch.split(gathered.to(device, non_blocking=True), [tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
