"""T5's encoder over packed texts beside transformers' own run over padded ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate

import pytest
import torch
from torch import nn

from gliner_fast.encoder import TransformersEncoder
from gliner_fast.encoders import packed_t5
from gliner_fast.encoders.attention_executor import VARIABLE
from gliner_fast.kernels import _triton, disentangled_attention
from gliner_fast.kernels._triton import INTERPRETED
from tests.encoders.test_packed_bert import texts_of
from tests.encoders.test_packed_modernbert import run_both

# Heads that together are narrower than the layer; distances beyond 20 subwords have one bucket.
SETTINGS = {
    "model_type": "mt5", "vocab_size": 101, "d_model": 32, "num_layers": 3, "num_heads": 3, "d_kv": 8, "d_ff": 40,
    "relative_attention_num_buckets": 12, "relative_attention_max_distance": 20, "feed_forward_proj": "gated-gelu",
}  # fmt: skip
LENGTHS = [[1], [3, 1], [6, 5, 5, 4], [9, 9, 8], [230, 97, 1, 1]]
CHANGES = {
    "mT5's": {},
    "T5's": {"model_type": "t5", "feed_forward_proj": "relu"},
    "T5 1.1's": {"model_type": "t5", "feed_forward_proj": "gated-gelu"},
    "another gate": {"feed_forward_proj": "gated-silu"},
    "dropout": {"dropout_rate": 0.5},
}


def make_encoder(attention: str | None = None, **changes: object) -> TransformersEncoder:
    torch.manual_seed(0)
    encoder = TransformersEncoder({**SETTINGS, **changes}, attention).eval()
    with torch.no_grad():
        for name, weight in encoder.named_parameters():
            std = 2.0 if "bias" in name else 1.0 if weight.dim() == 1 or "shared" in name else weight.shape[-1] ** -0.5
            weight.normal_(0.0, std)
    return encoder


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("executor", ["grouped", "torch"])
def test_hidden_states_are_those_of_padded_texts(
    executor: str, changes: str, lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, executor)
    padded, packed, some = run_both(make_encoder(**CHANGES[changes]).double(), lengths)
    assert padded.abs().mean() > 0.1
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-5)  # its norms round to float32
    torch.testing.assert_close(some, packed[[-1, 0, 0]], rtol=0, atol=1e-9)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("changes", ["mT5's", "T5's"])
def test_so_are_they_by_the_native_kernel(changes: str, lengths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "rust")
    padded, packed, some = run_both(make_encoder(**CHANGES[changes]), lengths)
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-4)
    torch.testing.assert_close(some, packed[[-1, 0, 0]], rtol=0, atol=1e-5)


@pytest.mark.skipif(not INTERPRETED, reason="needs Triton, and a machine without a GPU")
def test_the_kernel_of_disentangled_attention_adds_what_distances_have(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, lengths = make_encoder(d_kv=16), [100, 33, 1, 70, 2]
    monkeypatch.setenv(VARIABLE, "triton")
    padded, packed, _ = run_both(encoder, lengths)
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-4)


@pytest.mark.skipif(not INTERPRETED, reason="needs Triton, and a machine without a GPU")
def test_what_distances_have_is_widened_once_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, given = make_encoder(d_kv=16).bfloat16(), []
    kernel = disentangled_attention.disentangled_attention
    monkeypatch.setattr(
        disentangled_attention,
        "disentangled_attention",
        lambda qkv, positions, **options: given.append(positions.biases) or kernel(qkv, positions, **options),
    )
    monkeypatch.setenv(VARIABLE, "triton")
    with torch.inference_mode():
        encoder(torch.arange(2, 9), torch.tensor([4, 3]), torch.tensor([0, 4, 7]))
    assert len(given) == 3  # layers
    assert {id(biases) for biases in given} == {id(given[0])}
    assert given[0].dtype is torch.float32


def test_distances_count_in_both_directions() -> None:
    encoder = make_encoder()
    ids, offsets = torch.arange(2, 9), torch.tensor([0, 7])
    with torch.inference_mode():
        found = encoder(ids, torch.tensor([7]), offsets)
        turned = encoder(ids.flip(0), torch.tensor([7]), offsets).flip(0)
    assert (found - turned).abs().amax(1).min() > 1e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_are_as_near_as_those_of_padded_texts(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, lengths = make_encoder(), [120, 33, 2]
    exact, _, _ = run_both(encoder.double(), lengths)
    for executor in ("rust", "grouped", "torch"):
        monkeypatch.setenv(VARIABLE, executor)
        padded, packed, _ = run_both(encoder.to(dtype), lengths)
        allowed = 1.5 * float((padded - exact).abs().mean())
        assert float((packed - exact).abs().mean()) <= allowed, executor


def test_sums_that_fp16_does_not_hold_are_kept_as_transformers_keeps_them() -> None:
    encoder = make_encoder().half()
    with torch.no_grad():
        for block in encoder.model.encoder.block:
            block.layer[1].DenseReluDense.wo.weight.mul_(3_000)
    padded, packed, _ = run_both(encoder, [7, 5])
    assert padded.isfinite().all()
    # Of two sums nearly as large as fp16 goes, either may pass it by rounding alone.
    torch.testing.assert_close(packed.float(), padded.float(), rtol=0, atol=0.05 * float(padded.abs().max()))
    sums = torch.tensor([math.inf, 65_504, -7], dtype=torch.float16)
    assert packed_t5._keep_finite(sums).tolist() == [64_512, 64_512, -7]
    assert packed_t5._keep_finite(sums[1:]).tolist() == [65_504, -7]


@pytest.mark.parametrize("executor", ["grouped", "torch", "rust", "triton"])
def test_where_a_gradient_is_wanted_packed_texts_have_one(executor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_triton, "INTERPRETED", True)
    monkeypatch.setattr(_triton, "HAS_TRITON", True)
    encoder = make_encoder()
    ids, is_subword = texts_of([5, 3])

    def gradient(*given: torch.Tensor) -> list[torch.Tensor]:
        encoder.zero_grad()
        hidden = encoder(*given)
        (hidden if hidden.dim() == 2 else hidden[is_subword]).square().sum().backward()
        own = encoder.model.encoder.block[0].layer[0].SelfAttention
        return [weight.grad.clone() for weight in (own.q.weight, own.relative_attention_bias.weight)]

    counts = torch.tensor([5, 3])
    expected = gradient(ids, counts)
    monkeypatch.setenv(VARIABLE, executor)
    for found, own in zip(gradient(ids[is_subword], counts, torch.tensor([0, 5, 8])), expected, strict=True):
        torch.testing.assert_close(found, own, rtol=1e-4, atol=1e-4 * float(own.abs().max()))


def test_under_autocast_torch_attends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "rust")
    encoder, given = make_encoder(), (torch.arange(2, 9), torch.tensor([4, 3]), torch.tensor([0, 4, 7]))
    with torch.inference_mode():
        exact = encoder(*given)
        monkeypatch.setattr(packed_t5, "attend", None)  # whom nobody calls
        with torch.autocast("cpu", torch.bfloat16):
            rough = encoder(*given)
            padded = encoder(torch.tensor([[2, 3, 4, 5], [6, 7, 8, 1]]), given[1]).flatten(0, 1)[:7]
    assert rough.dtype is padded.dtype is torch.float32  # what layers add up, 16 bits do not hold
    assert 0 < (rough - exact).abs().mean() < 1.2 * (padded - exact).abs().mean()


def test_no_subwords_have_no_hidden_states() -> None:
    with torch.inference_mode():
        found = make_encoder()(torch.zeros(0, dtype=torch.int64), torch.zeros(0).long(), torch.tensor([0]))
    assert found.shape == (0, 32)


def test_embeddings_have_one_weight() -> None:
    encoder = make_encoder()
    names = [name for name, _ in encoder.named_parameters()]
    assert names[0] == "model.shared.weight"
    assert not any("embed_tokens" in name for name in names)
    new = nn.Parameter(torch.zeros_like(encoder.model.shared.weight))
    encoder.load_state_dict({"model.shared.weight": new}, strict=False, assign=True)
    assert encoder.model.encoder.embed_tokens.weight is encoder.model.shared.weight
    assert not encoder.model.encoder.embed_tokens.weight.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_last_layer_may_have_a_precision_of_its_own(dtype: torch.dtype) -> None:
    encoder = make_encoder()
    for block in encoder.model.encoder.block:
        block.layer[1].DenseReluDense.wo.to(dtype)
    padded, packed, _ = run_both(encoder, [6, 4])
    torch.testing.assert_close(packed, padded, rtol=0, atol=3e-2 * float(padded.abs().max()))


class Doubled(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        return 2 * super().forward(input)


def _each(change: Callable[[nn.Module], object]) -> Callable[[TransformersEncoder], None]:
    def apply(encoder: TransformersEncoder) -> None:
        for block in encoder.model.encoder.block:
            change(block)

    return apply


CHANGED: dict[str, Callable[[TransformersEncoder], None]] = {
    "a layer": _each(lambda block: setattr(block.layer[1].DenseReluDense.wi_1, "__class__", Doubled)),
    "the last product": _each(lambda block: setattr(block.layer[0].SelfAttention.o, "__class__", Doubled)),
    "the gate": _each(lambda block: setattr(block.layer[1].DenseReluDense, "act", nn.SiLU().eval())),
    "a norm": _each(lambda block: setattr(block.layer[1], "layer_norm", nn.LayerNorm(32).eval())),
    "a hook": _each(lambda block: block.layer[1].DenseReluDense.register_forward_hook(lambda *given: 2 * given[2])),
    "a hook of a block": _each(
        lambda block: block.register_forward_hook(lambda *given: (2 * given[2][0], *given[2][1:]))
    ),
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_what_stands_in_the_place_of_a_module_is_what_computes(change: Callable[[TransformersEncoder], None]) -> None:
    encoder = make_encoder()
    _, plain, _ = run_both(encoder, [6, 4])
    change(encoder)
    counts, (ids, is_subword) = torch.tensor([6, 4]), texts_of([6, 4])
    with torch.inference_mode():
        padded = encoder(ids, counts)[is_subword]
        packed = encoder(ids[is_subword], counts, torch.tensor([0, 6, 10])) if encoder.reads_packed else padded
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-4)
    assert (packed - plain).abs().max() > 0.1


def test_changed_blocks_are_left_to_transformers() -> None:
    for name in ("a hook", "a hook of a block"):
        encoder = make_encoder()
        assert encoder.reads_packed
        CHANGED[name](encoder)
        assert not encoder.reads_packed


@pytest.mark.parametrize("attention", ["eager", None])
def test_whichever_attention_transformers_has_texts_are_read_packed(attention: str | None) -> None:
    encoder = make_encoder(attention)
    assert encoder.reads_packed
    padded, packed, _ = run_both(encoder, [30, 7])
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-4)


def test_lengths_are_what_a_batch_of_any_order_has() -> None:
    encoder, lengths = make_encoder(), [3, 60, 3, 1, 60]
    padded, packed, _ = run_both(encoder, lengths)
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-4)
    assert list(accumulate(lengths))[-1] == len(packed)
