"""The Rust kernel of the word LSTM beside torch's own."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from gliner_fast import _rust
from gliner_fast.cpu import native_lstm as native_lstm_module
from gliner_fast.cpu.native_lstm import VARIABLE, native_lstm, takes_native_lstm
from gliner_fast.cpu.openmp import parallel_address
from gliner_fast.scoring import word_vectors
from gliner_fast.scoring.word_vectors import WordLSTM, time_major


def make_lstm(inputs: int, width: int, layers: int, seed: int = 0) -> nn.LSTM:
    torch.manual_seed(seed)
    lstm = nn.LSTM(inputs, width, layers, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for weight in lstm.parameters():
            weight.mul_(3.0)  # gates that close and open
    return lstm.eval()


def expected(lstm: nn.LSTM, vectors: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """torch's own in float64."""
    exact = nn.LSTM(lstm.input_size, lstm.hidden_size, lstm.num_layers, batch_first=True, bidirectional=True).double()
    exact.load_state_dict(lstm.state_dict())
    order, sizes = time_major(counts)
    out = exact(PackedSequence(vectors.double()[order], sizes))[0].data
    return torch.empty_like(out).index_copy(0, order, out)


@settings(max_examples=100)
@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=9),
    inputs=st.integers(1, 20),
    width=st.integers(1, 40),
    layers=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_random_texts(counts, inputs, width, layers, seed):
    lstm, counts = make_lstm(inputs, width, layers, seed), torch.tensor(counts)
    vectors = torch.randn(int(counts.sum()), inputs, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        assert takes_native_lstm(lstm, vectors)
        out = native_lstm(lstm, vectors, counts)
        torch.testing.assert_close(out.double(), expected(lstm, vectors, counts), rtol=0, atol=2e-5)


@pytest.mark.parametrize("counts", [[384, 1, 385], [20]], ids=str)
@pytest.mark.parametrize("width", [192, 256])
def test_a_model_s_sizes(width, counts):
    lstm, counts = make_lstm(2 * width, width, 1), torch.tensor(counts)
    vectors = torch.randn(int(counts.sum()), 2 * width, generator=torch.Generator().manual_seed(0)) * 3
    with torch.no_grad():
        out = native_lstm(lstm, vectors, counts)
        torch.testing.assert_close(out.double(), expected(lstm, vectors, counts), rtol=0, atol=1e-4)


@pytest.mark.parametrize("openmp", [0, parallel_address()], ids=["new", "torch"])
@pytest.mark.parametrize("threads", [0, 1, 2, 7])
def test_a_text_s_result_is_its_own_whoever_works(openmp, threads):
    generator, width, counts = np.random.default_rng(0), 96, [90, 3, 0, 250, 251, 40]

    def numbers(*shape: int) -> Any:
        return generator.standard_normal(shape).astype(np.float32) * 0.3

    inputs = [numbers(sum(counts), 4 * width) for _ in range(2)]
    rest = [(numbers(4 * width, width), numbers(4 * width)) for _ in range(2)]

    def states(rows: slice, own: list[int], threads: int, openmp: int) -> Any:
        directions = [(part[rows], *others) for part, others in zip(inputs, rest, strict=True)]
        return _rust.lstm(*directions, np.array(own), threads, openmp)

    together = states(slice(None), counts, threads, openmp)
    starts = np.cumsum(counts) - counts
    alone = [states(slice(at, at + n), [n], 1, 0) for at, n in zip(starts, counts, strict=True)]
    np.testing.assert_array_equal(together, np.concatenate(alone))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_stay_in_their_text(value):
    lstm, counts = make_lstm(8, 16, 1), torch.tensor([4, 5, 3])
    vectors = torch.randn(12, 8)
    with torch.no_grad():
        clean = native_lstm(lstm, vectors, counts)
        vectors[6, 2] = value
        out = native_lstm(lstm, vectors, counts)
    assert torch.equal(out[:4], clean[:4])
    assert torch.equal(out[9:], clean[9:])
    if np.isnan(value):
        assert out[6:9, :16].isnan().all()
        assert out[4:7, 16:].isnan().all()


def test_who_goes_to_torch():
    lstm, vectors = make_lstm(8, 4, 2), torch.randn(3, 8)
    with torch.no_grad():
        assert takes_native_lstm(lstm, vectors)
        assert not takes_native_lstm(lstm, vectors.double())
        assert not takes_native_lstm(make_lstm(8, 4, 1).bfloat16(), vectors)
        assert not takes_native_lstm(make_lstm(8, 4, 1).to("meta"), vectors)
        with torch.autocast("cpu", torch.bfloat16):
            assert not takes_native_lstm(lstm, vectors)
        assert not takes_native_lstm(lstm.train(), vectors)
        assert takes_native_lstm(lstm.eval(), vectors)
        assert not takes_native_lstm(lstm, torch.randn(8, 3).T)
        hook = lstm.register_forward_hook(lambda *_: None)
        assert not takes_native_lstm(lstm, vectors)
        hook.remove()
        assert takes_native_lstm(lstm, vectors)
        hook = nn.modules.module.register_module_forward_hook(lambda *_: None)
        assert not takes_native_lstm(lstm, vectors)
        hook.remove()
        assert takes_native_lstm(lstm, vectors)
        misaligned = torch.frombuffer(bytearray(4 * 16 * 4 + 1), dtype=torch.float32, offset=1).view(16, 4)
        other = make_lstm(8, 4, 1)
        other.weight_hh_l0 = nn.Parameter(misaligned)
        assert not takes_native_lstm(other, vectors)
        assert not takes_native_lstm(nn.LSTM(8, 4, bias=False, bidirectional=True).eval(), vectors)
        assert not takes_native_lstm(nn.LSTM(8, 4).eval(), vectors)
        other = make_lstm(8, 4, 1)
        other.register_forward_pre_hook(lambda *_: None)  # as weight_norm and pruning make their weights
        assert not takes_native_lstm(other, vectors)
        lstm.__class__ = type("Own", (nn.LSTM,), {})
        assert not takes_native_lstm(lstm, vectors)
    assert not takes_native_lstm(make_lstm(8, 4, 1), vectors)  # with gradients


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::torch.jit.TracerWarning")
def test_a_traced_module_holds_torch_s_lstm(monkeypatch):
    monkeypatch.setenv(VARIABLE, "rust")
    module, vectors, counts = WordLSTM(8, 1).eval(), torch.randn(5, 8), torch.tensor([3, 2])
    with torch.no_grad():
        traced = torch.jit.trace(module, (torch.randn(5, 8), counts), check_trace=False)
        torch.testing.assert_close(traced(vectors, counts), module(vectors, counts), rtol=0, atol=1e-5)


@pytest.mark.parametrize("is_fastest", [True, False])
def test_the_module_asks_who_is_fastest(is_fastest, monkeypatch):
    calls = []

    def counted(*arguments: Any) -> torch.Tensor:
        calls.append(arguments)
        return native_lstm(*arguments)

    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(native_lstm_module, "rust_is_fastest", lambda: is_fastest)
    monkeypatch.setattr(word_vectors, "native_lstm", counted)
    module, vectors, counts = WordLSTM(8, 1).eval(), torch.randn(9, 8), torch.tensor([2, 6, 1])
    with torch.inference_mode():
        out = module(vectors, counts)
        torch.testing.assert_close(out.double(), expected(module.lstm, vectors, counts), rtol=0, atol=1e-6)
        assert len(calls) == is_fastest
        monkeypatch.setenv(VARIABLE, "torch" if is_fastest else "rust")
        module(vectors, counts)
        assert len(calls) == 1
        monkeypatch.setenv(VARIABLE, "gpu")
        with pytest.raises(ValueError, match="GLINER_FAST_LSTM is 'gpu': expected torch or rust"):
            module(vectors, counts)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"inputs": np.zeros((3, 12), np.float32)},
            r"inputs of the backward direction is \[3, 12\]: expected \[3, 8\]",
        ),
        ({"inputs": np.zeros((4, 8), np.float32)}, "inputs of the backward direction has 32 values: expected 24"),
        ({"inputs": np.zeros((3, 16), np.float32)[:, ::2]}, "inputs is not C-contiguous"),
        ({"weight": np.zeros((2, 8), np.float32)}, r"weight of the backward direction is \[2, 8\]: expected \[8, 2\]"),
        ({"bias": np.zeros(7, np.float32)}, "bias of the backward direction has 7 values: expected 8"),
        ({"lengths": np.array([2, 2])}, "inputs of the forward direction has 24 values: expected 32"),
        ({"lengths": np.array([4, -1])}, r"lengths\[1\] is -1"),
        ({"threads": -1}, "threads is -1"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, told):
    direction = {
        "inputs": np.zeros((3, 8), np.float32),
        "weight": np.zeros((8, 2), np.float32),
        "bias": np.zeros(8, np.float32),
    }
    rest = {"lengths": np.array([2, 1]), "threads": 1}
    assert _rust.lstm(tuple(direction.values()), tuple(direction.values()), **rest, openmp=0).shape == (3, 4)
    backward = tuple({name: change.get(name, value) for name, value in direction.items()}.values())
    rest = {name: change.get(name, value) for name, value in rest.items()}
    with pytest.raises(ValueError, match=told):
        _rust.lstm(tuple(direction.values()), backward, **rest, openmp=0)


