"""The modules of a layer of ModernBERT's or T5's kind in one native call, beside the modules one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.activations import NewGELUActivation
from transformers.models.t5.modeling_t5 import T5LayerNorm

from gliner_fast import _rust
from gliner_fast.cpu.linear import VARIABLE, Linear
from gliner_fast.cpu.native import rust_is_fastest
from gliner_fast.cpu.openmp import parallel_address
from gliner_fast.cpu.whole_numbers import quantize
from gliner_fast.encoders import sublayers
from gliner_fast.encoders.sublayers import finish_gated_layer, gate, norm_rows
from tests.encoders.test_packed_modernbert import make_encoder, run_both
from tests.encoders.test_packed_t5 import make_encoder as make_t5


class Layer(nn.Module):
    """The modules, of any sizes, and what they compute."""

    def __init__(self, entering: int = 12, width: int = 20, inner: int = 33) -> None:
        super().__init__()
        self.attention_output = Linear(entering, width)
        self.norm = nn.LayerNorm(width, 1e-5)
        self.intermediate = Linear(width, 2 * inner)
        self.output = Linear(inner, width)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5)
        self.eval()

    def at_once(self, attended: Tensor, hidden: Tensor) -> Tensor | None:
        return finish_gated_layer(attended, hidden, **dict(self.named_children()))

    def forward(self, attended: Tensor, hidden: Tensor) -> Tensor:
        hidden = self.attention_output(attended) + hidden
        inner, gate = self.intermediate(self.norm(hidden)).chunk(2, -1)
        out: Tensor = self.output(F.gelu(inner) * gate) + hidden
        return out

    def rows(self, count: int = 7) -> tuple[Tensor, Tensor]:
        return torch.randn(count, self.attention_output.in_features), torch.randn(count, self.output.out_features)


@pytest.fixture(autouse=True)
def _packed_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "packed")
    torch.manual_seed(0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Rows of each native call."""
    rows: list[int] = []

    def apply(attended: np.ndarray, *others: Any) -> None:
        rows.append(len(attended))
        _rust.gated_sublayers(attended, *others)

    monkeypatch.setattr(sublayers, "_rust", SimpleNamespace(**vars(_rust) | {"gated_sublayers": apply}))
    return rows


@given(
    rows=st.one_of(st.integers(0, 20), st.integers(260, 270)),
    entering=st.integers(1, 40),
    width=st.integers(6, 70),
    inner=st.integers(1, 90),
    without_bias=st.sets(st.sampled_from(["attention_output", "norm", "intermediate", "output"])),
    seed=st.integers(0, 99),
)
def test_it_gives_what_the_modules_give(rows, entering, width, inner, without_bias, seed):
    torch.manual_seed(seed)
    layer = Layer(entering, width, inner)
    for name in without_bias:
        getattr(layer, name).bias = None
    attended, hidden = layer.rows(rows)
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "packed")
        ours = layer.at_once(attended, hidden)
        patch.setenv(VARIABLE, "torch")
        assert layer.at_once(attended, hidden) is None
        in_float32 = layer(attended, hidden)
        exact = layer.double()(attended.double(), hidden.double())
    assert ours is not None
    assert ours.shape == exact.shape
    # Where a row's numbers are near each other, the norm makes much of their rounding: of torch's as of ours.
    far = 2 * (in_float32 - exact).abs().amax() if rows else 0.0
    torch.testing.assert_close(ours.double(), exact, rtol=0, atol=float(far) + 1e-4)


@pytest.mark.parametrize("kind", [_rust.PackedWeights, _rust.Int16Weights])
@pytest.mark.parametrize("openmp", [0, parallel_address()], ids=["new", "torch"])
def test_a_row_s_result_is_its_own_whoever_works(kind, openmp):
    generator = np.random.default_rng(0)

    def numbers(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape).astype(np.float32)

    # As much work as several threads are worth, and more than one block of rows.
    width, inner, rows = 96, 192, 300
    dense = [(kind(numbers(*shape)), None) for shape in ((width, width), (2 * inner, width), (width, inner))]
    norm = numbers(width), None, 1e-5, True
    attended, hidden = numbers(rows, width), numbers(rows, width)

    def apply(attended: np.ndarray, hidden: np.ndarray, threads: int, openmp: int) -> np.ndarray:
        out = np.full_like(hidden, np.nan)
        _rust.gated_sublayers(attended, hidden, dense[0], norm, dense[1], None, "gelu", dense[2], out, threads, openmp)
        return out

    together = apply(attended, hidden, 3, openmp)
    alone = [apply(attended[row : row + 1], hidden[row : row + 1], 1, 0) for row in range(rows)]
    np.testing.assert_array_equal(together, np.concatenate(alone))


