"""When the network's work goes to the native module, or to a kernel, instead of torch."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from gliner_fast import _rust
from gliner_fast.cpu.openmp import parallel_address

# What native attention, LSTM and span scores take; the first two round their results to it again.
_WIDENED = (torch.float32, torch.bfloat16, torch.float16)


@cache
def rust_is_fastest() -> bool:
    """Whether the native module's attention, LSTM and spans beat torch's on this CPU.

    Measured with AVX2 on AMD's CPUs and AVX-512 on Intel's and AMD's, on torch's threads, as new ones would be in its
    way; the attention's present form with AVX-512 alone, and 16 bits, which are widened, with AMX alone.
    """
    is_known = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    return is_known and is_x86() and _rust.has_vectors() and parallel_address() != 0


@cache
def mkl_is_fastest() -> bool:
    """Whether torch's own products of many rows in float32 are the fastest: those of MKL, on CPUs it was made for.

    Measured on a Xeon with AVX-512. On others' CPUs MKL does without these vectors.
    """
    has_mkl: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    return has_avx512() and has_mkl and is_intel()


def has_avx512() -> bool:
    """Whether torch computes with AVX-512 on this CPU, as the native module then does."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


def is_intel() -> bool:
    """Whether Intel made this CPU."""
    return "GenuineIntel" in _description()


@cache
def _description() -> str:
    """What the system says about the CPU, its vendor among other things."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()


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


def is_float32_on_cpu(tensor: Tensor) -> bool:
    """Whether the native module computes in what a tensor holds, and where."""
    return tensor.dtype is torch.float32 and tensor.device.type == "cpu"


def rust_takes(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the native module takes tensors of a device and dtype: in float32, to which 16 bits are widened."""
    return device.type == "cpu" and dtype in _WIDENED


def is_bare(module: nn.Module) -> bool:
    """Whether calling a module does no more than its class's `forward`, in eval mode."""
    return not module.training and has_nothing_added(module) and not all_have_hooks()


def has_nothing_added(module: nn.Module) -> bool:
    """Whether a module has no hook, no compiled call and no `forward` of its own."""
    own = module.__dict__  # torch's way to attributes takes longer
    return not (
        own["_forward_hooks"] or own["_forward_pre_hooks"] or own.get("_compiled_call_impl") or "forward" in own
    )


def all_have_hooks() -> bool:
    """Whether hooks are called with every module."""
    everyone_s = torch.nn.modules.module
    return bool(everyone_s._global_forward_hooks or everyone_s._global_forward_pre_hooks)  # noqa: SLF001


def triton_is_fastest(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a kernel of ours is the one to take for tensors of a device and dtype."""
    if device.type != "cuda":
        return False
    from gliner_fast.kernels._triton import DTYPES, HAS_TRITON

    return HAS_TRITON and dtype in DTYPES and _is_supported_by_triton(device)  # matrix units take no float64


@cache
def _is_supported_by_triton(device: torch.device) -> bool:
    """Whether Triton supports a card: from compute capability 8.0 (Ampere) on."""
    return torch.cuda.get_device_capability(device) >= (8, 0)


def asked_executor(variable: str, names: Sequence[str]) -> str:
    """Who an environment variable says does some work; "" leaves it to whoever is the fastest.

    Raises:
        ValueError: it says none of the names.
    """
    asked = os.environ.get(variable, "")
    if asked and asked not in names:
        expected = " or ".join(names) if len(names) == 2 else f"one of {', '.join(names)}"
        raise ValueError(f"{variable} is {asked!r}: expected {expected}, or leave it unset for the fastest")
    return asked


def expect_rust(device: torch.device, dtype: torch.dtype, variable: str) -> None:
    """Raises ValueError, in the terms of the variable that asks for it, where the native module cannot compute."""
    if not rust_takes(device, dtype):
        raise ValueError(
            f"{variable} is 'rust', but the model computes in {dtype} on {device}: Rust takes float32, bf16 and fp16 "
            "on a CPU; leave the variable unset for the fastest"
        )


def expect_triton(device: torch.device, variable: str) -> None:
    """Raises ValueError, in the terms of the variable that asks for it, where Triton cannot run."""
    from gliner_fast.kernels._triton import HAS_TRITON, INTERPRETED, OLDEST

    if not HAS_TRITON:
        raise ValueError(
            f"{variable} is 'triton', but Triton {'.'.join(map(str, OLDEST))} or a later one is not installed: "
            "pip install 'gliner-fast[gpu]', or leave the variable unset"
        )
    if device.type != "cuda" and not INTERPRETED:
        raise ValueError(
            f"{variable} is 'triton', but the model is on {device}: load it with map_location='cuda', or set "
            "TRITON_INTERPRET=1 before Python starts to run the kernel on the CPU, very slowly"
        )


def allows_tf32() -> bool:
    """Whether torch itself may multiply float32 in TF32 (10 bits of each factor)."""
    matmul = torch.backends.cuda.matmul
    # From torch 2.9 on there is a setting by name, and where it was used the old one raises.
    precision = getattr(matmul, "fp32_precision", None)
    return bool(matmul.allow_tf32) if precision is None else precision == "tf32"
