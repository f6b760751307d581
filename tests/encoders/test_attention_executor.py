"""Who computes the attention."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch

from gliner_fast.cpu import native
from gliner_fast.encoders import attention_executor
from gliner_fast.encoders.attention_executor import VARIABLE, PackedTexts, choose_attention, runs_of_equals
from gliner_fast.kernels import _triton, disentangled_attention
from gliner_fast.kernels._triton import INTERPRETED
from tests.small_network import packed, small_batch, small_network

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the environment variable."""
    monkeypatch.delenv(VARIABLE, raising=False)
    return lambda value: monkeypatch.setenv(VARIABLE, value)


def test_neighbours_of_one_length_are_taken_together_and_empty_texts_left_out():
    assert runs_of_equals([0, 3, 3, 0, 2, 3]) == [(slice(0, 6), 3), (slice(6, 8), 2), (slice(8, 11), 3)]
    assert runs_of_equals([]) == []


def test_packed_texts_may_come_in_any_order():
    texts = PackedTexts([2, 0, 3, 1], torch.tensor([0, 2, 2, 5, 6]))
    assert texts.longest == 3
    assert texts.starts.tolist() == [0, 0, 2, 2, 2, 5]
    assert texts.places.tolist() == [0, 1, 0, 1, 2, 0]
    assert PackedTexts([], torch.tensor([0])).longest == 0


def test_a_cpu_attends_in_rust_where_that_is_fast_else_to_texts_of_one_length_together(asked, monkeypatch):
    for is_fastest, dtype, chosen in [
        (True, torch.float32, "rust"),
        (True, torch.bfloat16, "rust"),
        (True, torch.float64, "grouped"),
        (False, torch.float32, "grouped"),
    ]:
        monkeypatch.setattr(attention_executor, "rust_is_fastest", lambda is_fastest=is_fastest: is_fastest)
        assert choose_attention(CPU, dtype, 64) == chosen


@pytest.mark.parametrize(("device", "dtype"), [(CPU, torch.float64), (CUDA, torch.float32)])
def test_rust_takes_float32_on_a_cpu_alone(device, dtype, asked):
    asked("rust")
    with pytest.raises(ValueError, match="GLINER_FAST_ATTENTION is 'rust', but the model computes"):
        choose_attention(device, dtype, 64)


@pytest.mark.parametrize(
    ("has_triton", "capability", "dtype", "head_dim", "chosen"),
    [
        (True, (9, 0), torch.float32, 64, "triton"),
        (True, (8, 0), torch.bfloat16, 32, "triton"),
        (True, (9, 0), torch.float16, 24, "padded"),
        (True, (9, 0), torch.float64, 64, "padded"),
        (True, (7, 5), torch.float16, 64, "padded"),
        (False, (9, 0), torch.float16, 64, "padded"),
    ],
)
def test_triton_attends_on_cuda_where_it_can(asked, monkeypatch, has_triton, capability, dtype, head_dim, chosen):
    monkeypatch.setattr(_triton, "HAS_TRITON", has_triton)
    monkeypatch.setattr(native, "_is_supported_by_triton", native._is_supported_by_triton.__wrapped__)  # asks each time
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert choose_attention(CUDA, dtype, head_dim) == chosen


@pytest.mark.parametrize("name", ["padded", "grouped", "torch", "rust", "triton"])
def test_the_variable_decides(name, asked, monkeypatch):
    monkeypatch.setattr(_triton, "HAS_TRITON", True)
    monkeypatch.setattr(_triton, "INTERPRETED", True)
    asked(name)
    assert choose_attention(CPU, torch.float32, 64) == name


def test_an_unknown_name_is_refused(asked):
    asked("flashy")
    with pytest.raises(
        ValueError, match="GLINER_FAST_ATTENTION is 'flashy': expected one of padded, grouped, torch, rust, triton"
    ):
        choose_attention(CPU, torch.float32, 64)


def test_triton_is_refused_on_a_cpu_without_its_interpreter(asked, monkeypatch):
    asked("triton")
    monkeypatch.setattr(_triton, "HAS_TRITON", True)
    monkeypatch.setattr(_triton, "INTERPRETED", False)
    with pytest.raises(ValueError, match="GLINER_FAST_ATTENTION is 'triton', but the model is on cpu"):
        choose_attention(CPU, torch.float32, 64)


@pytest.mark.parametrize("name", ["torch", "rust", "triton"])
def test_the_executor_that_is_chosen_computes(name, asked, monkeypatch):
    if name == "triton" and not INTERPRETED:
        pytest.skip("needs Triton, and a machine without a GPU")
    asked(name)
    ran = []
    for executor, home, function in (
        ("torch", attention_executor, "disentangled_attention_reference"),
        ("rust", attention_executor, "native_attention"),
        ("triton", disentangled_attention, "disentangled_attention"),
    ):
        compute = getattr(home, function)

        def counted(*given, executor=executor, compute=compute, **options):
            ran.append(executor)
            return compute(*given, **options)

        monkeypatch.setattr(home, function, counted)
    network = small_network()
    assert network.reads_packed
    with torch.inference_mode():
        network(packed(small_batch()))
    assert ran == [name] * 2  # layers


def test_a_compiled_network_reads_padded_texts(asked, monkeypatch):
    asked("torch")
    network = small_network()
    assert network.reads_packed
    monkeypatch.setattr(network, "_compiled_call_impl", network.forward)
    assert not network.reads_packed


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, "disentangled-flash")
    monkeypatch.setitem(sys.modules, "disentangled_flash", None)
    with pytest.raises(ValueError, match=r"not installed: pip install 'gliner-fast\[gpu\]', or leave the variable"):
        choose_attention(CPU, torch.float32, 64)
