"""Adapters and hooks in DeBERTa's layers: what they add is added where transformers would add it."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_fast.cpu.linear import Linear
from gliner_fast.cpu.whole_numbers import quantize
from gliner_fast.encoders.attention_executor import VARIABLE
from gliner_fast.encoders.deberta import DebertaEncoder
from tests.encoders.test_deberta import hidden_of_both, needs_interpreter, packed_hidden, pair
from tests.installed import FLASH

LENGTHS = [4, 1, 17, 3]
PARTS = ["qkv", "attention_output", "intermediate", "output"]
EXECUTORS = ["padded", "grouped", "torch", "rust", FLASH, pytest.param("triton", marks=needs_interpreter)]


class Lora(nn.Module):
    """A layer and what an adapter of rank 4 adds to it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        generator = torch.Generator().manual_seed(1)
        self.down = nn.Parameter(torch.randn(4, base.in_features, generator=generator))
        self.up = nn.Parameter(0.1 * torch.randn(base.out_features, 4, generator=generator))

    def forward(self, vectors: Tensor) -> Tensor:
        out: Tensor = self.base(vectors) + F.linear(F.linear(vectors, self.down), self.up)
        return out


class PeftLike(Lora):
    """An adapter that shows the weights of what it is around, as peft's do."""

    @property
    def weight(self) -> Tensor:
        return self.base.weight

    @property
    def bias(self) -> Tensor:
        return self.base.bias


def hidden(encoder: DebertaEncoder, executor: str) -> Tensor:
    with torch.inference_mode():
        if executor == "padded":
            return hidden_of_both(lambda *_: HiddenOfNone(), encoder, LENGTHS)[1]  # type: ignore[arg-type]
        return packed_hidden(encoder, LENGTHS)


class HiddenOfNone:
    """In place of transformers' answer, which is not asked for."""

    last_hidden_state = torch.zeros(len(LENGTHS), max(LENGTHS), 1)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kind", [Lora, PeftLike])
def test_an_adapter_is_as_good_as_merged(
    kind: type[Lora], part: str, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if executor == "triton" and kind is Lora and part != "qkv":
        pytest.skip("slow in the interpreter, and around what the attention does not see")
    monkeypatch.setenv(VARIABLE, executor)
    (_, adapted), (_, merged) = (pair(hidden_size=64, num_attention_heads=2) for _ in range(2))
    before = hidden(adapted, executor)
    layer = adapted.layers[0]
    adapter = kind(getattr(layer, part)).eval()
    setattr(layer, part, adapter)
    with torch.no_grad():
        getattr(merged.layers[0], part).weight.add_(adapter.up @ adapter.down)
    found, expected = hidden(adapted, executor), hidden(merged, executor)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    assert (found - before).abs().max() > 0.01
    # And what is made of its weights is not kept.
    with torch.no_grad():
        adapter.up.zero_()
    torch.testing.assert_close(hidden(adapted, executor), before, rtol=0, atol=2e-5)


class Doubled(nn.Module):
    """A norm and what an adapter makes of it."""

    def __init__(self, base: nn.LayerNorm) -> None:
        super().__init__()
        self.base = base

    def forward(self, vectors: Tensor) -> Tensor:
        return 2 * cast(Tensor, self.base(vectors))


def with_adapter(encoder: DebertaEncoder) -> None:
    encoder.relative_norm = Doubled(encoder.relative_norm)  # type: ignore[assignment]


def with_hook(encoder: DebertaEncoder) -> None:
    encoder.relative_norm.register_forward_hook(lambda _, __, out: 2 * out)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("add", [with_adapter, with_hook])
def test_what_is_added_to_the_norm_of_positions_is_as_good_as_merged(
    add: Callable[[DebertaEncoder], None], executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, executor)
    (_, adapted), (_, merged) = (pair(hidden_size=64, num_attention_heads=2) for _ in range(2))
    before = hidden(adapted, executor)  # what is made of the weights is kept
    add(adapted)
    with torch.no_grad():
        for weight in merged.relative_norm.parameters():
            weight.mul_(2)
    found, expected = hidden(adapted, executor), hidden(merged, executor)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    assert (found - before).abs().max() > 0.01


@pytest.mark.parametrize("training", [False, True])
def test_so_it_is_where_a_gradient_is_asked_for(training: bool) -> None:
    (_, adapted), (_, merged) = pair(), pair()
    for part in PARTS:
        adapter = Lora(getattr(adapted.layers[1], part))
        setattr(adapted.layers[1], part, adapter)
        with torch.no_grad():
            getattr(merged.layers[1], part).weight.add_(adapter.up @ adapter.down)
    ids, lengths = torch.randint(3, 101, (2, 9)), torch.tensor([9, 6])
    found, expected = (own.train(training)(ids, lengths) for own in (adapted, merged))
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=2e-5)
    torch.testing.assert_close(found[1, :6], expected[1, :6], rtol=0, atol=2e-5)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_hook_on_the_inner_layer_sees_what_the_gelu_is_of(executor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, executor)
    _, encoder = pair(hidden_size=64, num_attention_heads=2)
    plain = hidden(encoder, executor)
    seen: list[float] = []
    handle = encoder.layers[0].intermediate.register_forward_hook(lambda _, __, out: seen.append(float(out.min())))
    torch.testing.assert_close(hidden(encoder, executor), plain, rtol=0, atol=2e-5)
    assert len(seen) == 1
    assert seen[0] < -0.5  # no GELU is below -0.17
    handle.remove()
    encoder.layers[0].intermediate.register_forward_hook(lambda _, __, out: out - 1000)
    torch.testing.assert_close(hidden(encoder, executor), hidden(without_inner(encoder), executor), rtol=0, atol=2e-5)


def without_inner(encoder: DebertaEncoder) -> DebertaEncoder:
    """The same where nothing comes through the inner layer of the first one."""
    with torch.no_grad():
        encoder.layers[0].output.weight.zero_()
    return encoder


def with_hook(layer: nn.Module) -> None:
    layer.intermediate.register_forward_hook(lambda *_: None)


def with_adapter(layer: nn.Module) -> None:
    layer.intermediate = Lora(layer.intermediate).eval()


@pytest.mark.parametrize("change", [with_hook, with_adapter])
def test_where_nothing_is_added_the_product_takes_the_gelu_along(
    change: Callable[[nn.Module], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "torch")
    monkeypatch.setattr("gliner_fast.encoders.deberta_layer.finish_layer", lambda *_, **__: None)
    _, encoder = pair()
    asked: list[str] = []
    product = Linear.product
    monkeypatch.setattr(
        Linear,
        "product",
        lambda own, vectors, activation: asked.append(activation) or product(own, vectors, activation),
    )
    hidden(encoder, "torch")
    assert asked == 2 * ["none", "none", "gelu", "none"]
    asked.clear()
    change(encoder.layers[1])
    hidden(encoder, "torch")
    assert asked == ["none", "none", "gelu", "none", "none", "none", "none", "none"]


def test_whole_numbers_take_an_adapter_too() -> None:
    """And where the native call was taken, it is taken no more."""
    _, encoder = pair(hidden_size=64, num_attention_heads=2)
    quantize(encoder, "int16")
    plain = hidden(encoder, "torch")
    adapter = encoder.layers[0].intermediate = Lora(encoder.layers[0].intermediate).eval()
    assert (hidden(encoder, "torch") - plain).abs().max() > 0.01
    with torch.no_grad():
        adapter.up.zero_()
    assert encoder.layers[0].intermediate.base.whole is not None
    torch.testing.assert_close(hidden(encoder, "torch"), plain, rtol=0, atol=1e-3)
