"""The Triton kernel of residual and norm against its plain reference."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gliner_fast.kernels import _triton
from gliner_fast.kernels import add_norm as module
from gliner_fast.kernels.add_norm import add_norm, add_norm_reference
from tests.kernels.spans import DEVICES, DTYPES, CountingKernel, assert_close_to_exact, needs_triton

pytestmark = needs_triton

EPS = 1e-7


class OnCard(Tensor):
    """A tensor that says that it is on a card, where the launch function asks less of what is as it should be."""

    is_cuda = True


def random_rows(rows: int, columns: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> list[Tensor]:
    """Vectors, residual, weight and bias of about unit size, the vectors away from 0."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(rows, columns), (rows, columns), (columns,), (columns,)]
    given = [torch.randn(*shape, generator=generator) for shape in shapes]
    given[0] += 3
    return [part.to(device, dtype) for part in given]


def check(given: list[Tensor], **options: float) -> Tensor:
    """Compares the kernel with plain torch in float64, and gives what it found."""
    options = {"eps": EPS} | options
    ours, plain = add_norm(*given, **options), add_norm_reference(*given, **options)
    exact = add_norm_reference(*(part.double() for part in given), **options)
    assert (ours.dtype, ours.shape) == (plain.dtype, plain.shape)
    assert_close_to_exact(ours, plain, exact)
    return ours


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> CountingKernel:
    counting = CountingKernel(module._add_norm_kernel)
    monkeypatch.setattr(module, "_add_norm_kernel", counting)
    return counting


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("columns", [1, 2, 33, 64, 384, 768, 1024, 1536])
def test_the_kernel_is_as_good_as_plain_torch(columns: int, dtype: torch.dtype, device: str, kernel: CountingKernel):
    check(random_rows(5, columns, dtype, device))
    assert kernel.launches == 1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_sixteen_bits_are_rounded_once(dtype: torch.dtype, device: str):
    given = random_rows(5, 96, dtype, device)
    exact = add_norm_reference(*(part.double() for part in given), eps=EPS)
    bias = given[3].double()  # with which what was rounded in between would be lost, or not
    last_bit = torch.finfo(dtype).eps * (exact.abs() / 2 + 1e-4 * bias.abs() + 1e-4)
    assert ((add_norm(*given, eps=EPS).double() - exact).abs() <= last_bit).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rows", [0, 1, 2, 65])
def test_any_number_of_rows(rows: int, device: str, kernel: CountingKernel):
    check(random_rows(rows, 48, device=device))
    assert kernel.launches == min(rows, 1)  # nothing is started for none


