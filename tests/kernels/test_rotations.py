"""The Triton kernel that turns queries and keys, against the plain one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gliner_fast.kernels import _triton
from gliner_fast.kernels import rotations as module
from gliner_fast.kernels.attention_reference import Rotations
from gliner_fast.kernels.rotations import rotate_in_place
from tests.device_waits import no_wait
from tests.kernels.spans import DEVICES, DTYPES, CountingKernel, assert_close_to_exact, needs_triton

pytestmark = needs_triton

MIXED = [33, 1, 0, 64, 2, 70, 31]


class Layer:
    """Random inputs of one layer, whose angles go around several times."""

    def __init__(
        self, lengths: list[int], heads: int, head_dim: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        self.qkv = torch.randn(sum(lengths), 3, heads, head_dim, generator=generator).to(device, dtype)
        speeds = 100.0 ** -(torch.arange(head_dim // 2) / head_dim)
        angles = torch.arange(max(lengths, default=0) + 3)[:, None] * speeds  # may reach further than the texts
        self.rotations = Rotations(angles.cos().to(device), angles.sin().to(device))
        self.places = torch.cat([torch.arange(length) for length in lengths]).to(device)

    def turned(self) -> Tensor:
        qkv = self.qkv.clone()
        rotate_in_place(qkv, self.rotations, self.places)
        return qkv

    def plain(self) -> Tensor:
        return self.rotations.rotate(self.qkv, self.places)

    def exact(self) -> Tensor:
        rotations = Rotations(self.rotations.cosines.double(), self.rotations.sines.double())
        return rotations.rotate(self.qkv.double(), self.places)

    def check(self) -> None:
        ours = self.turned()
        assert ours.dtype is self.qkv.dtype
        assert_close_to_exact(ours, self.plain(), self.exact())
        assert torch.equal(ours[:, 2], self.qkv[:, 2])  # values stay as they are


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> CountingKernel:
    counting = CountingKernel(module._rotation_kernel)
    monkeypatch.setattr(module, "_rotation_kernel", counting)
    return counting


@pytest.mark.parametrize("device", DEVICES)
def test_each_pair_of_numbers_is_a_point_that_goes_around(device: str):
    layer = Layer([5, 3], 2, 8, device=device)
    found = layer.turned()
    for subword, place in enumerate([0, 1, 2, 3, 4, 0, 1, 2]):
        for part in range(2):
            first, second = layer.qkv[subword, part].chunk(2, -1)  # (H, d / 2) each
            cosines, sines = layer.rotations.cosines[place], layer.rotations.sines[place]
            point = torch.complex(first, second) * torch.complex(cosines, sines)
            torch.testing.assert_close(found[subword, part], torch.cat([point.real, point.imag], -1))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("heads", "head_dim"), [(1, 2), (4, 16), (3, 32), (12, 64), (2, 128)])
def test_the_kernel_is_as_good_as_plain_torch(
    heads: int, head_dim: int, dtype: torch.dtype, device: str, kernel: CountingKernel
):
    Layer([7, 1, 12], heads, head_dim, dtype, device).check()
    assert kernel.launches == 1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_texts_of_all_lengths_share_a_batch(dtype: torch.dtype, device: str):
    Layer(MIXED, 3, 16, dtype, device).check()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("length", [1, 2, 65])
def test_any_number_of_subwords(length: int, device: str):
    Layer([length], 2, 16, device=device).check()


@pytest.mark.parametrize("device", DEVICES)
def test_no_subwords_start_nothing(device: str, kernel: CountingKernel):
    assert Layer([0], 2, 16, device=device).turned().shape == (0, 3, 2, 16)
    assert kernel.launches == 0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nothing_but_queries_and_keys_is_written(dtype: torch.dtype, device: str):
    layer = Layer([5], 3, 16, dtype, device)  # six heads of the eight that a program has room for
    memory = torch.full((9, 3, 3, 16), 7.0, dtype=dtype, device=device)
    memory[2:7] = layer.qkv
    rotate_in_place(memory[2:7], layer.rotations, layer.places)
    assert torch.equal(memory[2:7], layer.turned())
    assert (memory[:2] == 7).all()
    assert (memory[7:] == 7).all()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy, which the interpreter computes with
@pytest.mark.parametrize("device", DEVICES)
def test_what_is_not_finite_stays_in_its_plane(device: str):
    layer = Layer([4], 2, 16, device=device)
    clean = layer.turned()
    layer.qkv[1, 0, 1, 3], layer.qkv[2, 1, 0, 12] = math.nan, math.inf
    found = layer.turned()
    for at in ((1, 0, 1, 3), (1, 0, 1, 11), (2, 1, 0, 4), (2, 1, 0, 12)):
        assert not found[at].isfinite()
        found[at] = clean[at]
    assert torch.equal(found, clean)


# --- what it does not take --------------------------------------------------------------------------------------------


def test_other_dtypes_are_refused():
    with pytest.raises(TypeError, match=r"qkv is torch\.float64: expected float32, float16 or bfloat16"):
        Layer([2], 2, 16, torch.float64).turned()


@pytest.mark.parametrize("head_dim", [1, 24])
def test_other_heads_are_refused(head_dim: int):
    layer = Layer([2], 2, head_dim)
    with pytest.raises(ValueError, match=f"heads are {head_dim} wide: the kernel takes powers of two"):
        rotate_in_place(layer.qkv, layer.rotations, layer.places)


def test_numbers_that_do_not_lie_one_after_another_are_refused():
    layer = Layer([3], 2, 16)
    with pytest.raises(ValueError, match=r"the strides of qkv are \(96, 32, 1, 2\): expected numbers that lie one"):
        rotate_in_place(layer.qkv.mT.contiguous().mT, layer.rotations, layer.places)
    with pytest.raises(ValueError, match=r"the strides of qkv are \(96, 32, 16, 1\): expected numbers that lie one"):
        rotate_in_place(layer.qkv[:, :, :1], layer.rotations, layer.places)  # some heads: rows that stand apart


def test_a_cpu_without_the_interpreter_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_triton, "INTERPRETED", False)
    with pytest.raises(ValueError, match="qkv is on cpu: the kernel needs Triton and a CUDA device, or TRITON"):
        Layer([2], 2, 16).turned()


# --- on a card --------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_the_host_waits_for_nothing():
    layer = Layer(MIXED, 12, 64, torch.bfloat16, "cuda")
    layer.turned()  # compiles
    with no_wait():
        layer.turned()


@pytest.mark.gpu
def test_offsets_beyond_2_to_the_31():
    heads, head_dim = 16, 64
    subwords = 2**31 // (3 * heads * head_dim) + 2
    last = Layer([2], heads, head_dim, torch.bfloat16, "cuda")
    qkv = torch.zeros(subwords, 3, heads, head_dim, dtype=torch.bfloat16, device="cuda")
    places = torch.zeros(subwords, dtype=torch.int64, device="cuda")
    qkv[-2:], places[-2:] = last.qkv, last.places
    rotate_in_place(qkv, last.rotations, places)
    assert qkv.numel() > 2**31
    assert torch.equal(qkv[-2:], last.turned())
