"""Products of whole numbers of 16 and 8 bits, against float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from gliner_fast.cpu.linear import linear
from gliner_fast.cpu.packed_weights import Packed
from tests.cpu.conftest import KINDS


def multiply(kind, vectors, weight, bias=None, activation="none"):
    with torch.inference_mode():
        return linear(vectors, weight, bias, activation, *Packed.pack(KINDS[kind], weight).parts)


def rounding(kind, rows):
    """How much each number of some rows may be rounded by."""
    if kind == "int16":
        return (rows.double().abs().amax(-1, keepdim=True) / 8191 * 0.501).expand_as(rows)
    return torch.cat(
        [(part.abs().amax(-1, keepdim=True) / 127 * 0.501).expand_as(part) for part in rows.double().split(64, dim=-1)],
        dim=-1,
    )


@given(
    kind=st.sampled_from(sorted(KINDS)),
    leading=st.lists(st.integers(0, 9), max_size=3),
    inputs=st.integers(1, 140),
    outputs=st.integers(1, 70),
    has_bias=st.booleans(),
    spread=st.sampled_from([0.0, 3.0]),
    seed=st.integers(0, 99),
)
def test_products_are_as_near_as_the_rounding_allows(kind, leading, inputs, outputs, has_bias, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.exp(spread * torch.randn(inputs, generator=generator))  # some numbers far above the others
    vectors = torch.randn(*leading, inputs, generator=generator) * sizes
    weight = torch.randn(outputs, inputs, generator=generator)
    bias = torch.randn(outputs, generator=generator) if has_bias else None
    ours, expected = multiply(kind, vectors, weight, bias), F.linear(vectors.double(), weight.double())
    expected = expected if bias is None else expected + bias
    assert ours.shape == expected.shape
    dx, dw = rounding(kind, vectors), rounding(kind, weight)
    allowed = F.linear(vectors.double().abs(), dw) + F.linear(dx, weight.double().abs() + dw) + 1e-5
    assert ((ours - expected).abs() <= allowed).all()


@pytest.mark.parametrize("shape", [(1, 384), (48, 1), (70, 3072)], ids=str)
def test_errors_are_a_tenth_and_four_times_those_of_bf16(kind, shape):
    torch.manual_seed(0)
    vectors, weight = torch.randn(*shape), torch.randn(40, shape[1])
    exact = F.linear(vectors.double(), weight.double())
    ours = multiply(kind, vectors, weight)
    error = float((ours - exact).norm() / exact.norm())
    half = F.linear(vectors.bfloat16().double(), weight.bfloat16().double())
    assert 0 < error < {"int16": 0.15, "int8": 5}[kind] * float((half - exact).norm() / exact.norm())


@pytest.mark.parametrize(("activation", "approximate"), [("gelu", "none"), ("gelu_tanh", "tanh")])
def test_the_activation_is_gelu(kind, activation, approximate):
    torch.manual_seed(0)
    vectors, weight, bias = torch.randn(7, 20), torch.randn(9, 20), torch.randn(9)
    torch.testing.assert_close(
        multiply(kind, vectors, weight, bias, activation),
        F.gelu(multiply(kind, vectors, weight, bias), approximate=approximate),
        rtol=1e-5,
        atol=1e-6,
    )
    with pytest.raises(ValueError, match='activation is "relu": expected none, gelu or gelu_tanh'):
        multiply(kind, vectors, weight, bias, "relu")


def test_a_row_with_a_number_that_is_none_is_none(kind):
    vectors, weight = torch.ones(3, 5), torch.ones(4, 5)
    for number in (math.nan, math.inf):
        vectors[1, 2] = number
        assert multiply(kind, vectors, weight).isnan().tolist() == [[False] * 4, [True] * 4, [False] * 4]


@pytest.mark.parametrize(("of_vectors", "of_weight"), [(1e36, 1e-6), (1e-6, 1e36), (1e-20, 1e10)], ids=str)
def test_products_of_great_and_small_numbers_are_what_they_are_of_others(kind, of_vectors, of_weight):
    torch.manual_seed(0)
    vectors, weight = torch.randn(3, 70), torch.randn(5, 70)
    torch.testing.assert_close(
        multiply(kind, vectors * of_vectors, weight * of_weight) / (of_vectors * of_weight),
        multiply(kind, vectors, weight),
        rtol=1e-3,
        atol=0.1,
    )


def test_rows_that_stand_apart_are_read(kind):
    torch.manual_seed(0)
    wide, weight = torch.randn(6, 40), torch.randn(5, 40)
    for vectors, own in ((wide[:, 3:23], weight[:, :20]), (wide.mT[:6].mT, weight[:, :6])):
        assert torch.equal(multiply(kind, vectors, own), multiply(kind, vectors.clone(), own.clone()))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_what_a_row_becomes_depends_on_it_alone(kind, threads, monkeypatch):
    torch.manual_seed(0)
    vectors, weight = torch.randn(500, 700), torch.randn(400, 700)  # work for several threads
    alone = torch.cat([multiply(kind, row[None], weight) for row in vectors[::50]])
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert torch.equal(multiply(kind, vectors, weight)[::50], alone)


@pytest.mark.parametrize(
    ("x", "out", "message"),
    [
        ((2, 4), (2, 5), r"x is \[2, 4\] and out \[2, 5\], but the weights are \[5, 3\]"),
        ((2, 2), (2, 5), r"x is \[2, 2\] and out \[2, 5\]"),
        ((2, 3), (3, 5), r"out \[3, 5\]"),
        ((2, 3), (2, 4), r"out \[2, 4\]"),
    ],
)
def test_shapes_that_do_not_fit_are_told(kind, x, out, message):
    weights = KINDS[kind](np.ones((5, 3), np.float32))
    assert weights.shape == (5, 3)
    with pytest.raises(ValueError, match=message):
        weights.apply(np.ones(x, np.float32), None, "none", np.ones(out, np.float32), 1, 0)
    with pytest.raises(ValueError, match="bias has 4 values: expected 5"):
        weights.apply(np.ones((2, 3), np.float32), np.ones(4, np.float32), "none", np.ones((2, 5), np.float32), 1, 0)
    with pytest.raises(ValueError, match="no columns"):
        KINDS[kind](np.ones((5, 0), np.float32))