@pytest.mark.parametrize(("kind", "off"), [("int16", 2e-3), ("int8", 0.05)])
def test_whole_numbers_are_near_what_they_stand_for(kind, off, monkeypatch, calls):
    layer = Layer(64, 64, 128)
    attended, hidden = layer.rows(50)
    with torch.inference_mode():
        exact = layer(attended, hidden)
        quantize(layer, kind)
        # They were asked for, whoever multiplies float32.
        monkeypatch.setenv(VARIABLE, "torch")
        ours = layer.at_once(attended, hidden)
    assert calls == [50]
    torch.testing.assert_close(ours, exact, rtol=0, atol=off * float(exact.abs().max()))
    assert not torch.equal(ours, exact)


CHANGES: dict[str, Callable[[Layer], object]] = {
    "another module": lambda layer: setattr(layer, "output", nn.Linear(33, 20)),
    "an adapter": lambda layer: setattr(layer, "intermediate", nn.Sequential(layer.intermediate)),
    "a hook": lambda layer: layer.output.register_forward_hook(lambda *_: None),
    "a hook before the norm": lambda layer: layer.norm.register_forward_pre_hook(lambda *_: None),
    "another norm": lambda layer: setattr(layer, "norm", nn.RMSNorm(20)),
    "a norm without weights": lambda layer: setattr(layer, "norm", nn.LayerNorm(20, elementwise_affine=False)),
    "weights of another type": lambda layer: layer.attention_output.double(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_other_modules_are_called_one_after_another(change, calls):
    layer = Layer()
    rows = layer.rows()
    with torch.inference_mode():
        assert layer.at_once(*rows) is not None
        change(layer)
        layer.eval()
        assert layer.at_once(*rows) is None
    assert calls == [7]


def test_a_gradient_is_left_to_the_modules(calls):
    layer = Layer()
    assert layer.at_once(*layer.rows()) is None
    assert not calls


def test_shapes_that_do_not_fit_are_told():
    one, vector = np.ones((3, 3), np.float32), np.ones(3, np.float32)
    dense, norm = (_rust.PackedWeights(one), vector), (vector, None, 1e-5, True)
    twice = _rust.PackedWeights(np.ones((6, 3), np.float32)), None

    def apply(attended=one, intermediate=twice, gates=None, norm=norm, activation="gelu", out=one):
        _rust.gated_sublayers(attended, one, dense, norm, intermediate, gates, activation, dense, out.copy(), 1, 0)

    apply()
    with pytest.raises(
        ValueError, match=r"attended is \[2, 3\], hidden \[3, 3\] and out \[3, 3\]: expected \[rows, 3\]"
    ):
        apply(attended=one[:2])
    with pytest.raises(ValueError, match="intermediate's outputs: 3, expected 6 to fit the layer beside it"):
        apply(intermediate=dense)
    apply(intermediate=dense, gates=dense)
    with pytest.raises(ValueError, match="intermediate's outputs: 6, expected 3 to fit the layer beside it"):
        apply(gates=dense)
    with pytest.raises(ValueError, match="gates' outputs: 6, expected 3 to fit the layer beside it"):
        apply(intermediate=dense, gates=twice)
    with pytest.raises(ValueError, match="norm's weight: 2, expected 3 to fit"):
        apply(norm=(vector[:2], None, 1e-5, True))
    with pytest.raises(ValueError, match='activation is "silu": expected none, gelu or gelu_tanh'):
        apply(activation="silu")


# --- T5's -------------------------------------------------------------------------------------------------------------


class T5Layer(nn.Module):
    """The modules of T5 1.1, of any sizes, and what they compute."""

    def __init__(self, entering: int = 12, width: int = 20, inner: int = 33) -> None:
        super().__init__()
        self.attention_output = Linear(entering, width)
        self.norm = T5LayerNorm(width, 1e-5)
        self.intermediate, self.gates = Linear(width, inner), Linear(width, inner)
        self.output = Linear(inner, width)
        for linear in (self.attention_output, self.intermediate, self.gates, self.output):
            linear.bias = None
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5)
        self.eval()

    def at_once(self, attended: Tensor, hidden: Tensor) -> Tensor | None:
        return finish_gated_layer(attended, hidden, activation="gelu_tanh", **dict(self.named_children()))

    def forward(self, attended: Tensor, hidden: Tensor) -> Tensor:
        hidden = self.attention_output(attended) + hidden
        normed = self.norm(hidden)
        out: Tensor = self.output(NewGELUActivation()(self.intermediate(normed)) * self.gates(normed)) + hidden
        return out


@given(
    rows=st.one_of(st.integers(0, 20), st.integers(260, 270)),
    entering=st.integers(1, 40),
    width=st.integers(6, 70),
    inner=st.integers(1, 90),
    seed=st.integers(0, 99),
)
def test_t5_s_modules_give_the_same_at_once(rows, entering, width, inner, seed):
    torch.manual_seed(seed)
    layer = T5Layer(entering, width, inner)
    attended, hidden = torch.randn(rows, entering), torch.randn(rows, width)
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "packed")
        ours = layer.at_once(attended, hidden)
        patch.setenv(VARIABLE, "torch")
        assert layer.at_once(attended, hidden) is None
        exact = layer.double()(attended.double(), hidden.double())
    assert ours is not None
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-4)


