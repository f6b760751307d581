"""Linear layers through oneDNN and through Rust beside torch's own."""

from __future__ import annotations

import ctypes
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from gliner_fast import _rust
from gliner_fast.cpu.linear import (
    VARIABLE,
    Linear,
    choose_linear,
    expect_weights,
    linear,
    product_with_gelu,
    take_linear,
)
from gliner_fast.cpu.native import mkl_is_fastest, rust_is_fastest
from gliner_fast.cpu.openmp import parallel_address

HAS_ONEDNN = platform.machine().lower() in ("x86_64", "amd64") and torch.backends.mkldnn.is_available()
EXECUTORS = ["rust", pytest.param("onednn", marks=pytest.mark.skipif(not HAS_ONEDNN, reason="needs oneDNN on x86"))]


@pytest.fixture(params=EXECUTORS)
def executor(request, monkeypatch):
    monkeypatch.setenv(VARIABLE, request.param)
    return request.param


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    leading=st.lists(st.integers(0, 9), max_size=3),
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 70),
    has_bias=st.booleans(),
    activation=st.sampled_from(["none", "gelu"]),
    is_strided=st.booleans(),
    seed=st.integers(0, 99),
)
def test_each_gives_what_torch_gives(executor, leading, inputs, outputs, has_bias, activation, is_strided, seed):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(*leading, inputs, generator=generator)
    if is_strided and vectors.dim() > 1:
        vectors = torch.randn(*leading[::-1], inputs, generator=generator).transpose(0, len(leading) - 1)
    weight = torch.randn(outputs, inputs, generator=generator)
    bias = torch.randn(outputs, generator=generator) if has_bias else None
    exact = F.linear(vectors.double(), weight.double(), None if bias is None else bias.double())
    exact = F.gelu(exact) if activation == "gelu" else exact
    with torch.inference_mode():
        assert choose_linear(vectors, weight) == executor
        out = linear(vectors, weight, bias, activation)
    assert out.shape == exact.shape
    torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=1e-5 * inputs)


def test_numbers_that_are_none_stay_where_they_are(executor):
    vectors, weight = torch.randn(4, 8), torch.randn(5, 8)
    vectors[1, 2], vectors[2, 3] = float("nan"), float("inf")
    with torch.no_grad():
        assert choose_linear(vectors, weight) == executor
        out = linear(vectors, weight, activation="gelu")
    expected = F.gelu(F.linear(vectors, weight))
    torch.testing.assert_close(out[[0, 1, 3]], expected[[0, 1, 3]], equal_nan=True)
    assert not out[2].isfinite().any()  # torch itself gives inf or NaN for inf, by CPU and place


@pytest.mark.parametrize("rows", [1, 2, 3, 45, 80])
@pytest.mark.parametrize(("outputs", "inputs"), [(768, 768), (129, 3072), (3, 5000)])
def test_a_model_s_sizes(rows, outputs, inputs, executor):
    generator = torch.Generator().manual_seed(rows)
    vectors, weight = torch.randn(rows, inputs, generator=generator), torch.randn(outputs, inputs, generator=generator)
    with torch.no_grad():
        out = linear(vectors, weight)
    torch.testing.assert_close(out.double(), F.linear(vectors.double(), weight.double()), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("openmp", [0, parallel_address()], ids=["new", "torch"])
@pytest.mark.parametrize("threads", [0, 1, 2, 5])
def test_a_row_s_result_is_its_own_whoever_works(openmp, threads):
    generator = np.random.default_rng(0)
    # As much work as three new threads are worth.
    x, weight = (generator.standard_normal((rows, 1100)).astype(np.float32) for rows in (61, 1535))
    together = _rust.linear(x, weight, None, "gelu", threads, openmp)
    alone = np.concatenate([_rust.linear(row[None], weight, None, "gelu", 1, 0) for row in x])
    np.testing.assert_array_equal(together, alone)


def test_torch_s_threads_serve_many_callers_at_once():
    generator = np.random.default_rng(0)
    layers = [generator.standard_normal((2, 64, 512)).astype(np.float32) for _ in range(8)]
    expected = [_rust.linear(x, weight, None, "none", 1, 0) for x, weight in layers]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            found = pool.map(lambda layer: _rust.linear(*layer, None, "none", 3, parallel_address()), layers)
            for own, wanted in zip(found, expected, strict=True):
                np.testing.assert_array_equal(own, wanted)


@pytest.mark.skipif(not parallel_address(), reason="torch has an OpenMP library without GOMP_parallel, or none")
@pytest.mark.skipif(sys.platform != "linux", reason="/proc says which library it is")
def test_the_address_is_in_the_library_that_torch_uses():
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    ranges = [(*(int(end, 16) for end in fields[0].split("-")), fields[-1]) for fields in maps]
    (library,) = {name for begin, end, name in ranges if begin <= parallel_address() < end}
    threads = torch.get_num_threads()
    try:
        for count in (3, 2):
            torch.set_num_threads(count)
            assert ctypes.CDLL(library).omp_get_max_threads() == count
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"x": np.zeros((2, 4), np.float32)}, "x has 4 columns and weight has 3"),
        ({"x": np.zeros((0, 2), np.float32)}, "x has 2 columns and weight has 3"),
        ({"x": np.zeros((2, 6), np.float32)[:, ::2]}, "x is not C-contiguous"),
        ({"weight": np.asfortranarray(np.zeros((5, 3), np.float32))}, "weight is not C-contiguous"),
        ({"weight": np.zeros(61, np.int8)[1:].view(np.float32).reshape(5, 3)}, "weight is not aligned"),
        ({"weight": np.zeros((5, 0), np.float32), "x": np.zeros((2, 0), np.float32)}, "no columns"),
        ({"bias": np.zeros(4, np.float32)}, "bias has 4 values: expected 5"),
        ({"activation": "relu"}, 'activation is "relu": expected none, gelu or gelu_tanh'),
        ({"threads": -1}, "threads is -1"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, told):
    given = {
        "x": np.zeros((2, 3), np.float32),
        "weight": np.zeros((5, 3), np.float32),
        "bias": np.zeros(5, np.float32),
        "activation": "none",
        "threads": 1,
    }
    assert _rust.linear(**given, openmp=0).shape == (2, 5)
    with pytest.raises(ValueError, match=told):
        _rust.linear(**given | change, openmp=0)


