"""The modules of a layer of ModernBERT's kind in one native call, beside the modules one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gliner_fast import _rust
from gliner_fast.cpu.int16 import quantize
from gliner_fast.cpu.linear import VARIABLE, Linear
from gliner_fast.cpu.openmp import parallel_address
from gliner_fast.encoders import sublayers
from gliner_fast.encoders.sublayers import finish_gated_layer
from tests.encoders.test_packed_modernbert import make_encoder, run_both


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

    monkeypatch.setattr(sublayers, "_rust", SimpleNamespace(gated_sublayers=apply))
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
    norm = numbers(width), None, 1e-5
    attended, hidden = numbers(rows, width), numbers(rows, width)

    def apply(attended: np.ndarray, hidden: np.ndarray, threads: int, openmp: int) -> np.ndarray:
        out = np.full_like(hidden, np.nan)
        _rust.gated_sublayers(attended, hidden, dense[0], norm, dense[1], "gelu", dense[2], out, threads, openmp)
        return out

    together = apply(attended, hidden, 3, openmp)
    alone = [apply(attended[row : row + 1], hidden[row : row + 1], 1, 0) for row in range(rows)]
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_whole_numbers_are_near_what_they_stand_for(monkeypatch, calls):
    layer = Layer(64, 64, 128)
    attended, hidden = layer.rows(50)
    with torch.inference_mode():
        exact = layer(attended, hidden)
        quantize(layer)
        # They were asked for, whoever multiplies float32.
        monkeypatch.setenv(VARIABLE, "torch")
        ours = layer.at_once(attended, hidden)
    assert calls == [50]
    torch.testing.assert_close(ours, exact, rtol=0, atol=2e-3 * float(exact.abs().max()))
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
    dense, norm = (_rust.PackedWeights(one), vector), (vector, None, 1e-5)
    twice = _rust.PackedWeights(np.ones((6, 3), np.float32)), None

    def apply(attended=one, intermediate=twice, norm=norm, activation="gelu", out=one):
        _rust.gated_sublayers(attended, one, dense, norm, intermediate, activation, dense, out.copy(), 1, 0)

    apply()
    with pytest.raises(
        ValueError, match=r"attended is \[2, 3\], hidden \[3, 3\] and out \[3, 3\]: expected \[rows, 3\]"
    ):
        apply(attended=one[:2])
    with pytest.raises(ValueError, match="intermediate's outputs: 3, where 6 fit what is beside it"):
        apply(intermediate=dense)
    with pytest.raises(ValueError, match="norm's weight: 2, where 3 fit"):
        apply(norm=(vector[:2], None, 1e-5))
    with pytest.raises(ValueError, match='activation is "silu": expected none or gelu'):
        apply(activation="silu")


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
