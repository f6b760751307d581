"""Linear layers through oneDNN beside torch's own."""

from __future__ import annotations

import platform

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gliner_fast.linear import VARIABLE, Linear, linear, take_linear, uses_onednn

needs_onednn = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available(),
    reason="needs oneDNN on x86",
)


@needs_onednn
@given(
    leading=st.lists(st.integers(0, 9), max_size=3),
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 70),
    has_bias=st.booleans(),
    activation=st.sampled_from(["none", "gelu"]),
    is_strided=st.booleans(),
    seed=st.integers(0, 99),
)
def test_onednn_gives_what_torch_gives(leading, inputs, outputs, has_bias, activation, is_strided, seed):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(*leading, inputs, generator=generator)
    if is_strided and vectors.dim() > 1:
        vectors = torch.randn(*leading[::-1], inputs, generator=generator).transpose(0, len(leading) - 1)
    weight = torch.randn(outputs, inputs, generator=generator)
    bias = torch.randn(outputs, generator=generator) if has_bias else None
    exact = F.linear(vectors.double(), weight.double(), None if bias is None else bias.double())
    exact = F.gelu(exact) if activation == "gelu" else exact
    with torch.inference_mode():
        assert uses_onednn(vectors, weight)
        out = linear(vectors, weight, bias, activation)
    assert out.shape == exact.shape
    torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=1e-5 * inputs)


@needs_onednn
def test_numbers_that_are_none_stay_where_they_are():
    vectors, weight = torch.randn(4, 8), torch.randn(5, 8)
    vectors[1, 2], vectors[2, 3] = float("nan"), float("inf")
    with torch.no_grad():
        assert uses_onednn(vectors, weight)
        out = linear(vectors, weight, activation="gelu")
    expected = F.gelu(F.linear(vectors, weight))
    torch.testing.assert_close(out, expected, equal_nan=True)


@pytest.mark.parametrize("why", ["gradient", "dtype", "a part of a weight", "switched off", "asked for torch"])
def test_else_torch_multiplies(why, monkeypatch):
    vectors, weight = torch.randn(3, 8), torch.randn(5, 16)[:, :8].contiguous()
    if why == "dtype":
        vectors, weight = vectors.double(), weight.double()
    if why == "a part of a weight":
        weight = torch.randn(5, 16)[:, 8:]
    if why == "switched off":
        monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    if why == "asked for torch":
        monkeypatch.setenv(VARIABLE, "torch")
    with torch.set_grad_enabled(why == "gradient"):
        assert not uses_onednn(vectors, weight)
        torch.testing.assert_close(linear(vectors, weight), F.linear(vectors, weight), rtol=0, atol=0)


def test_a_gradient_is_that_of_torch():
    layer = Linear(6, 4, "gelu")
    vectors = torch.randn(3, 6, requires_grad=True)
    layer(vectors).sum().backward()
    expected = torch.autograd.grad(F.gelu(F.linear(vectors, layer.weight, layer.bias)).sum(), [vectors, layer.weight])
    assert layer.weight.grad is not None
    torch.testing.assert_close([vectors.grad, layer.weight.grad], list(expected))


def test_an_unknown_name_is_refused(monkeypatch):
    monkeypatch.setenv(VARIABLE, "mkl")
    with torch.no_grad(), pytest.raises(ValueError, match="GLINER_FAST_LINEAR is 'mkl': expected torch or onednn"):
        linear(torch.randn(1, 2), torch.randn(3, 2))


def test_layers_are_taken_but_not_those_of_another_class():
    class Adapted(nn.Linear):
        pass

    module = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), Adapted(3, 4))
    names = list(module.state_dict())
    take_linear(module)
    assert [type(inner) for inner in module] == [Linear, nn.ReLU, Adapted]
    assert list(module.state_dict()) == names
    vectors = torch.randn(5, 2)
    torch.testing.assert_close(module[0](vectors), F.linear(vectors, module[0].weight, module[0].bias))
