"""Starting a kernel again without Triton's own questions to its arguments, which take longer than the start itself.

Triton asks each argument what kind it is, to find what it compiled for such ones. Here only what may change the answer
is looked at, and addresses are handed over as numbers. What a kernel was compiled to is started as Triton's tutorials
do: `compiled[grid](*arguments)`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gliner_fast.kernels._triton import COMPILED_AS, is_kernel

# What a kernel was compiled to, by all that Triton compiles it anew for. By the kernel's id, and the kernel is kept.
_started: dict[int, tuple[Any, dict[tuple[object, ...], Any]]] = {}
_ALIGNED = 16  # bytes; from an address of this kind a kernel loads more at a time


def start(kernel: Any, grid: tuple[int, ...], *given: Any, **constants: Any) -> None:
    """kernel[grid](*given, **constants) on the device of the first argument; the host waits for nothing.

    Args:
        kernel: a kernel of Triton's.
        grid: programs, in up to three dimensions.
        given: all arguments of the kernel but its constants, which it declares last; the first is a tensor.
        constants: these, and how they are to be compiled; always in the same order.
    """
    first = given[0]
    if not first.is_cuda or not is_kernel(kernel):  # interpreted, or somebody stands in for the kernel
        kernel[grid](*given, **constants, **COMPILED_AS)
        return
    device = first.get_device()
    if device != torch.cuda.current_device():
        with torch.cuda.device(device):
            start(kernel, grid, *given, **constants)
        return
    # In one loop, and without a call for each argument: three dozen starts a batch come through here.
    kinds: list[object] = [device, *constants.values()]
    handed: list[object] = []
    for one in given:
        if one is None:
            kinds.append(None)
            handed.append(None)
        elif isinstance(one, Tensor):
            address = one.data_ptr()
            kinds.append(one.dtype)
            if address % _ALIGNED:
                kinds.append("not aligned")
            handed.append(address)
        else:
            kinds.append(_kind(one))
            handed.append(one)
    kind = tuple(kinds)
    known = _started.get(id(kernel))
    compiled = None if known is None else known[1].get(kind)
    if compiled is None:
        _started.setdefault(id(kernel), (kernel, {}))[1][kind] = kernel[grid](*given, **constants, **COMPILED_AS)
        return
    handed += [None] * (len(kernel.params) - len(given))  # the constants, which are compiled in
    stream = torch._C._cuda_getCurrentRawStream(device)  # noqa: SLF001  (as Triton itself asks)
    compiled[grid + (1,) * (3 - len(grid))](*handed, stream=stream)


def _kind(one: object) -> object:
    """Of a number, all that Triton may compile anew for: of which sort it is, 1 or a round one, and how many bits."""
    if isinstance(one, int):
        return (one == 1) + 2 * (one % _ALIGNED == 0) + 4 * (one.bit_length() // 32)
    return type(one)
