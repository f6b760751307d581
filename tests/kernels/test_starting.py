"""What a kernel was compiled to is started again, for arguments that Triton would not compile it anew for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gliner_fast.kernels import starting
from gliner_fast.kernels._triton import COMPILED_AS, jit_for_any, tl
from gliner_fast.kernels.starting import start


class OnCard(Tensor):
    """A tensor that says that it is on a card."""

    is_cuda = True
    device_number = 0

    def get_device(self) -> int:
        return self.device_number


class Kernel:
    """Stands for a kernel with four arguments and a constant: tells what it was compiled for and started with."""

    def __init__(self) -> None:
        self.params = range(5)
        self.devices: list[int] = []  # that were the current ones
        self.compiled: list[tuple[Any, ...]] = []
        self.started: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., Kernel]:
        def run(*given: Any, **constants: Any) -> Kernel:
            self.devices.append(torch.cuda.current_device())
            if "stream" in constants:
                self.started.append((grid, given, constants["stream"]))
            else:
                self.compiled.append((grid, given, constants))
            return self

        return run


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    own = Kernel()
    monkeypatch.setattr(starting, "is_kernel", lambda given: given is own)
    monkeypatch.setattr(starting, "_started", {})
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda device: f"stream of {device}", raising=False)
    return own


def numbers(dtype: torch.dtype = torch.float32, skipped: int = 0) -> Tensor:
    """(8,) at an address that is a multiple of 64 bytes, and so many numbers further."""
    held = torch.zeros(64, dtype=dtype)
    first = -held.data_ptr() % 64 // held.element_size()
    return held[first + skipped : first + skipped + 8].as_subclass(OnCard)


def test_what_is_known_is_started_with_addresses_on_the_current_stream(kernel: Kernel) -> None:
    given = numbers()
    other = numbers()
    start(kernel, (3,), given, None, 7, 0.5, SIZE=16, num_warps=4)
    assert kernel.compiled == [((3,), (given, None, 7, 0.5), {"SIZE": 16, "num_warps": 4, **COMPILED_AS})]
    assert not kernel.started
    start(kernel, (5, 2), other, None, 9, 0.25, SIZE=16, num_warps=4)
    assert len(kernel.compiled) == 1
    assert kernel.started == [((5, 2, 1), (other.data_ptr(), None, 9, 0.25, None), "stream of 0")]
    assert starting._started[id(kernel)][0] is kernel  # or another could get its id


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((numbers(), None, 7, 0.5), (numbers(torch.bfloat16), None, 7, 0.5)),
        ((numbers(), None, 7, 0.5), (numbers(skipped=1), None, 7, 0.5)),
        ((numbers(), None, 7, 0.5), (numbers(skipped=2), None, 7, 0.5)),  # 8 bytes
        ((numbers(), None, 7, 0.5), (numbers(), numbers(), 7, 0.5)),
        ((numbers(), None, numbers(), 0.5), (numbers(), numbers(), None, 0.5)),
        ((numbers(), None, 7, 0.5), (numbers(), None, 1, 0.5)),
        ((numbers(), None, 7, 0.5), (numbers(), None, 32, 0.5)),
        ((numbers(), None, 7, 0.5), (numbers(), None, 2**31, 0.5)),
        ((numbers(), None, 7, 0.5), (numbers(), None, 7, 2)),
        ((numbers(), None, 2**33 + 1, 0.5), (numbers(), None, 2**63 + 1, 0.5)),
    ],
)
def test_triton_is_asked_where_it_may_compile_anew(first: tuple[Any, ...], second: tuple[Any, ...], kernel: Kernel):
    for _ in range(2):
        start(kernel, (3,), *first, SIZE=16, num_warps=4)
        start(kernel, (3,), *second, SIZE=16, num_warps=4)
    assert len(kernel.compiled) == len(kernel.started) == 2


def test_triton_is_asked_for_other_constants_and_another_device(kernel: Kernel, monkeypatch: pytest.MonkeyPatch):
    for size in (16, 32, 16):
        start(kernel, (3,), numbers(), None, 7, 0.5, SIZE=size, num_warps=4)
    assert (len(kernel.compiled), len(kernel.started)) == (2, 1)
    monkeypatch.setattr(OnCard, "device_number", 1)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    start(kernel, (3,), numbers(), None, 7, 0.5, SIZE=16, num_warps=4)
    assert (len(kernel.compiled), len(kernel.started)) == (3, 1)


def test_it_is_started_where_its_first_argument_is(kernel: Kernel, monkeypatch: pytest.MonkeyPatch):
    current = [0]

    class Device:
        def __init__(self, number: int) -> None:
            self.number = number

        def __enter__(self) -> None:
            self.before, current[0] = current[0], self.number

        def __exit__(self, *_: object) -> None:
            current[0] = self.before

    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[0])
    monkeypatch.setattr(torch.cuda, "device", Device)
    monkeypatch.setattr(OnCard, "device_number", 1)
    for _ in range(2):
        start(kernel, (3,), numbers(), None, 7, 0.5, SIZE=16, num_warps=4)
    assert kernel.started[0][-1] == "stream of 1"
    assert kernel.devices == [1, 1]
    assert current == [0]


def test_on_a_cpu_and_in_a_kernels_stead_nothing_is_kept(kernel: Kernel) -> None:
    plain = torch.zeros(8)
    for _ in range(2):
        start(kernel, (3,), plain, None, 7, 0.5, SIZE=16)
    assert len(kernel.compiled) == 2
    stand_in = Kernel()
    for _ in range(2):
        start(stand_in, (3,), numbers(), None, 7, 0.5, SIZE=16)
    assert len(stand_in.compiled) == 2
    assert not starting._started


@jit_for_any()
def _double(of_ptr, out_ptr, count, factor, size: tl.constexpr):
    at = tl.program_id(0) * size + tl.arange(0, size)
    tl.store(out_ptr + at, tl.load(of_ptr + at, mask=at < count) * factor, mask=at < count)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_card_computes_the_same_each_time(dtype: torch.dtype):
    for count in (1, 7, 16, 100, 1024):
        for factor in (2.0, 0.5):
            for skipped in (0, 1):
                given = torch.arange(count + skipped, device="cuda").to(dtype)[skipped:]
                out = torch.zeros_like(given)
                start(_double, (-(-count // 32),), given, out, count, factor, size=32, num_warps=1)
                assert torch.equal(out, given * factor)
