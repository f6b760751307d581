"""Layers that keep their weights packed, beside torch's own product."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gliner_fast import GLiNER, _rust
from gliner_fast.cpu.linear import VARIABLE, Linear, linear, packing_pays
from gliner_fast.cpu.openmp import parallel_address
from gliner_fast.cpu.packed_weights import Packed
from gliner_fast.cpu.whole_numbers import quantize
from gliner_fast.scorer import SpanScorer
from tests.cpu.test_whole_numbers import change_in_place, load_others, step_in_eval_mode
from tests.samples import CROSSNER, LABELS

# --- a product --------------------------------------------------------------------------------------------------------

ACTIVATIONS = {"none": lambda sums: sums, "gelu": F.gelu, "gelu_tanh": lambda sums: F.gelu(sums, approximate="tanh")}


@given(
    leading=st.lists(st.integers(0, 9), max_size=3),
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 120),
    has_bias=st.booleans(),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    seed=st.integers(0, 99),
)
def test_it_gives_what_torch_gives(leading, inputs, outputs, has_bias, activation, seed):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(*leading, inputs, generator=generator)
    weight = torch.randn(outputs, inputs, generator=generator)
    bias = torch.randn(outputs, generator=generator) if has_bias else None
    exact = F.linear(vectors.double(), weight.double(), None if bias is None else bias.double())
    exact = ACTIVATIONS[activation](exact)
    with torch.inference_mode():
        out = linear(vectors, weight, bias, activation, *Packed.pack(_rust.PackedWeights, weight).parts)
    assert out.shape == exact.shape
    torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=1e-5 * inputs)


@pytest.mark.parametrize("rows", [1, 8, 45, 97, 400])
@pytest.mark.parametrize(("outputs", "inputs"), [(768, 768), (129, 3072), (3, 5000)])
def test_a_model_s_sizes(rows, outputs, inputs):
    generator = torch.Generator().manual_seed(rows)
    vectors, weight = torch.randn(rows, inputs, generator=generator), torch.randn(outputs, inputs, generator=generator)
    with torch.no_grad():
        out = linear(vectors, weight, None, "none", _rust.PackedWeights(weight.numpy()))
    torch.testing.assert_close(out.double(), F.linear(vectors.double(), weight.double()), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("openmp", [0, parallel_address()], ids=["new", "torch"])
@pytest.mark.parametrize("threads", [0, 1, 2, 5])
def test_a_row_s_result_is_its_own_whoever_works(openmp, threads):
    generator = np.random.default_rng(0)
    # As much work as three new threads are worth.
    x, weight = (generator.standard_normal((rows, 1100)).astype(np.float32) for rows in (121, 835))
    packed = _rust.PackedWeights(weight)

    def multiply(x, threads, openmp):
        out = np.full((len(x), len(weight)), np.nan, np.float32)
        packed.apply(x, None, "gelu", out, threads, openmp)
        return out

    together = multiply(x, threads, openmp)
    np.testing.assert_array_equal(together, np.concatenate([multiply(row[None], 1, 0) for row in x]))


def test_numbers_that_are_none_stay_where_they_are():
    vectors, weight = torch.randn(4, 8), torch.randn(5, 8)
    vectors[1, 2], vectors[2, 3] = float("nan"), float("inf")
    with torch.no_grad():
        out = linear(vectors, weight, None, "none", _rust.PackedWeights(weight.numpy()))
    torch.testing.assert_close(out, F.linear(vectors, weight), equal_nan=True)


def test_shapes_that_do_not_fit_are_told():
    weights = _rust.PackedWeights(np.ones((5, 3), np.float32))
    assert (weights.shape, repr(weights)) == ((5, 3), "PackedWeights(5, 3)")
    with pytest.raises(ValueError, match=r"x is \[2, 4\] and out \[2, 5\], but the weights are \[5, 3\]"):
        weights.apply(np.ones((2, 4), np.float32), None, "none", np.ones((2, 5), np.float32), 1, 0)
    with pytest.raises(ValueError, match="bias has 4 values: expected 5"):
        weights.apply(np.ones((2, 3), np.float32), np.ones(4, np.float32), "none", np.ones((2, 5), np.float32), 1, 0)
    with pytest.raises(ValueError, match="no columns"):
        _rust.PackedWeights(np.ones((5, 0), np.float32))


def test_it_knows_its_weights_again():
    weight = np.random.default_rng(0).standard_normal((500, 300)).astype(np.float32)
    packed = _rust.PackedWeights(weight)
    assert packed.resembles(weight, 0)
    assert packed.resembles(np.concatenate([weight[:, :7], weight], axis=1), 7)
    assert not packed.resembles(weight * np.float32(1.001), 0)
    for rows in (weight[1:], weight[:-1], np.concatenate([weight, weight[:1]])):
        assert not packed.resembles(rows, 0)
    assert not packed.resembles(weight[::-1].copy(), 0)
    for part in (np.s_[250:], np.s_[:, 1:]):
        other = weight.copy()
        other[part] *= 2
        assert not packed.resembles(other, 0)
    for first in (1, 2**64 - 1):
        assert not packed.resembles(weight, first)
    with pytest.raises(ValueError, match="weight is not C-contiguous"):
        packed.resembles(np.asfortranarray(weight), 0)
    weight[:] = np.nan
    alike = _rust.PackedWeights(weight)
    assert alike.resembles(weight, 0)
    assert not alike.resembles(weight, 1)


@pytest.mark.parametrize("kind", [_rust.PackedWeights, _rust.Int16Weights])
def test_what_is_written_to_lies_row_by_row(kind):
    out = np.zeros((2, 4), np.float32, order="F")
    with pytest.raises(ValueError, match="out is not C-contiguous"):
        kind(np.ones((4, 3), np.float32)).apply(np.ones((2, 3), np.float32), None, "none", out, 1, 0)


# --- a layer ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def layer(monkeypatch):
    """One that packs its weights, small as they are."""
    monkeypatch.setenv(VARIABLE, "packed")
    torch.manual_seed(0)
    return Linear(6, 4).eval()


def is_right(layer):
    vectors = torch.linspace(-1, 1, 18, dtype=layer.weight.dtype).view(3, 6)
    with torch.inference_mode():
        return torch.allclose(layer(vectors), F.linear(vectors, layer.weight, layer.bias), rtol=0, atol=2e-6)


def test_weights_are_packed_once(layer):
    assert layer.float32 is None
    assert is_right(layer)
    packed = layer.float32
    assert packed is not None
    assert is_right(layer)
    assert layer.float32 is packed


def test_a_row_s_result_is_the_same_the_first_time_and_later(layer):
    layer, vectors = Linear(700, 300).eval(), torch.randn(7, 700)
    with torch.inference_mode():
        first, *others = (layer(vectors) for _ in range(3))
    for other in others:
        torch.testing.assert_close(other, first, rtol=0, atol=0)


def change_behind_torch(layer):
    layer.weight.data.mul_(2)


def cut_off(layer):
    layer.weight, layer.bias = (nn.Parameter(own[:3], requires_grad=False) for own in (layer.weight, layer.bias))


def replace(layer):
    layer.weight = nn.Parameter(torch.randn(4, 6), requires_grad=False)


@pytest.mark.parametrize(
    "change",
    [
        load_others,
        change_in_place,
        change_behind_torch,
        step_in_eval_mode,
        cut_off,
        replace,
        lambda layer: layer.double(),
        lambda layer: layer.to(torch.float64).to(torch.float32),
    ],
    ids=["load", "in place", "data", "optimizer", "fewer", "another", "double", "there and back"],
)
def test_other_weights_are_packed_anew(layer, change):
    assert is_right(layer)
    assert is_right(layer)
    before = layer.float32
    change(layer)
    for _ in range(3):
        assert is_right(layer)
    assert layer.float32 is not before
    assert (layer.float32 is None) == (layer.weight.dtype is torch.float64)


@pytest.mark.parametrize("how", ["train", "gradient"])
def test_weights_that_are_to_change_are_not_packed(layer, how):
    assert is_right(layer)
    assert is_right(layer)
    assert layer.float32 is not None
    if how == "train":
        layer.train()
    else:
        layer(torch.ones(1, 6)).sum().backward()
    assert layer.float32 is None


def test_whole_numbers_take_their_place(layer):
    assert is_right(layer)
    quantize(layer, "int16")
    assert (layer.float32, layer.whole is None) == (None, False)
    assert not is_right(layer)
    assert layer.float32 is None


def test_computed_weights_are_not_packed(layer):
    nn.utils.parametrizations.weight_norm(layer)
    assert is_right(layer)
    assert layer.float32 is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_traced_layer_holds_torch_s_product(layer):
    assert is_right(layer)
    with torch.no_grad():
        traced = torch.jit.trace(layer, torch.randn(3, 6))
        vectors = torch.randn(7, 6)
        torch.testing.assert_close(traced(vectors), F.linear(vectors, layer.weight, layer.bias))


def test_many_threads_may_meet_a_layer_at_once(layer):
    layer, vectors = Linear(300, 300).eval(), torch.randn(5, 300)
    expected = F.linear(vectors, layer.weight, layer.bias).detach()

    def multiply(turn):
        if turn % 5 == 0:
            layer.train().eval()
        with torch.inference_mode():
            return layer(vectors)

    with ThreadPoolExecutor(8) as pool:
        for out in pool.map(multiply, range(100)):
            torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-4)


def test_weights_made_in_inference_mode_are_not_packed(layer):
    with torch.inference_mode():
        made = copy.deepcopy(layer)
        assert made.weight.is_inference()
        made(torch.ones(2, 6))
    assert made.float32 is None


def test_copies_and_what_is_pickled_have_none(layer):
    assert is_right(layer)
    assert is_right(layer)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert layer.float32 is not None
        assert other.float32 is None
        assert is_right(other)


@pytest.mark.parametrize("executor", ["", "onednn", "rust", "packed"])
def test_what_torch_must_see_is_not_packed(executor, layer, monkeypatch):
    monkeypatch.setenv(VARIABLE, executor)
    for _ in range(3):
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            out = layer(torch.ones(2, 6))
    assert (out.dtype, layer.float32) == (torch.bfloat16, None)


def test_the_scorer_has_its_first_layer_in_halves(monkeypatch):
    scorer = SpanScorer(6, 3, "markerV0", 0.1).eval()
    words = torch.randn(5, 6)
    with torch.inference_mode():
        expected = scorer.halves(words)
        monkeypatch.setenv(VARIABLE, "packed")
        for _ in range(3):
            torch.testing.assert_close(scorer.halves(words), expected)
    assert [part.shape for part in scorer.joint.float32.parts] == [(24, 6), (24, 6)]


def test_packing_pays_with_few_rows_of_a_large_layer_where_mkl_is_fastest(monkeypatch):
    weight, small = torch.randn(512, 512), torch.randn(8, 8)
    monkeypatch.delenv(VARIABLE, raising=False)
    for name in ("rust_is_fastest", "mkl_is_fastest", "has_avx512"):
        monkeypatch.setattr(f"gliner_fast.cpu.linear.{name}", lambda: True)
    with torch.no_grad():
        assert packing_pays(torch.randn(2, 32, 512), weight)
        assert not packing_pays(torch.randn(65, 512), weight)
        large = torch.randn(1024, 1024)
        assert packing_pays(torch.randn(384, 1024), large)
        assert not packing_pays(torch.randn(385, 1024), large)
        assert not packing_pays(torch.randn(96, 512), large, parts=2)
        assert not packing_pays(torch.randn(8, 8), small)
        assert not packing_pays(torch.randn(8, 512, dtype=torch.float64), weight.double())
        monkeypatch.setenv(VARIABLE, "torch")
        assert not packing_pays(torch.randn(8, 512), weight)
        monkeypatch.delenv(VARIABLE)
        assert packing_pays(torch.randn(8, 512), weight)
        with torch.enable_grad():
            assert not packing_pays(torch.randn(8, 512), weight)


def test_packing_pays_with_more_rows_where_mkl_is_not_fastest_but_with_avx512_alone(monkeypatch):
    weight, small = torch.randn(512, 512), torch.randn(8, 8)
    monkeypatch.delenv(VARIABLE, raising=False)
    for name, value in (("rust_is_fastest", True), ("mkl_is_fastest", False), ("has_avx512", True)):
        monkeypatch.setattr(f"gliner_fast.cpu.linear.{name}", lambda value=value: value)
    with torch.no_grad():
        assert packing_pays(torch.randn(4, 256, 512), weight)
        assert not packing_pays(torch.randn(1025, 512), weight)
        assert not packing_pays(torch.randn(8, 8), small)
        monkeypatch.setattr("gliner_fast.cpu.linear.has_avx512", lambda: False)
        assert not packing_pays(torch.randn(8, 512), weight)


# --- a model ----------------------------------------------------------------------------------------------------------


def test_a_model_s_answers_stay(monkeypatch):
    model = GLiNER.from_pretrained()
    texts = [*CROSSNER[:12], "", "word", "word " * 384]
    answers = {}
    for executor in ("torch", "packed"):
        monkeypatch.setenv(VARIABLE, executor)
        for _ in range(3):
            answers[executor] = [model.predict_entities(text, LABELS) for text in texts]
    packed = [layer for layer in model.model.modules() if isinstance(layer, Linear) and layer.float32 is not None]
    assert len(packed) > 30
    assert sum(map(len, answers["torch"])) > 20
    for ours, theirs in zip(answers["packed"], answers["torch"], strict=True):
        assert [(one["start"], one["end"], one["label"]) for one in ours] == [
            (one["start"], one["end"], one["label"]) for one in theirs
        ]
        for one, other in zip(ours, theirs, strict=True):
            assert abs(one["score"] - other["score"]) < 1e-4
