"""Number formats: names -> torch dtypes, and which of them this machine computes natively (DESIGN 4)."""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch
from torch import Tensor

from gliner_fast.cpu.native import is_intel

WholeNumbers = Literal["int16", "int8"]
_WHOLE_NUMBERS = get_args(WholeNumbers)
_NAMES = {
    **dict.fromkeys(("fp16", "float16", "half"), torch.float16),
    **dict.fromkeys(("bf16", "bfloat16"), torch.bfloat16),
    **dict.fromkeys(("fp32", "float32", "float"), torch.float32),
}


def parse_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype | None:
    """The dtype that `from_pretrained(dtype=...)` asks for; None leaves the default, float32.

    Raises:
        ValueError: an unknown name, or a torch dtype that is not a floating one.
    """
    if dtype in (torch.int8, torch.int16):
        name = str(dtype).removeprefix("torch.")
        raise ValueError(f"dtype is {dtype}: to multiply whole numbers of so many bits, give it as {name!r}, a string")
    if dtype is None:
        return None
    if isinstance(dtype, torch.dtype):
        if not dtype.is_floating_point:
            raise ValueError(f"dtype is {dtype}: expected a floating one such as torch.bfloat16")
        return dtype
    if isinstance(dtype, str) and dtype.lower() == "auto":
        return fastest_native_dtype(device)
    if not isinstance(dtype, str) or dtype.lower() not in _NAMES:
        raise ValueError(
            f"dtype is {dtype!r}: expected one of auto, int16, int8, {', '.join(_NAMES)} or a floating torch dtype"
        )
    return _NAMES[dtype.lower()]


def parse_precision(
    dtype: str | torch.dtype | None, quantize: str | None, device: torch.device
) -> tuple[torch.dtype | None, WholeNumbers | None]:
    """What `from_pretrained(dtype=..., quantize=...)` asks for: the weights' dtype, and whole numbers beside it.

    Raises:
        ValueError: an unknown name, whole numbers of two kinds, or some where there is no float32 on the CPU to be
            replaced.
    """
    whole = parse_whole_numbers(quantize) if quantize else None
    if isinstance(dtype, str) and dtype.lower() in _WHOLE_NUMBERS:
        if whole not in (None, dtype.lower()):
            raise ValueError(f"dtype is {dtype!r} and quantize {quantize!r}: leave one of them out")
        dtype, whole = None, parse_whole_numbers(dtype)
    elif isinstance(dtype, str) and dtype.lower() == "auto" and whole is not None:
        dtype = None  # what whole numbers take the place of
    parsed = parse_dtype(dtype, device)
    if whole is not None and (device.type != "cpu" or parsed not in (None, torch.float32)):
        raise ValueError(
            f"{whole} replaces float32 on the CPU, but {parsed or torch.float32} on {device} was asked for: leave out "
            f"{whole}, or dtype and device"
        )
    return parsed, whole


def parse_whole_numbers(name: object) -> WholeNumbers:
    """The kind of whole numbers of a name.

    Raises:
        ValueError: there is none of that name.
    """
    if isinstance(name, str) and name.lower() in _WHOLE_NUMBERS:
        return cast(WholeNumbers, name.lower())
    raise ValueError(f"quantize is {name!r}: expected {' or '.join(map(repr, _WHOLE_NUMBERS))}")


def fastest_native_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the hardware multiplies it natively and faster, fp16 on older GPUs, else fp32; never an emulated one.

    Of Intel's CPUs those with AMX do. By AVX-512 alone bf16 was 0.5 to 0.6 times as fast as float32 on a Xeon
    (`GLINER_FAST_BENCH_SIZES=base pytest benches/bench_precision.py -k "bf16 and bulk"`).
    """
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        return torch.bfloat16 if major >= 8 else torch.float16
    if device.type == "cpu":
        features = cpu_features()
        if "amx_bf16" in features or ("avx512_bf16" in features and not is_intel()):
            return torch.bfloat16
    return torch.float32


def cpu_features() -> list[str]:
    """What this CPU computes natively, of the features that matter for matrix products."""
    checks = {
        "avx2": "_is_avx2_supported",
        "avx512": "_is_avx512_supported",
        "avx512_vnni": "_is_vnni_supported",
        "avx512_bf16": "_is_avx512_bf16_supported",
        "amx_bf16": "_is_amx_tile_supported",
        "amx_fp16": "_is_amx_fp16_supported",
    }
    return [name for name, check in checks.items() if getattr(torch.cpu, check, bool)()]


def choose_device(name: str) -> torch.device:
    """The device of a name; "auto" is the GPU if there is one.

    Raises:
        ValueError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch raises either, by device
        reason = str(error).splitlines()[0]
        if reason.startswith("Expected one of"):  # all kinds of device that torch knows of
            reason = "expected auto, cpu, cuda, cuda:1 or mps"
        raise ValueError(f"device {name!r} cannot be used: {reason}") from error
    return torch.device(name)


def expect_computing(device: torch.device) -> torch.device:
    """Returns a device that can compute.

    Raises:
        ValueError: it is torch's "meta", which has shapes alone.
    """
    if device.type == "meta":
        raise ValueError("device 'meta' cannot be used: it has shapes and computes nothing")
    return device


def widened(numbers: Tensor) -> Tensor:
    """Numbers in the precision that sums run in: 16 bits become float32, others stay."""
    return numbers.to(torch.promote_types(numbers.dtype, torch.float32))


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """What autocast has a kind of device compute in, in this thread; None where it is off."""
    return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None
