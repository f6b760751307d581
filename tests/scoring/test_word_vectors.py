"""Pooling and the packed LSTM against plain loops and torch's padded way."""

from __future__ import annotations

import importlib
from contextlib import nullcontext

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from gliner_fast.scoring.word_vectors import WordLSTM, keep_in_one_piece, pool_subwords, time_major


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_word_is_reduced_over_its_subwords(pooling: str) -> None:
    subwords = torch.randn(6, 5)
    words = torch.tensor([0, 0, 2, 2, 2, 3])
    pooled = pool_subwords(subwords, words, 5, pooling)
    for word in (0, 2, 3):
        own = subwords[words == word]
        torch.testing.assert_close(pooled[word], own.mean(0) if pooling == "mean" else own.amax(0))
    assert not pooled[[1, 4]].any()


@pytest.mark.parametrize("pooling", ["first", "last"])
def test_a_word_takes_its_one_subword_and_a_word_without_is_zero(pooling: str) -> None:
    subwords = torch.randn(2, 5)
    pooled = pool_subwords(subwords, torch.tensor([1, 3]), 4, pooling)
    assert torch.equal(pooled[[1, 3]], subwords)
    assert not pooled[[0, 2]].any()


@pytest.mark.parametrize("word_counts", [[1], [5], [3, 1, 7, 7, 2], [1, 1, 1]])
@pytest.mark.parametrize("layers", [1, 2])
def test_packed_lstm_equals_the_padded_one(word_counts: list[int], layers: int) -> None:
    torch.manual_seed(0)
    module = WordLSTM(6, layers).double().eval()
    texts = [torch.randn(count, 6, dtype=torch.float64) for count in word_counts]
    padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    packed = pack_padded_sequence(padded, torch.tensor(word_counts), batch_first=True, enforce_sorted=False)
    wanted, _ = pad_packed_sequence(module.lstm(packed)[0], batch_first=True)
    wanted = torch.cat([own[:count] for own, count in zip(wanted, word_counts, strict=True)])
    ours = module(torch.cat(texts), torch.tensor(word_counts))
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-14)


def test_time_major_order_is_all_first_words_then_all_second_ones() -> None:
    order, sizes = time_major(torch.tensor([2, 3, 1]))
    # words of the texts: 0 1 | 2 3 4 | 5
    assert order.tolist() == [2, 0, 5, 3, 1, 4]
    assert sizes.tolist() == [3, 2, 1]


@pytest.mark.parametrize("counts", [[1], [1, 1], [5], [2, 7, 1, 7, 3], [1, 40]])
@pytest.mark.parametrize("layers", [1, 2])
def test_lstm_in_closed_form_is_torchs_and_so_is_its_gradient(counts: list[int], layers: int) -> None:
    torch.manual_seed(len(counts))
    module = WordLSTM(6, layers).double()
    word_counts = torch.tensor(counts)
    order, sizes = time_major(word_counts)
    outs = []
    for closed_form in (True, False):
        vectors = torch.linspace(-2, 2, sum(counts) * 6, dtype=torch.float64).sin().view(-1, 6).requires_grad_()
        if closed_form:
            out = module(vectors, word_counts)
            assert type(out.grad_fn).__name__ == "CatBackward0"  # not torch's LSTM
        else:
            packed = module.lstm(PackedSequence(vectors[order], sizes))[0].data
            out = torch.empty_like(packed).index_copy(0, order, packed)
        weight = torch.arange(out.numel(), dtype=torch.float64).cos().view_as(out)
        outs.append([out, *torch.autograd.grad((out * weight).sum(), [vectors, *module.parameters()])])
    for ours, theirs in zip(*outs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_no_two_gradients_of_the_lstm_share_memory() -> None:
    module = WordLSTM(6, 1)
    module(torch.randn(5, 6), torch.tensor([3, 2])).sum().backward()
    before = [parameter.grad.clone() for parameter in module.parameters()]
    for parameter in module.parameters():
        parameter.grad.mul_(2)  # as clipping does
    for parameter, gradient in zip(module.parameters(), before, strict=True):
        assert parameter.grad.equal(2 * gradient)


def test_without_gradients_the_lstm_is_torchs() -> None:
    module = WordLSTM(6, 1)
    vectors = torch.randn(5, 6)
    with torch.no_grad():
        out = module(vectors, torch.tensor([5]))
        torch.testing.assert_close(out, module.lstm(vectors[None])[0][0])


def test_under_autocast_the_lstm_that_trains_is_torchs() -> None:
    module, vectors, counts = WordLSTM(6, 1), torch.randn(5, 6), torch.tensor([3, 2])
    with torch.autocast("cpu", torch.bfloat16):
        out = module(vectors, counts)
    assert type(out.grad_fn).__name__ == "IndexCopyBackward0"
    order, sizes = time_major(counts)
    with torch.autocast("cpu", torch.bfloat16):
        theirs = module.lstm(PackedSequence(vectors[order], sizes))[0].data
    assert torch.equal(out[order], theirs)


@pytest.mark.parametrize("layers", [1, 2])
def test_the_lstm_s_dropout_is_between_its_layers(layers: int) -> None:
    module, vectors, counts = WordLSTM(6, layers), torch.randn(5, 6), torch.tensor([3, 2])
    module.lstm.dropout = 0.5
    drawn = [module(vectors, counts) for _ in range(2)]
    assert torch.equal(*drawn) == (layers == 1)
    module.eval()
    assert torch.equal(*(module(vectors, counts) for _ in range(2)))


def test_weights_are_laid_into_one_piece_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lstm, calls = WordLSTM(6, 2).lstm, []
    before = [weight.clone() for weight in lstm.parameters()]

    def flatten(weights, per_layer, *shape):
        calls.append((per_layer, *shape))
        flat = torch.cat([weight.reshape(-1) for weight in weights])
        for weight, part in zip(weights, flat.split([weight.numel() for weight in weights]), strict=True):
            weight.set_(part.view(weight.shape))

    monkeypatch.setattr(torch, "_use_cudnn_rnn_flatten_weight", lambda: True)
    monkeypatch.setattr(torch, "_cudnn_rnn_flatten_weight", flatten)
    # By the module's full name: of `torch.backends.cudnn` a torch for CPUs has a setting in this one's place.
    cudnn_rnn = importlib.import_module("torch.backends.cudnn.rnn")
    monkeypatch.setattr(cudnn_rnn, "get_cudnn_mode", {"LSTM": 2}.__getitem__)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    with torch.inference_mode():
        keep_in_one_piece(lstm)
        keep_in_one_piece(lstm)
    assert calls == [(4, 6, 2, 3, 0, 2, True, True)]
    assert all(torch.equal(weight, old) for weight, old in zip(lstm.parameters(), before, strict=True))
    lstm(torch.ones(1, 2, 6))[0].sum().backward()  # outside of inference mode they can still be trained
    assert all(weight.grad is not None for weight in lstm.parameters())
