"""DeBERTa's layers by a card's kernels, without their modules; the kernels are interpreted."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import pytest
import torch
from torch import Tensor, nn

from gliner_fast.cpu.linear import VARIABLE as LINEAR
from gliner_fast.encoders import deberta, gpu_layers
from gliner_fast.encoders.attention_executor import VARIABLE as ATTENTION
from gliner_fast.encoders.deberta import DebertaEncoder
from gliner_fast.encoders.residual_norm import VARIABLE as NORM
from gliner_fast.kernels import add_norm
from gliner_fast.kernels._triton import INTERPRETED
from tests.encoders.test_deberta import pair

needs_interpreter = pytest.mark.skipif(not INTERPRETED, reason="needs Triton, and a machine without a GPU")
LENGTHS = [5, 1, 18, 3]


@pytest.fixture
def went(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each batch went by the kernels alone, on what stands for a card."""
    monkeypatch.setenv(ATTENTION, "triton")
    monkeypatch.setattr(gpu_layers, "_is_on_gpu", lambda _: True)
    seen: list[bool] = []

    def run(*given: object, **options: object) -> Tensor | None:
        found = gpu_layers.run_on_gpu(*given, **options)
        seen.append(found is not None)
        return found

    monkeypatch.setattr(deberta, "run_on_gpu", run)
    return seen


def encoder_of(dtype: torch.dtype = torch.float32, **changes: object) -> DebertaEncoder:
    _, encoder = pair(hidden_size=32, num_attention_heads=2, **changes)
    return encoder.to(dtype)


def run(encoder: DebertaEncoder, wanted: Tensor | None = None) -> Tensor:
    ids = torch.randint(3, 101, (sum(LENGTHS),), generator=torch.Generator().manual_seed(0))
    offsets = torch.tensor([0, *accumulate(LENGTHS)])
    with torch.inference_mode():
        hidden: Tensor = encoder(ids, torch.tensor(LENGTHS), offsets, wanted=wanted)
    return hidden