def test_a_text_s_answer_is_its_own_where_weights_of_inputs_are_kept(monkeypatch):
    monkeypatch.setenv(VARIABLE, "rust")
    lstm, counts = WordLSTM(384, 1).eval(), torch.tensor([20, 384, 1, 300])
    lstm.kept = {}
    vectors = torch.randn(int(counts.sum()), 384, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together = lstm(vectors, counts).split(counts.tolist())
        for own, count, found in zip(vectors.split(counts.tolist()), counts, together, strict=True):
            assert torch.equal(lstm(own, count[None]), found)
    assert set(lstm.kept) == {"l0", "l0_reverse"}


def test_kept_weights_are_those_of_now_and_stay_out_of_copies(monkeypatch):
    monkeypatch.setenv(VARIABLE, "rust")
    lstm, vectors, counts = WordLSTM(8, 1).eval(), torch.randn(5, 8), torch.tensor([3, 2])
    lstm.kept = {}
    with torch.no_grad():
        lstm(vectors, counts)
        lstm.lstm.weight_ih_l0_reverse.mul_(2)
        torch.testing.assert_close(lstm(vectors, counts).double(), expected(lstm.lstm, vectors, counts))
        half = lstm.bfloat16()
        half(vectors.bfloat16(), counts)
    assert copy.deepcopy(lstm).kept is None
    assert lstm.eval().kept is not None
    assert lstm.train().kept is None