@contextmanager
def native_calls() -> Iterator[list[str]]:
    """Names of the native calls inside."""
    names: list[str] = []

    def counted(name: str) -> Callable[..., None]:
        return lambda *given: names.append(name) or getattr(_rust, name)(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sublayers, "_rust", SimpleNamespace(**{name: counted(name) for name in ("norm_rows", "gate")}))
        yield names


needs_vectors = pytest.mark.skipif(not rust_is_fastest(), reason="torch computes on CPUs without such vectors")


@needs_vectors
@given(rows=st.integers(0, 40), width=st.integers(1, 200), scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_rows_are_normed_in_one_pass(rows, width, scale):
    norm = T5LayerNorm(width, 1e-6).eval()
    torch.manual_seed(rows)
    nn.init.normal_(norm.weight)
    x = torch.randn(rows, width) * scale
    with torch.inference_mode(), native_calls() as native:
        ours, exact = norm_rows(x, norm), norm.double()(x.double())
    assert native == ["norm_rows"]
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-6)


@needs_vectors
@given(rows=st.integers(0, 40), width=st.integers(1, 200), scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_rows_are_gated_in_one_pass(rows, width, scale):
    torch.manual_seed(rows)
    x, gates = torch.randn(2, rows, width).unbind()
    with torch.inference_mode(), native_calls() as native:
        ours = gate(x * scale, gates)
        exact = NewGELUActivation()(x.double() * scale) * gates.double()
    assert native == ["gate"]
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-6)


@needs_vectors
@given(rows=st.integers(0, 40), width=st.integers(1, 300))
def test_bf16_is_rounded_once(rows, width):
    torch.manual_seed(rows)
    norm = T5LayerNorm(width, 1e-6).bfloat16().eval()
    nn.init.normal_(norm.weight)
    x, gates = torch.randn(2, rows, width).bfloat16().unbind()
    with torch.inference_mode(), native_calls() as native:
        normed, gated = norm_rows(x, norm), gate(x, gates)
        exact = norm.double()(x.double())
        exact_gated = NewGELUActivation()(x.double()) * gates.double()
    assert native == ["norm_rows", "gate"]
    assert normed.dtype is gated.dtype is torch.bfloat16
    torch.testing.assert_close(normed.double(), exact, rtol=2**-8, atol=1e-6)
    torch.testing.assert_close(gated.double(), exact_gated, rtol=2**-8, atol=1e-6)


OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "other numbers": lambda x: x.double(),
    "fp16": lambda x: x.half(),
    "a vector": lambda x: x[0],
    "columns": lambda x: x.T,
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_other_rows_are_left_to_torch(change, monkeypatch):
    monkeypatch.setattr(sublayers, "_rust", None)  # whom nobody calls
    x = change(torch.randn(6, 6))
    with torch.inference_mode():
        near = {"rtol": 1e-2, "atol": 1e-3} if x.dtype is torch.float16 else {}  # which torch rounds less often
        torch.testing.assert_close(gate(x, x), NewGELUActivation()(x) * x, **near)
        norm = T5LayerNorm(6).to(x.dtype).eval()
        torch.testing.assert_close(norm_rows(x, norm), norm(x))


