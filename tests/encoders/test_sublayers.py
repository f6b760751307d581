"""A layer's modules in one native call, beside the modules one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gliner_fast import GLiNER, _rust
from gliner_fast.cpu.linear import VARIABLE, Linear
from gliner_fast.cpu.openmp import parallel_address
from gliner_fast.cpu.whole_numbers import quantize
from gliner_fast.encoders import sublayers
from gliner_fast.encoders.sublayers import finish_layer
from tests.encoders.test_deberta import packed_hidden, pair
from tests.samples import CROSSNER, LABELS


class Layer(nn.Module):
    """The modules, of any sizes, and what they compute."""

    def __init__(self, entering: int = 12, width: int = 20, inner: int = 33) -> None:
        super().__init__()
        self.attention_output = Linear(entering, width)
        self.attention_norm = nn.LayerNorm(width, 1e-5)
        self.intermediate = Linear(width, inner)
        self.output = Linear(inner, width)
        self.output_norm = nn.LayerNorm(width, 1e-7)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5)
        self.eval()

    def at_once(self, attended: Tensor, hidden: Tensor) -> Tensor | None:
        return finish_layer(attended, hidden, **dict(self.named_children()))

    def forward(self, attended: Tensor, hidden: Tensor) -> Tensor:
        normed = self.attention_norm(self.attention_output(attended) + hidden)
        out: Tensor = self.output_norm(self.output(F.gelu(self.intermediate(normed))) + normed)
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
        _rust.sublayers(attended, *others)

    monkeypatch.setattr(sublayers, "_rust", SimpleNamespace(sublayers=apply))
    return rows


@given(
    rows=st.one_of(st.integers(0, 20), st.integers(260, 270)),
    entering=st.integers(1, 40),
    width=st.integers(6, 70),
    inner=st.integers(1, 90),
    without_bias=st.sets(
        st.sampled_from(["attention_output", "attention_norm", "intermediate", "output", "output_norm"])
    ),
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
    torch.testing.assert_close(ours.double(), exact, rtol=0, atol=float(far) + 1e-5)


@pytest.mark.parametrize("kind", [_rust.PackedWeights, _rust.Int16Weights])
@pytest.mark.parametrize("openmp", [0, parallel_address()], ids=["new", "torch"])
def test_a_row_s_result_is_its_own_whoever_works(kind, openmp):
    generator = np.random.default_rng(0)

    def numbers(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape).astype(np.float32)

    # As much work as several threads are worth, and more than one block of rows.
    width, inner, rows = 96, 384, 300
    dense = [(kind(numbers(*shape)), None) for shape in ((width, width), (inner, width), (width, inner))]
    norm = numbers(width), numbers(width), 1e-5, True
    attended, hidden = numbers(rows, width), numbers(rows, width)

    def apply(attended: np.ndarray, hidden: np.ndarray, threads: int, openmp: int) -> np.ndarray:
        out = np.full_like(hidden, np.nan)
        _rust.sublayers(attended, hidden, dense[0], norm, dense[1], "gelu", dense[2], norm, out, threads, openmp)
        return out

    together = apply(attended, hidden, 3, openmp)
    alone = [apply(attended[row : row + 1], hidden[row : row + 1], 1, 0) for row in range(rows)]
    np.testing.assert_array_equal(together, np.concatenate(alone))


@pytest.mark.parametrize(("kind", "off"), [("int16", 2e-3), ("int8", 0.05)])
def test_whole_numbers_are_near_what_they_stand_for(kind, off, monkeypatch, calls):
    layer = Layer(64, 64, 256)
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


def _transposed(layer: Layer) -> None:
    weight = layer.attention_output.weight
    layer.attention_output.weight = nn.Parameter(torch.empty(12, 20).T.copy_(weight))


def _misaligned(layer: Layer) -> None:
    weight = layer.output.weight
    numbers = np.zeros(4 * weight.numel() + 1, np.uint8)[1:].view(np.float32).reshape(weight.shape)
    layer.output.weight = nn.Parameter(torch.from_numpy(numbers).copy_(weight))


CHANGES: dict[str, Callable[[Layer], object]] = {
    "another module": lambda layer: setattr(layer, "output", nn.Linear(33, 20)),
    "an adapter": lambda layer: setattr(layer, "intermediate", nn.Sequential(layer.intermediate)),
    "a hook": lambda layer: layer.output.register_forward_hook(lambda *_: None),
    "a hook before a norm": lambda layer: layer.output_norm.register_forward_pre_hook(lambda *_: None),
    "a forward of its own": lambda layer: setattr(layer.intermediate, "forward", layer.intermediate.forward),
    "a compiled call": lambda layer: setattr(layer.output, "_compiled_call_impl", layer.output.forward),
    "another norm": lambda layer: setattr(layer, "attention_norm", nn.RMSNorm(20)),
    "a norm without weights": lambda layer: setattr(layer, "output_norm", nn.LayerNorm(20, elementwise_affine=False)),
    "a norm of another type": lambda layer: layer.output_norm.double(),
    "a bias of another type": lambda layer: setattr(layer.output, "bias", nn.Parameter(torch.zeros(20).double())),
    "weights of another type": lambda layer: layer.attention_output.double(),
    "weights in columns": _transposed,
    "weights between numbers": _misaligned,
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
        assert layer.at_once(*rows) is None
    assert calls == [7]


def test_dropout_in_training_is_the_modules(calls):
    layer = Layer()
    with torch.inference_mode():
        assert layer.train().at_once(*layer.rows()) is None
    assert not calls


def test_where_all_modules_have_a_hook_they_are_called_one_by_one(calls):
    layer = Layer()
    rows = layer.rows()
    for register in (
        nn.modules.module.register_module_forward_hook,
        nn.modules.module.register_module_forward_pre_hook,
    ):
        handle = register(lambda *_: None)
        with torch.inference_mode():
            assert layer.at_once(*rows) is None
        handle.remove()
    with torch.inference_mode():
        assert layer.at_once(*rows) is not None
    assert calls == [7]


@contextmanager
def _autocast() -> Iterator[None]:
    with torch.no_grad(), torch.autocast("cpu"):
        yield


@pytest.mark.parametrize(
    ("context", "dtype", "leading"),
    [
        (nullcontext, torch.float32, ()),
        (_autocast, torch.float32, ()),
        (torch.inference_mode, torch.float64, ()),
        (torch.inference_mode, torch.float32, (1,)),
    ],
    ids=["gradient", "autocast", "float64", "padded"],
)
def test_what_it_was_not_made_for_is_left_to_the_modules(context, dtype, leading, calls):
    layer = Layer()
    attended, hidden = (rows.to(dtype).view(*leading, *rows.shape) for rows in layer.rows())
    with context():
        assert layer.at_once(attended, hidden) is None
    assert not calls


def test_what_is_recorded_is_left_to_the_modules(monkeypatch, calls):
    layer = Layer()
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    with torch.inference_mode():
        assert layer.at_once(*layer.rows()) is None
    assert not calls


def test_rows_may_have_a_gradient_that_nobody_asks_for():
    layer = Layer()
    attended, hidden = layer.rows()
    with torch.no_grad():
        out = layer.at_once(attended.requires_grad_(), hidden.requires_grad_())
        torch.testing.assert_close(out, layer(attended, hidden), rtol=1e-4, atol=1e-4)


def test_layers_may_have_their_weights_in_different_numbers(calls):
    layer = Layer(64, 64, 256)
    rows = layer.rows(50)
    with torch.inference_mode():
        exact = layer(*rows)
        quantize(layer, "int16")
        layer.output.weight.mul_(1.0)  # these are others for all that is known: back to float32
        out = layer.at_once(*rows)
    assert [linear.whole is not None for linear in (layer.attention_output, layer.intermediate, layer.output)] == [
        True, True, False,
    ]  # fmt: skip
    assert calls == [50]
    torch.testing.assert_close(out, exact, rtol=0, atol=2e-3 * float(exact.abs().max()))


def test_it_is_seen_when_a_module_s_numbers_change(calls):
    layer = Layer()
    rows = layer.rows()
    with torch.no_grad():
        layer.at_once(*rows)
        for parameter in layer.parameters():
            before = layer.at_once(*rows)
            parameter.data.mul_(1.5).add_(0.1)  # behind torch's back
            after = layer.at_once(*rows)
            torch.testing.assert_close(after, layer(*rows), rtol=1e-4, atol=1e-4)
            assert not torch.allclose(before, after, atol=1e-3)
    assert calls == [7] * 21


def test_shapes_that_do_not_fit_are_told():
    one, vector = np.ones((3, 3), np.float32), np.ones(3, np.float32)
    dense, norm = (_rust.PackedWeights(one), vector), (vector, vector, 1e-5, True)

    def apply(attended=one, hidden=one, intermediate=dense, norm=norm, activation="gelu", out=one):
        _rust.sublayers(attended, hidden, dense, norm, intermediate, activation, dense, norm, out.copy(), 1, 0)

    with pytest.raises(
        ValueError, match=r"attended is \[2, 3\], hidden \[3, 3\] and out \[3, 3\]: expected \[rows, 3\]"
    ):
        apply(attended=one[:2])
    two = one[:2]
    for turned in ("hidden", "out"):  # as many numbers, in rows of another length
        with pytest.raises(ValueError, match=rf"{turned} \[3, 2\].*: expected \[rows, 3\]"):
            apply(**{"attended": two, "hidden": two, "out": two} | {turned: two.reshape(3, 2)})
    with pytest.raises(ValueError, match="intermediate's inputs: 2, expected 3 to fit the layer beside it"):
        apply(intermediate=(_rust.PackedWeights(np.ones((3, 2), np.float32)), None))
    with pytest.raises(ValueError, match="attention_norm's weight: 2, expected 3 to fit"):
        apply(norm=(vector[:2], vector, 1e-5, True))
    with pytest.raises(ValueError, match="intermediate's bias: 2, expected 3 to fit"):
        apply(intermediate=(dense[0], vector[:2]))
    with pytest.raises(ValueError, match='activation is "relu": expected none, gelu or gelu_tanh'):
        apply(activation="relu")
    with pytest.raises(ValueError, match="output_norm's weight is not C-contiguous"):
        _rust.sublayers(
            one,
            one,
            dense,
            norm,
            dense,
            "gelu",
            dense,
            (np.ones(6, np.float32)[::2], vector, 1e-5, True),
            one.copy(),
            1,
            0,
        )
    with pytest.raises(ValueError, match="hidden is not C-contiguous"):
        apply(hidden=np.asfortranarray(np.arange(9, dtype=np.float32).reshape(3, 3)))
    with pytest.raises(TypeError):
        apply(intermediate=(one, vector))


# --- models -----------------------------------------------------------------------------------------------------------


def test_deberta_s_layers_go_through_it(monkeypatch, calls):
    _, ours = pair()
    lengths = [33, 1, 70, 2]
    with torch.inference_mode():
        packed = packed_hidden(ours, lengths)
        assert calls == [sum(lengths)] * len(ours.layers)
        monkeypatch.setenv(VARIABLE, "torch")
        torch.testing.assert_close(packed, packed_hidden(ours, lengths), rtol=1e-4, atol=1e-4)
    assert len(calls) == len(ours.layers)


def test_bert_s_layers_go_through_it(calls):
    model = GLiNER.from_pretrained()
    texts = CROSSNER[:3]
    for text in texts:
        model.predict_entities(text, LABELS)
    layers = [name for name, _ in model.model.named_modules() if name.endswith("attention.output.dense")]
    assert len(calls) == len(layers) * len(texts) > 0