def by_modules(encoder: DebertaEncoder, wanted: Tensor | None, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    with monkeypatch.context() as patched:
        patched.setattr(gpu_layers, "_is_on_gpu", lambda _: False)
        return run(encoder, wanted)


@needs_interpreter
@pytest.mark.parametrize("wanted", [None, torch.tensor([0, 26, 10, 10])], ids=["all", "some"])
@pytest.mark.parametrize("kinds", [["p2c", "c2p"], ["c2p"], ["p2c"]], ids="-".join)
def test_hidden_states_are_those_of_the_modules(kinds, wanted, went, monkeypatch: pytest.MonkeyPatch):
    encoder = encoder_of(pos_att_type=kinds)
    found = run(encoder, wanted)
    assert went == [True]
    torch.testing.assert_close(found, by_modules(encoder, wanted, monkeypatch), rtol=0, atol=2e-5)
    assert went == [True, False]


@needs_interpreter
def test_in_16_bits_the_product_takes_gelu_along(went, monkeypatch: pytest.MonkeyPatch):
    encoder, wanted = encoder_of(torch.bfloat16), torch.arange(20)
    taken = []
    with_gelu = gpu_layers.product_with_gelu
    monkeypatch.setattr(gpu_layers, "product_with_gelu", lambda *given: taken.append(given) or with_gelu(*given))
    found = run(encoder, wanted)
    assert (went, len(taken)) == ([True], len(encoder.layers))
    exact = by_modules(encoder_of(), wanted, monkeypatch)
    of_modules = by_modules(encoder, wanted, monkeypatch)
    assert (found - exact).abs().mean() < 1.5 * (of_modules - exact).abs().mean()


class Doubled(nn.LayerNorm):
    """A norm of somebody else's."""

    def forward(self, vectors: Tensor) -> Tensor:
        normed: Tensor = super().forward(vectors)
        return 2 * normed


def hook(encoder: DebertaEncoder) -> None:
    encoder.layers[1].output.register_forward_hook(lambda *given: 2 * given[2])


def hook_before(encoder: DebertaEncoder) -> None:
    encoder.layers[0].qkv.register_forward_pre_hook(lambda _, given: (2 * given[0],))


def replace(encoder: DebertaEncoder) -> None:
    norm = Doubled(32).eval()
    norm.load_state_dict(encoder.layers[0].output_norm.state_dict())
    encoder.layers[0].output_norm = norm


def replace_forward(encoder: DebertaEncoder) -> None:
    layer = encoder.layers[0].attention_output
    layer.forward = lambda vectors: 2 * type(layer).forward(layer, vectors)


def adapt(encoder: DebertaEncoder) -> None:
    encoder.layers[1].intermediate = nn.Sequential(encoder.layers[1].intermediate, nn.Identity())


@needs_interpreter
@pytest.mark.parametrize("change", [hook, hook_before, replace, replace_forward, adapt])
def test_what_others_did_to_a_layer_is_heeded(
    change: Callable[[DebertaEncoder], None], went, monkeypatch: pytest.MonkeyPatch
):
    encoder = encoder_of()
    before = run(encoder)
    change(encoder)
    found = run(encoder)
    assert went == [True, False]
    torch.testing.assert_close(found, by_modules(encoder, None, monkeypatch))
    if change is not adapt:
        assert (found - before).abs().max() > 0.01


@needs_interpreter
def test_hooks_of_all_modules_are_called(went):
    encoder = encoder_of()
    called: list[type] = []
    handle = torch.nn.modules.module.register_module_forward_hook(lambda module, *_: called.append(type(module)))
    try:
        run(encoder)
    finally:
        handle.remove()
    assert went == [False]
    assert nn.LayerNorm in called


@needs_interpreter
@pytest.mark.parametrize(("variable", "value"), [(LINEAR, "torch"), (NORM, "torch"), (NORM, "triton")])
def test_who_the_environment_names_does_the_work(variable, value, went, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(variable, value)
    run(encoder_of())
    assert went == [False]


@needs_interpreter
def test_without_a_bias_under_autocast_and_where_rows_are_too_wide_modules_are_called(
    went, monkeypatch: pytest.MonkeyPatch
):
    encoder = encoder_of()
    with monkeypatch.context() as patched:
        patched.setattr(add_norm, "MOST_COLUMNS", 31)
        run(encoder)
    with torch.autocast("cpu", torch.bfloat16):
        run(encoder)
    encoder.layers[0].output_norm.bias = None
    run(encoder)
    assert went == [False] * 3


@needs_interpreter
def test_changed_weights_are_read(went, monkeypatch: pytest.MonkeyPatch):
    encoder = encoder_of()
    before = run(encoder)
    with torch.no_grad():
        encoder.layers[0].output.weight.mul_(3)
    encoder.layers[1].qkv.bias = nn.Parameter(torch.randn(96))
    found = run(encoder)
    assert went == [True, True]
    assert (found - before).abs().max() > 0.01
    torch.testing.assert_close(found, by_modules(encoder, None, monkeypatch), rtol=0, atol=2e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_card_gives_what_the_modules_give(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    encoder = encoder_of(dtype).to("cuda")
    ids = torch.randint(3, 101, (sum(LENGTHS),), generator=torch.Generator().manual_seed(0)).cuda()
    offsets, wanted = torch.tensor([0, *accumulate(LENGTHS)]).cuda(), torch.arange(20).cuda()

    def on_card() -> Tensor:
        with torch.inference_mode():
            hidden: Tensor = encoder(ids, torch.tensor(LENGTHS), offsets, wanted=wanted)
        return hidden.float().cpu()

    found, again = on_card(), on_card()
    assert torch.equal(found, again)
    monkeypatch.setenv(NORM, "torch")
    bound = 2e-5 if dtype is torch.float32 else 0.15
    torch.testing.assert_close(found, on_card(), rtol=0, atol=bound)
