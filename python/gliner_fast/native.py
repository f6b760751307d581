"""When the network's work goes to the native module instead of torch."""

from __future__ import annotations

import platform
from functools import cache

import torch

from gliner_fast import _rust
from gliner_fast.openmp import parallel_address


@cache
def rust_is_fastest() -> bool:
    """Whether the native module beats torch's products in float32 on this CPU.

    Where it was measured: with AVX2 but not AVX-512, and on torch's threads, as new ones would be in its way.
    """
    has_avx2 = torch.backends.cpu.get_cpu_capability() == "AVX2"
    return has_avx2 and is_x86() and _rust.has_vectors() and parallel_address() != 0


@cache
def is_x86() -> bool:
    """Whether this is one of the CPUs that oneDNN was made for."""
    return platform.machine().lower() in ("x86_64", "amd64")


def torch_must_see() -> bool:
    """Whether torch has to do the work itself: for a gradient, to record what is done, or to choose the precision."""
    return torch.is_grad_enabled() or is_recorded() or torch.is_autocast_enabled("cpu")


def is_recorded() -> bool:
    """Whether torch records what is done, to compile or trace it: of the native module's work it would see nothing."""
    return torch.compiler.is_compiling() or bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]
