"""Who adds the residual and norms the sum."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from gliner_fast.cpu.linear import Linear
from gliner_fast.encoders import residual_norm
from gliner_fast.encoders.residual_norm import FEWEST_ROWS, VARIABLE, add_and_norm, add_residual
from gliner_fast.kernels import _triton
from gliner_fast.kernels import add_norm as add_norm_module
from gliner_fast.kernels._triton import INTERPRETED
from tests.encoders.test_deberta import pair
from tests.encoders.test_packed_bert import make_encoder

needs_interpreter = pytest.mark.skipif(not INTERPRETED, reason="needs Triton, and a machine without a GPU")
WIDTH = 16


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shapes that the kernel is started for."""
    shapes: list[torch.Size] = []
    kernel = add_norm_module.add_norm

    def counted(vectors: Tensor, *given: Tensor, **options: float) -> Tensor:
        shapes.append(vectors.shape)
        return kernel(vectors, *given, **options)

    monkeypatch.setattr(add_norm_module, "add_norm", counted)
    monkeypatch.delenv(VARIABLE, raising=False)
    return shapes


def random_norm() -> nn.LayerNorm:
    norm = nn.LayerNorm(WIDTH, eps=0.1).eval()
    with torch.no_grad():
        for weight in norm.parameters():
            weight.normal_()
    return norm


def both_ways(norm: nn.Module, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor]:
    """What the kernel gives where it is asked for, or who stands in for it, and what torch gives."""
    vectors, residual = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        monkeypatch.setenv(VARIABLE, "triton")
        found = add_and_norm(vectors.clone(), residual, norm)
        monkeypatch.setenv(VARIABLE, "torch")
        return found, add_and_norm(vectors.clone(), residual, norm)


@needs_interpreter
def test_the_kernel_norms_where_it_is_asked_for(launched: list[torch.Size], monkeypatch: pytest.MonkeyPatch):
    found, expected = both_ways(random_norm(), monkeypatch)
    assert launched == [(5, WIDTH)]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@needs_interpreter
@pytest.mark.parametrize("make", [lambda: pair()[1], lambda: make_encoder("bert")], ids=["deberta", "bert"])
def test_an_encoder_norms_by_the_kernel(
    make: Callable[[], nn.Module], launched: list[torch.Size], monkeypatch: pytest.MonkeyPatch
):
    encoder, lengths = make(), [7, 3]
    ids, counts, offsets = torch.arange(10) + 3, torch.tensor(lengths), torch.tensor([0, *accumulate(lengths)])
    with torch.inference_mode():
        expected = encoder(ids, counts, offsets)
        assert launched == []
        monkeypatch.setenv(VARIABLE, "triton")
        monkeypatch.setenv("GLINER_FAST_ATTENTION", "torch")
        found = encoder(ids, counts, offsets)
    assert launched == [(10, 32)] * 4  # two layers, two norms each
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


# --- who stands in for it ---------------------------------------------------------------------------------------------


class Doubled(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return 2 * super().forward(input)


def hooked() -> nn.LayerNorm:
    norm = random_norm()
    norm.register_forward_hook(lambda _, __, out: out + 1)
    return norm


@needs_interpreter
@pytest.mark.parametrize(
    "make",
    [
        hooked,
        lambda: Doubled(WIDTH).eval(),
        lambda: nn.LayerNorm(WIDTH, elementwise_affine=False).eval(),
        lambda: nn.LayerNorm(WIDTH, bias=False).eval(),
        lambda: nn.RMSNorm(WIDTH).eval(),
        lambda: nn.LayerNorm((5, WIDTH)).eval(),
    ],
    ids=["a hook", "another class's forward", "no weights", "no bias", "another norm", "over rows"],
)
def test_other_norms_are_called_as_they_are(
    make: Callable[[], nn.Module], launched: list[torch.Size], monkeypatch: pytest.MonkeyPatch
):
    norm = make()
    vectors, residual = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(0))
    found, _ = both_ways(norm, monkeypatch)
    assert launched == []
    torch.testing.assert_close(found, norm(vectors + residual), rtol=0, atol=0)


@pytest.mark.parametrize("in_place", [True, False])
def test_vectors_are_written_to_only_where_that_is_said(in_place: bool):
    vectors, residual = torch.randn(2, 5, WIDTH)
    before, norm = vectors.clone(), random_norm()
    with torch.inference_mode():
        found = add_and_norm(vectors, residual, norm, in_place=in_place)
        torch.testing.assert_close(found, norm(before + residual), rtol=0, atol=0)
    assert torch.equal(vectors, before) is not in_place


