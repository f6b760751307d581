"""Encoders of transformers that somebody has changed are called as a whole."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gliner_fast.encoder import TransformersEncoder
from gliner_fast.encoders.as_built import is_exact_gelu
from tests.encoders import test_packed_bert, test_packed_modernbert

LAYERS = {"bert": "encoder.layer", "modernbert": "layers"}
# Modules that are passed over where texts are packed, in a layer, or shown rows that are not padded.
PARTS = {
    "bert": [
        "", "attention", "attention.self", "attention.output", "intermediate", "output",
        "attention.output.dropout", "output.dropout", "intermediate.dense", "intermediate.intermediate_act_fn",
        "output.LayerNorm",
    ],
    "modernbert": ["", "attn", "attn.Wqkv", "attn.out_drop", "mlp", "mlp.act", "mlp.drop", "mlp_norm"],
}  # fmt: skip


class Doubled(nn.Module):
    """An adapter around a module: what it gives, twice."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *given: object, **options: object) -> object:
        found = self.inner(*given, **options)
        return (2 * found[0], *found[1:]) if isinstance(found, tuple) else 2 * found


def make_encoder(kind: str) -> TransformersEncoder:
    return test_packed_bert.make_encoder("bert") if kind == "bert" else test_packed_modernbert.make_encoder()


def change(encoder: TransformersEncoder, kind: str, part: str, how: Callable[[nn.Module, str], None]) -> None:
    """Changes a part of the second layer, told by its parent and name."""
    path = f"model.{LAYERS[kind]}.1" + (f".{part}" if part else "")
    parent, _, name = path.rpartition(".")
    how(encoder.get_submodule(parent), name)
    encoder.eval()


def hidden(encoder: TransformersEncoder) -> Tensor:
    """Of two texts, as the network would have them computed."""
    ids, lengths = torch.tensor([[2, 3, 4, 5], [6, 7, 8, 1]]), torch.tensor([4, 3])
    with torch.inference_mode():
        if encoder.reads_packed:
            return encoder(ids.flatten()[:7], lengths, torch.tensor([0, 4, 7]))
        return encoder(ids, lengths).flatten(0, 1)[:7]


def hook(parent: nn.Module, name: str) -> None:
    def double(_module: nn.Module, _given: object, out: object) -> object:
        return (2 * out[0], *out[1:]) if isinstance(out, tuple) else 2 * out  # type: ignore[operator]

    getattr(parent, name).register_forward_hook(double)


def replace_forward(parent: nn.Module, name: str) -> None:
    module = getattr(parent, name)
    module.forward = Doubled(copy.copy(module)).forward


CHANGES: dict[str, Callable[[nn.Module, str], None]] = {
    "a hook": hook,
    "a forward of its own": replace_forward,
    "an adapter": lambda parent, name: parent.register_module(name, Doubled(getattr(parent, name))),
}


# transformers itself asks a layer of ModernBERT, and so nothing that stands around it, for what it sees.
CASES = [
    (kind, part, how)
    for kind, parts in PARTS.items()
    for part in parts
    for how in CHANGES
    if (kind, part, how) != ("modernbert", "", "an adapter")
]


@pytest.mark.parametrize(("kind", "part", "how"), CASES)
def test_what_is_put_around_a_module_takes_part(kind: str, part: str, how: str) -> None:
    encoder = make_encoder(kind)
    assert encoder.reads_packed
    plain = hidden(encoder)
    change(encoder, kind, part, CHANGES[how])
    assert not encoder.reads_packed
    assert (hidden(encoder) - plain).abs().max() > 0.01


def hook_before(layer: nn.Module) -> None:
    layer.register_forward_pre_hook(lambda *_: None)


def make_another_kind(layer: nn.Module) -> None:
    layer.__class__ = type("Another", (type(layer),), {})


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("how", [hook_before, nn.Module.compile, make_another_kind])
def test_what_becomes_of_a_layer_once_it_was_asked_for_is_seen(how: Callable[[nn.Module], None], kind: str) -> None:
    encoder = make_encoder(kind)
    assert encoder.reads_packed
    how(encoder.get_submodule(f"model.{LAYERS[kind]}.1"))
    assert not encoder.reads_packed


@pytest.mark.parametrize("kind", LAYERS)
def test_a_hook_sees_padded_texts(kind: str) -> None:
    encoder, seen = make_encoder(kind), []
    plain = hidden(encoder)
    handle = encoder.model.embeddings.register_forward_hook(lambda _, __, out: seen.append(out.shape))
    torch.testing.assert_close(hidden(encoder), plain, rtol=0, atol=1e-4)
    assert seen == [(2, 4, 32)]
    handle.remove()
    assert encoder.reads_packed


@pytest.mark.parametrize("kind", LAYERS)
def test_an_adapter_that_is_taken_out_again_is_gone(kind: str) -> None:
    encoder = make_encoder(kind)
    parent = encoder.model.get_submodule(LAYERS[kind])[1]  # type: ignore[index]
    name = "output" if kind == "bert" else "mlp"
    own = getattr(parent, name)
    setattr(parent, name, Doubled(own))
    assert not encoder.reads_packed
    setattr(parent, name, own)
    assert encoder.reads_packed


@pytest.mark.parametrize("kind", LAYERS)
def test_hooks_of_the_model_are_called(kind: str) -> None:
    encoder, seen = make_encoder(kind), []
    path = ["model", "model.encoder"] if kind == "bert" else ["model"]
    handles = [encoder.get_submodule(own).register_forward_hook(lambda *_: seen.append(1)) for own in path]
    hidden(encoder)
    assert seen == [1] * len(path)
    for handle in handles:
        handle.remove()
    assert encoder.reads_packed
    for register in (
        nn.modules.module.register_module_forward_hook,
        nn.modules.module.register_module_forward_pre_hook,
    ):
        of_all = register(lambda *_: None)
        assert not encoder.reads_packed
        of_all.remove()
    assert encoder.reads_packed


@pytest.mark.parametrize("kind", LAYERS)
def test_compiled_parts_are_called(kind: str) -> None:
    encoder = make_encoder(kind)
    encoder.model.get_submodule(LAYERS[kind])[0].compile(backend="eager")  # type: ignore[index]
    assert not encoder.reads_packed


def test_another_activation_of_bert_is_the_one_that_computes() -> None:
    encoder = make_encoder("bert")
    plain = hidden(encoder)
    encoder.model.encoder.layer[1].intermediate.intermediate_act_fn = nn.SiLU()
    assert not encoder.reads_packed
    assert (hidden(encoder) - plain).abs().max() > 0.01


@pytest.mark.parametrize("kind", LAYERS)
def test_copies_read_what_the_first_one_reads(kind: str) -> None:
    encoder = make_encoder(kind)
    for copied in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert copied.reads_packed
        assert torch.equal(hidden(copied), hidden(encoder))


def test_who_is_the_exact_gelu() -> None:
    from transformers.activations import ACT2FN

    assert is_exact_gelu(ACT2FN["gelu"])
    assert is_exact_gelu(nn.GELU())
    for other in (nn.GELU("tanh"), ACT2FN["gelu_new"], ACT2FN["gelu_python"], nn.SiLU(), torch.nn.functional.gelu):
        assert not is_exact_gelu(other)
