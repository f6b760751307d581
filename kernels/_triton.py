"""The one place that asks whether Triton is here, and new enough.

Kernel files take `jit`, `tl` and `loop_bound` from this file and nothing else from Triton, so that a machine without it
can import them all. What all kernels take is told here too. Whoever starts kernels imports them only then: Triton takes
its time to import, and most processes on a CPU never need it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

# How every kernel is compiled: a product and the sum it goes into are one instruction. Said each time, since Triton 3.9
# warns of whoever leaves it to Triton, whose default changes with 3.10.
COMPILED_AS = {"enable_fp_fusion": True}
# Of what is given to a kernel.
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Triton 3.2, which torch 2.6 brings, has no `tl.gather`, and 3.3, of torch 2.7, fails to compile some of its uses.
OLDEST = (3, 4)


def _load_triton() -> tuple[ModuleType | None, Any]:
    """Triton and its language, or None twice where it is missing (Windows, macOS, a slim container) or too old."""
    try:
        import triton
        import triton.language
    except ImportError:
        return None, None
    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    return (triton, triton.language) if version >= OLDEST else (None, None)


_TRITON, tl = _load_triton()

HAS_TRITON: bool = _TRITON is not None

# Kernels run in Triton's interpreter, on the CPU: slow, but tests need no GPU. Triton looks at the variable when a
# kernel is made, so it must be set before the first of them is imported.
INTERPRETED: bool = HAS_TRITON and os.environ.get("TRITON_INTERPRET") == "1"


def expect_taken(given: Tensor, name: str) -> None:
    """Raises TypeError or ValueError for a tensor of a dtype or on a device that kernels do not take.

    Args:
        given: to a kernel.
        name: of it, with its verb.
    """
    if given.dtype not in DTYPES:
        raise TypeError(f"{name} {given.dtype}: expected float32, float16 or bfloat16; the reference takes any")
    if not (given.is_cuda or INTERPRETED):
        raise ValueError(
            f"{name} on {given.device}: the kernel needs Triton and a CUDA device, or TRITON_INTERPRET=1 set before "
            "gliner_fast is imported; the reference runs anywhere"
        )


class Card(NamedTuple):
    """What block sizes depend on.

    Attributes:
        name: as `torch.cuda.get_device_name` gives it.
        major: of the compute capability: 8 is Ampere and Ada, 9 Hopper, 10 and 12 Blackwell.
    """

    name: str
    major: int


@cache
def card_of(device: torch.device) -> Card:
    """What a CUDA device is; the interpreter stands for a Hopper without a name."""
    if device.type != "cuda":
        return Card("", 9)
    return Card(torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)[0])


def is_kernel(candidate: Any) -> bool:
    """Whether something is what `jit` makes of a function, to be compiled for a card."""
    return _TRITON is not None and isinstance(candidate, _TRITON.JITFunction)


def jit(function: Any) -> Any:
    """Makes a Triton kernel of the function; without Triton, returns it unchanged (and nobody starts it)."""
    return function if _TRITON is None else _TRITON.jit(function)


def jit_for_any(*, numbers: Sequence[str] = (), addresses: Sequence[str] = ()) -> Callable[[Any], Any]:
    """`jit` for a kernel with arguments that differ from batch to batch.

    Triton compiles a kernel anew, for a second or so, the first time that a number is 1 or a multiple of 16, and that
    an address is a multiple of 16 or is not; for these arguments it does not.

    Args:
        numbers: names of numbers.
        addresses: names of pointers into larger tensors.
    """

    def decorate(function: Any) -> Any:
        if _TRITON is None:
            return function
        return _TRITON.jit(function, do_not_specialize=numbers, do_not_specialize_on_alignment=addresses)

    return decorate


def _itself(number):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202  # a kernel's types are not Python's
    return number


# What `range` takes where its bound comes from memory. The interpreter holds such a number in an array of one, which
# numpy 2.4 gives to no `range`; `while` would do, but of `while` the compiler loads nothing ahead.
loop_bound: Any = (lambda number: int(number.handle.data.item())) if INTERPRETED else jit(_itself)