def test_where_a_gradient_is_asked_for_vectors_are_never_written_to():
    vectors, residual = torch.randn(2, 5, WIDTH)
    before, norm = vectors.clone(), random_norm()
    add_and_norm(vectors, residual, norm, in_place=True)
    add_residual(vectors, residual, Linear(WIDTH, WIDTH).eval())
    assert torch.equal(vectors, before)


def test_what_a_layer_made_is_written_to_unless_others_have_seen_it():
    rows, residual, layer, seen = torch.randn(5, WIDTH), torch.randn(5, WIDTH), Linear(WIDTH, WIDTH).eval(), []
    with torch.inference_mode():
        vectors = layer(rows)
        assert add_residual(vectors, residual, layer) is vectors
        assert add_residual(layer(rows), residual.double(), layer).dtype == torch.float64
        layer.register_forward_hook(lambda _, __, out: seen.append(out))
        for made_by in (layer, None):
            vectors = layer(rows)
            torch.testing.assert_close(add_residual(vectors, residual, made_by), vectors + residual, rtol=0, atol=0)
            assert torch.equal(vectors, layer(rows))
    assert seen


def test_a_residual_of_more_bits_keeps_them():
    vectors, residual = torch.randn(5, WIDTH).bfloat16(), torch.randn(5, WIDTH)
    norm = random_norm()
    with torch.inference_mode():
        found = add_and_norm(vectors, residual, norm, in_place=True)
        torch.testing.assert_close(found, norm(vectors + residual), rtol=0, atol=0)


@needs_interpreter
def test_a_gradient_is_torch_s(launched: list[torch.Size], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, "triton")
    norm, vectors = random_norm(), torch.randn(5, WIDTH, requires_grad=True)
    add_and_norm(vectors * 1, torch.randn(5, WIDTH), norm).square().sum().backward()
    assert launched == []
    assert vectors.grad is not None
    assert vectors.grad.abs().sum() > 0


@needs_interpreter
def test_under_autocast_torch_chooses_the_precision(launched: list[torch.Size], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, "triton")
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        add_and_norm(torch.randn(5, WIDTH), torch.randn(5, WIDTH), random_norm())
    assert launched == []


@needs_interpreter
def test_weights_in_another_precision_are_torch_s(launched: list[torch.Size], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, "triton")
    with torch.inference_mode(), pytest.raises(RuntimeError):  # as torch says of them
        add_and_norm(torch.randn(5, WIDTH).double(), torch.randn(5, WIDTH).double(), random_norm())
    with torch.inference_mode():
        add_and_norm(torch.randn(5, WIDTH).double(), torch.randn(5, WIDTH).double(), random_norm().double())
    assert launched == []


def test_a_cpu_norms_by_torch_unless_asked(launched: list[torch.Size], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(residual_norm, "triton_is_fastest", lambda *_: True)
    with torch.inference_mode():
        add_and_norm(torch.randn(FEWEST_ROWS, WIDTH), torch.randn(FEWEST_ROWS, WIDTH), random_norm())
    assert launched == []


# --- on CUDA, of which nothing is computed here -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "asked", "is_fastest", "takes"),
    [
        (FEWEST_ROWS, "", True, True),
        (FEWEST_ROWS - 1, "", True, False),
        (FEWEST_ROWS - 1, "triton", True, True),
        (FEWEST_ROWS, "torch", True, False),
        (FEWEST_ROWS, "", False, False),
    ],
)
def test_many_rows_on_cuda_go_to_the_kernel(rows, asked, is_fastest, takes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, asked)
    monkeypatch.setattr(_triton, "HAS_TRITON", True)
    monkeypatch.setattr(residual_norm, "triton_is_fastest", lambda *_: is_fastest)
    monkeypatch.setattr(add_norm_module, "add_norm", lambda *_, **__: "the kernel's")
    with FakeTensorMode(), torch.no_grad():
        vectors, residual = torch.empty(2, rows, WIDTH, device="cuda")
        norm = nn.LayerNorm(WIDTH, device="cuda").eval()
        found = add_and_norm(vectors, residual, norm)
    assert isinstance(found, Tensor) is not takes


def test_an_unknown_name_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, "apex")
    with (
        torch.inference_mode(),
        pytest.raises(ValueError, match="is 'apex': expected torch or triton"),
    ):
        add_and_norm(torch.randn(5, WIDTH), torch.randn(5, WIDTH), random_norm())


def test_triton_is_refused_on_a_cpu_without_its_interpreter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, "triton")
    monkeypatch.setattr(_triton, "HAS_TRITON", True)
    monkeypatch.setattr(_triton, "INTERPRETED", False)
    with torch.inference_mode(), pytest.raises(ValueError, match="GLINER_FAST_NORM is 'triton', but the model is on"):
        add_and_norm(torch.randn(5, WIDTH), torch.randn(5, WIDTH), random_norm())