class Tagged(torch.Tensor):
    """Somebody's own kind of tensor."""


@pytest.mark.skipif(not (HAS_ONEDNN and rust_is_fastest()), reason="another CPU, where torch or oneDNN keeps all")
def test_few_rows_of_a_large_layer_go_to_rust(monkeypatch):
    monkeypatch.setattr("gliner_fast.cpu.linear.mkl_is_fastest", lambda: False)
    weight, small = torch.randn(512, 512), torch.randn(8, 8)
    with torch.no_grad():
        assert choose_linear(torch.randn(2, 40, 512), weight) == "rust"
        assert choose_linear(torch.randn(81, 512), weight) == "onednn"
        assert choose_linear(torch.randn(40, 8), small) == "onednn"
        assert choose_linear(torch.randn(40, 512).as_subclass(Tagged), weight) == "onednn"
        misaligned = torch.frombuffer(bytearray(512 * 512 * 4 + 1), dtype=torch.float32, offset=1)
        assert choose_linear(torch.randn(40, 512), misaligned.view(512, 512)) == "onednn"
        monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)  # ours has nothing to do with it
        assert choose_linear(torch.randn(40, 512), weight) == "rust"
        assert choose_linear(torch.randn(81, 512), weight) == "torch"


def test_where_mkl_is_fastest_few_rows_go_to_rust_where_weights_begin_on_a_line(monkeypatch):
    monkeypatch.setattr("gliner_fast.cpu.linear.mkl_is_fastest", lambda: True)
    monkeypatch.setattr("gliner_fast.cpu.linear.rust_is_fastest", lambda: True)
    aligned, room = torch.randn(512, 512), torch.randn(512 * 512 + 1)
    assert aligned.data_ptr() % 64 == room.data_ptr() % 64 == 0
    with torch.no_grad():
        assert choose_linear(torch.randn(40, 512), aligned) == "rust"
        assert choose_linear(torch.randn(40, 512), room[1:].view(512, 512)) == "torch"
        assert choose_linear(torch.randn(81, 512), aligned) == "torch"
        monkeypatch.setenv(VARIABLE, "rust")
        assert choose_linear(torch.randn(40, 512), room[1:].view(512, 512)) == "rust"


@pytest.mark.parametrize(
    ("capability", "cpu", "is_fastest"),
    [
        ("AVX512", "vendor_id\t: GenuineIntel\n", torch.backends.mkl.is_available()),
        ("AVX512", "vendor_id\t: AuthenticAMD\n", False),
        ("AVX2", "vendor_id\t: GenuineIntel\n", False),
        ("AVX512", "", False),
    ],
)
def test_mkl_is_fastest_on_the_cpus_it_was_made_for(capability, cpu, is_fastest, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr("gliner_fast.cpu.native._description", lambda: cpu)
    assert mkl_is_fastest.__wrapped__() is is_fastest


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_traced_layer_holds_torch_s_product():
    layer = Linear(512, 512)
    with torch.no_grad():
        traced = torch.jit.trace(layer, torch.randn(3, 512))
        vectors = torch.randn(7, 512)
        torch.testing.assert_close(traced(vectors), F.linear(vectors, layer.weight, layer.bias))


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
        assert choose_linear(vectors, weight) == "torch"
        torch.testing.assert_close(linear(vectors, weight), F.linear(vectors, weight), rtol=0, atol=0)


def test_a_gradient_is_that_of_torch():
    layer = Linear(6, 4)
    vectors = torch.randn(3, 6, requires_grad=True)
    layer.product(vectors, "gelu").sum().backward()
    expected = torch.autograd.grad(F.gelu(F.linear(vectors, layer.weight, layer.bias)).sum(), [vectors, layer.weight])
    assert layer.weight.grad is not None
    torch.testing.assert_close([vectors.grad, layer.weight.grad], list(expected))


@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8), (0, 8)])
@torch.inference_mode()
def test_a_product_takes_gelu_along(shape):
    vectors, layer = torch.randn(shape), nn.Linear(8, 4)
    found = product_with_gelu(vectors, layer.weight, layer.bias)
    torch.testing.assert_close(found, F.gelu(layer(vectors)))  # a CPU has the exact form


def test_an_unknown_name_is_refused(monkeypatch):
    monkeypatch.setenv(VARIABLE, "mkl")
    with (
        torch.no_grad(),
        pytest.raises(ValueError, match="GLINER_FAST_LINEAR is 'mkl': expected one of torch, onednn, rust, packed"),
    ):
        linear(torch.randn(1, 2), torch.randn(3, 2))


def test_a_layer_that_is_read_by_its_weights_may_have_computed_ones_but_no_other_way():
    class Doubled(Linear):
        def forward(self, input):  # noqa: A002
            return 2 * super().forward(input)

    layer = Linear(2, 3)
    assert expect_weights(layer, "it") is layer
    assert expect_weights(nn.utils.parametrizations.weight_norm(layer), "it") is layer
    for other in (Doubled(2, 3), nn.Linear(2, 3), nn.Sequential(Linear(2, 3))):
        with pytest.raises(TypeError, match=f"it is a {type(other).__name__}: "):
            expect_weights(other, "it")


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
