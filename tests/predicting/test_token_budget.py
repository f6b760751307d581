"""How many subwords make a batch."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from gliner_fast import GLiNER
from gliner_fast.cpu.heap import LARGEST_KEPT
from gliner_fast.predicting.token_budget import bytes_per_subword, default_budget
from tests.small_network import small_network

CUDA = torch.device("cuda", 0)


@pytest.fixture
def free(monkeypatch):
    """Pretends that a card has so many bytes free, of which torch holds some."""

    def pretend(by_driver, by_torch=0):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (by_driver, 2**40))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: by_torch + 2**40)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 2**40)

    return pretend


def test_a_cpu_s_budget_grows_with_its_threads(monkeypatch):
    budgets = []
    for threads in (1, 2, 16, 256):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        budgets.append(default_budget(small_network(), torch.device("cpu")))
    assert budgets == [768, 768, 4096, 2**14]  # and no further


@pytest.mark.parametrize(("dtype", "has_amx", "budget"), [
    (torch.bfloat16, True, 3072), (torch.bfloat16, False, 768), (torch.float32, True, 768), (torch.float16, True, 768)
])  # fmt: skip
def test_with_amx_batches_are_larger_in_bf16(dtype, has_amx, budget, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr("gliner_fast.predicting.token_budget.has_amx", lambda: has_amx)
    assert default_budget(small_network().to(dtype), torch.device("cpu")) == budget


@pytest.mark.parametrize(("dtype", "width", "budget"), [
    (torch.float32, 768, 2729), (torch.bfloat16, 768, 5460), (torch.float32, 384, 4096), (torch.float32, 2**20, 256)
])  # fmt: skip
def test_many_threads_get_no_batch_whose_tensors_the_system_would_be_asked_for(dtype, width, budget, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    monkeypatch.setattr("gliner_fast.predicting.token_budget.has_amx", lambda: True)
    monkeypatch.setattr("gliner_fast.predicting.token_budget.encoder_width", lambda _: width)
    found = default_budget(small_network().to(dtype), torch.device("cpu"))
    assert found == budget
    assert found == 256 or found * 4 * width * dtype.itemsize < LARGEST_KEPT


def test_a_card_s_budget_follows_its_free_memory(free):
    network = small_network()
    one = bytes_per_subword(network)
    free(20_000 * one)
    assert default_budget(network, CUDA) == 10_000
    free(10_000 * one, by_torch=10_000 * one)
    assert default_budget(network, CUDA) == 10_000


def test_a_card_s_budget_has_bounds(free):
    free(2**40)
    assert default_budget(small_network(), CUDA) == 2**16
    free(0)
    assert default_budget(small_network(), CUDA) == 2**9


def test_a_subword_takes_half_the_bytes_in_half_precision():
    whole, half = bytes_per_subword(small_network()), bytes_per_subword(small_network().bfloat16())
    assert whole - 64 == 2 * (half - 64) > 0


def test_a_card_is_asked_once(monkeypatch):
    model, asked = GLiNER.from_pretrained(), []
    monkeypatch.setattr("gliner_fast.model.default_budget", lambda *given: asked.append(given) or 77)
    assert [model._default_budget(CUDA) for _ in range(3)] == [77] * 3
    assert len(asked) == 1


def test_what_is_neither_cpu_nor_cuda_has_a_fixed_budget():
    assert default_budget(SimpleNamespace(), torch.device("meta")) == 2**16