def test_gradients_and_other_norms_are_left_to_torch(monkeypatch):
    monkeypatch.setattr(sublayers, "_rust", None)
    x, norm, hooked = torch.randn(6, 6), T5LayerNorm(6).eval(), T5LayerNorm(6).eval()
    hooked.register_forward_hook(lambda *given: 2 * given[2])
    torch.testing.assert_close(gate(x, x), NewGELUActivation()(x) * x)
    assert norm_rows(x, norm).requires_grad
    assert gate(hooked.weight[None], x[:1]).requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(norm_rows(x, hooked), 2 * norm(x))
        torch.testing.assert_close(norm_rows(x, nn.RMSNorm(6).eval()), nn.RMSNorm(6)(x))
        torch.testing.assert_close(norm_rows(x, norm.double()), norm(x))
        torch.testing.assert_close(gate(x, x[:, :1]), NewGELUActivation()(x) * x[:, :1])


def test_shapes_of_rows_that_do_not_fit_are_told():
    one, vector = np.ones((3, 4), np.float32), np.ones(4, np.float32)
    with pytest.raises(ValueError, match=r"x is \[3, 4\] and gates \[2, 4\]: expected the same shape"):
        _rust.gate(one, one[:2], "gelu_tanh", one.copy(), 1, 0)
    with pytest.raises(ValueError, match=r"x is \[3, 4\] and out \[4, 3\]: expected the same shape"):
        _rust.gate(one, one, "gelu_tanh", np.ones((4, 3), np.float32), 1, 0)
    with pytest.raises(ValueError, match=r"x is \[3, 4\] and out \[2, 4\]: expected the same shape"):
        _rust.norm_rows(one, (vector, None, 1e-6, False), one[:2].copy(), 1, 0)
    with pytest.raises(TypeError, match=r"argument 'out': [\s\S]*\(expected one of x's kind of numbers\)"):
        _rust.norm_rows(one.astype(np.uint16), (vector, None, 1e-6, False), one.copy(), 1, 0)
    with pytest.raises(TypeError, match=r"argument 'gates': [\s\S]*\(expected one of x's kind of numbers\)"):
        _rust.gate(one.astype(np.uint16), one, "gelu_tanh", one.astype(np.uint16), 1, 0)
    for other in (vector[:3], np.ones(6, np.float32)):
        with pytest.raises(ValueError, match=rf"norm's weight is \[{len(other)}\], x \[3, 4\]"):
            _rust.norm_rows(one, (other, None, 1e-6, False), one.copy(), 1, 0)
    with pytest.raises(ValueError, match="norm's bias: 3, expected 4 to fit the layer beside it"):
        _rust.norm_rows(one, (vector, vector[:3], 1e-6, False), one.copy(), 1, 0)


def test_t5_s_layers_go_through_it(monkeypatch, calls):
    encoder = make_t5()
    padded, packed, some = run_both(encoder, [33, 1, 70, 2])
    assert calls == [106, 106, 106, 106, 106, 3]  # the last layer for wanted rows alone
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-4)
    torch.testing.assert_close(some, packed[[-1, 0, 0]], rtol=0, atol=1e-5)
    run_both(make_t5(feed_forward_proj="relu"), [33, 1, 70, 2])
    assert len(calls) == 6


# --- models -----------------------------------------------------------------------------------------------------------


def test_modernbert_s_layers_go_through_it(monkeypatch, calls):
    encoder = make_encoder()
    padded, packed, some = run_both(encoder, [33, 1, 70, 2])
    assert calls == [106, 106, 106, 106, 106, 3]  # the last layer for wanted rows alone
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-4)
    torch.testing.assert_close(some, packed[[-1, 0, 0]], rtol=0, atol=1e-5)
    monkeypatch.setenv(VARIABLE, "torch")
    run_both(encoder, [33, 1, 70, 2])
    assert len(calls) == 6


def test_another_activation_is_the_module_s(calls):
    encoder = make_encoder(hidden_activation="silu")
    padded, packed, _ = run_both(encoder, [5, 3])
    assert not calls
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["mlp", "mlp.act", "attn.Wo"])
def test_hooks_are_called(name, calls):
    encoder, seen = make_encoder(), []
    encoder.model.layers[1].get_submodule(name).register_forward_hook(lambda *_: seen.append(name))
    with torch.inference_mode():
        encoder(torch.arange(2, 7), torch.tensor([5]), torch.tensor([0, 5]))
    assert seen == [name]
    assert len(calls) == 2  # those of the other layers