@pytest.mark.parametrize("device", DEVICES)
def test_the_widest_rows(device: str):
    check(random_rows(1, module.MOST_COLUMNS, device=device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("eps", [1e-12, 1e-5, 0.1])
def test_eps_is_added_to_the_variance(eps: float, device: str):
    vectors, residual, weight, bias = random_rows(3, 32, device=device)
    check([vectors * 1e-2, residual * 1e-2, weight, bias], eps=eps)


@pytest.mark.parametrize("device", DEVICES)
def test_equal_numbers_in_a_row_give_the_bias(device: str):
    _, _, weight, bias = random_rows(2, 32, device=device)
    same = torch.full((2, 32), 0.5, device=device)
    torch.testing.assert_close(add_norm(same, same, weight, bias, eps=1e-5), bias.expand(2, 32), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy, which the interpreter computes with
@pytest.mark.parametrize("device", DEVICES)
def test_what_is_not_finite_stays_in_its_row(device: str):
    vectors, residual, weight, bias = random_rows(4, 32, device=device)
    clean = add_norm(vectors, residual, weight, bias, eps=EPS)
    vectors[1, 5], residual[3, 31] = math.nan, math.inf
    found = add_norm(vectors, residual, weight, bias, eps=EPS)
    assert found[[1, 3]].isnan().all()
    assert torch.equal(found[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize("device", DEVICES)
def test_rows_need_not_lie_one_after_another(device: str):
    given = random_rows(6, 64, device=device)
    vectors, residual = (part.unfold(1, 32, 32)[:, 1] for part in given[:2])
    assert not vectors.is_contiguous()
    check([vectors, residual, given[2][::2], given[3][::2]])
    check([part.mT.contiguous().mT for part in given[:2]] + given[2:])  # no room between them, but in another order


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("columns", [33, 64])
def test_nothing_beyond_the_output_is_written(columns: int, device: str, monkeypatch: pytest.MonkeyPatch):
    memory = torch.full((7 * columns,), math.pi, device=device)
    monkeypatch.setattr(torch, "empty_like", lambda *_, **__: memory[2 * columns : 5 * columns].view(3, columns))
    given = random_rows(3, columns, device=device)
    found = add_norm(*given, eps=EPS)
    assert found.data_ptr() == memory[2 * columns :].data_ptr()
    outside = torch.cat([memory[: 2 * columns], memory[5 * columns :]])
    assert torch.equal(outside, torch.full_like(outside, math.pi))


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_given_stays_as_it_is(device: str):
    given = random_rows(3, 32, device=device)
    before = [part.clone() for part in given]
    add_norm(*given, eps=EPS)
    assert all(map(torch.equal, given, before))


# --- what it does not take --------------------------------------------------------------------------------------------


def test_other_dtypes_are_refused():
    for kind in (Tensor, OnCard):
        given = [part.as_subclass(kind) for part in random_rows(2, 8)]
        with pytest.raises(TypeError, match="vectors are torch.float64: expected float32, float16 or bfloat16"):
            add_norm(*(part.double() for part in given), eps=EPS)
        for place, name in enumerate(("residual", "weight", "bias"), 1):
            others = [*given[:place], given[place].half(), *given[place + 1 :]]
            with pytest.raises(TypeError, match=f"{name} is torch.float16, but vectors are torch.float32"):
                add_norm(*others, eps=EPS)


@pytest.mark.parametrize("kind", [Tensor, OnCard])
@pytest.mark.parametrize(
    ("place", "shape"), [(1, (3, 8)), (1, (2, 9)), (2, (7,)), (3, (1, 8)), (0, (2, 2, 8))], ids=str
)
def test_shapes_that_do_not_fit_are_refused(place: int, shape: tuple[int, ...], kind: type[Tensor]):
    given = random_rows(2, 8)
    given[place] = torch.zeros(shape)
    given = [part.as_subclass(kind) for part in given]
    with pytest.raises(ValueError, match=r"expected \(N, D\) for vectors and residual, \(D,\) for weight and bias"):
        add_norm(*given, eps=EPS)


@pytest.mark.parametrize("kind", [Tensor, OnCard])
def test_wider_rows_are_refused(kind: type[Tensor]):
    with pytest.raises(ValueError, match=r"rows are 8,193 wide: the kernel takes 8,192"):
        add_norm(*(part.as_subclass(kind) for part in random_rows(1, 8193)), eps=EPS)


def test_a_cpu_without_the_interpreter_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_triton, "INTERPRETED", False)
    with pytest.raises(ValueError, match="the kernel needs Triton and a CUDA device, or TRITON_INTERPRET=1"):
        add_norm(*random_rows(1, 8), eps=EPS)


@pytest.mark.gpu
def test_offsets_beyond_2_to_the_31():
    rows, columns = 2**31 // 768 + 2, 768
    vectors = torch.zeros(rows, columns, dtype=torch.bfloat16, device="cuda")
    vectors[-1] = torch.randn(columns)
    weight, bias = (torch.ones(columns, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    found = add_norm(vectors, vectors, weight, bias, eps=EPS)
    exact = add_norm_reference(vectors[-1:], vectors[-1:], weight, bias, eps=EPS)
    torch.testing.assert_close(found[-1:], exact, rtol=0, atol=0.05)
