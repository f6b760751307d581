"""bf16 on a CPU: products by AMX with weights laid out for it; attention and LSTM in float32, rounded to bf16 again."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gliner_fast import GLiNER
from gliner_fast.cpu import linear
from gliner_fast.cpu.linear import VARIABLE, Linear, reordering_pays
from gliner_fast.cpu.native_lstm import VARIABLE as LSTM
from gliner_fast.cpu.native_lstm import native_lstm, takes_native_lstm
from gliner_fast.cpu.packed_weights import Reordered
from gliner_fast.encoders.attention_executor import VARIABLE as ATTENTION
from gliner_fast.encoders.attention_executor import PackedTexts, attend
from gliner_fast.kernels.attention_reference import Positions, disentangled_attention_reference
from gliner_fast.scoring.span_executor import VARIABLE as SPANS
from tests.cpu.test_whole_numbers import change_in_place, load_others
from tests.samples import CROSSNER, LABELS

HAS_BF16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
has_bf16 = pytest.mark.skipif(not HAS_BF16, reason="oneDNN multiplies no bf16 on this CPU")
EPSILON = torch.finfo(torch.bfloat16).eps


@pytest.fixture
def amx(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that is taken for one with AMX, and layers of any size for large ones."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(linear, "has_amx", lambda: True)
    monkeypatch.setattr(linear, "_FEWEST_WEIGHTS", 1)


@pytest.fixture
def layer(amx: None) -> Linear:
    torch.manual_seed(0)
    return Linear(6, 4).bfloat16().eval()


def is_right(layer: Linear, rows: int = 5) -> bool:
    """Whether a layer gives what its weights of now give."""
    vectors = torch.randn(2, rows, 6).bfloat16()
    with torch.inference_mode():
        out = layer.product(vectors, "gelu")
        wanted = F.gelu(F.linear(vectors.float(), layer.weight.float(), layer.bias.float()))
    return out.dtype is torch.bfloat16 and bool(((out.float() - wanted).abs() < 4 * EPSILON).all())


# --- products ---------------------------------------------------------------------------------------------------------


@has_bf16
@pytest.mark.parametrize("activation", ["none", "gelu"])
@pytest.mark.parametrize("rows", [0, 1, 7, 45, 300, 1025])
@pytest.mark.parametrize(("outputs", "inputs"), [(768, 768), (129, 300), (3, 5)])
def test_products_of_any_number_of_rows(outputs: int, inputs: int, rows: int, activation: str, amx: None):
    torch.manual_seed(rows)
    layer = Linear(inputs, outputs).bfloat16().eval()
    vectors = torch.randn(rows, inputs).bfloat16()
    with torch.inference_mode():
        out = layer.product(vectors, activation)
    assert layer.reordered is not None
    exact = F.linear(vectors.double(), layer.weight.double(), layer.bias.double())
    exact = F.gelu(exact) if activation == "gelu" else exact
    assert out.shape == exact.shape
    torch.testing.assert_close(out.double(), exact, rtol=2 * EPSILON, atol=2 * EPSILON)


def step_in_eval_mode(layer: Linear) -> None:
    """A step of training, dropout and all that left out."""
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    layer(torch.ones(2, 6).bfloat16()).sum().backward()
    optimizer.step()


@has_bf16
@pytest.mark.parametrize("change", [change_in_place, load_others, step_in_eval_mode])
def test_other_weights_are_laid_out_anew(change: Callable[[nn.Module], None], layer: Linear):
    assert is_right(layer)
    before = layer.reordered
    assert before is not None
    assert is_right(layer)
    assert layer.reordered is before
    change(layer)
    assert is_right(layer)
    assert layer.reordered is not before


def write_behind_torch_s_back(layer: Linear) -> None:
    layer.weight.data.mul_(-1)


def come_to_lie_where_others_lay(layer: Linear) -> None:
    layer.weight = None
    layer.weight = nn.Parameter(torch.randn(4, 6).bfloat16())


def go_and_come_back_as_others(layer: Linear) -> None:
    layer.float()
    layer.weight.data.mul_(-1)
    layer.bfloat16()


@has_bf16
@pytest.mark.parametrize(
    "change", [write_behind_torch_s_back, come_to_lie_where_others_lay, go_and_come_back_as_others]
)
def test_weights_that_do_not_say_that_they_are_others_are_seen_to_be(change: Callable[[Linear], None], layer: Linear):
    for _ in range(5):
        assert is_right(layer)
        change(layer)
    assert is_right(layer)


@has_bf16
def test_weights_that_never_say_when_they_change_are_not_laid_out(amx: None):
    with torch.inference_mode():
        layer = Linear(6, 4).bfloat16().eval()
        assert is_right(layer)
        layer.weight.mul_(2)
        assert is_right(layer)
    assert layer.reordered is None


@has_bf16
def test_what_does_not_fit_is_refused_as_torch_does(layer: Linear):
    with torch.inference_mode(), pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        layer(torch.ones(2, 7).bfloat16())


@has_bf16
def test_where_it_is_not_wanted_any_more_it_goes(layer: Linear, monkeypatch: pytest.MonkeyPatch):
    assert is_right(layer)
    monkeypatch.setenv(VARIABLE, "torch")
    assert is_right(layer)
    assert layer.reordered is None


@has_bf16
def test_what_may_change_is_not_laid_out(layer: Linear):
    assert is_right(layer)
    layer(torch.ones(2, 6).bfloat16()).sum().backward()
    assert layer.weight.grad is not None
    assert layer.reordered is None
    assert is_right(layer)
    layer.train()
    assert layer.reordered is None


@has_bf16
def test_copies_and_what_is_pickled_have_none(layer: Linear):
    assert is_right(layer)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert layer.reordered is not None
        assert other.reordered is None
        assert is_right(other)


@has_bf16
def test_other_dtypes_go_without(layer: Linear):
    assert is_right(layer)
    layer.float()
    with torch.inference_mode():
        layer(torch.ones(2, 6))
    assert layer.reordered is None


def test_it_pays_with_amx_and_large_layers_alone(monkeypatch: pytest.MonkeyPatch):
    large, small = (nn.Parameter(torch.zeros(n, n, dtype=torch.bfloat16)) for n in (512, 64))
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(linear, "has_amx", lambda: True)
    assert reordering_pays(large)
    assert not reordering_pays(small)
    assert not reordering_pays(nn.Parameter(large.float()))
    assert not reordering_pays(nn.Parameter(large.half()))
    assert not reordering_pays(nn.Parameter(large.T[:, :300]))
    monkeypatch.setenv(VARIABLE, "torch")
    assert not reordering_pays(large)
    monkeypatch.setenv(VARIABLE, "packed")
    assert reordering_pays(large)
    monkeypatch.setattr(linear, "has_amx", lambda: False)
    assert not reordering_pays(large)


@has_bf16
def test_laid_out_weights_tell_when_they_are_others():
    weight = nn.Parameter(torch.randn(8, 8).bfloat16())
    laid_out = Reordered.lay_out(weight)
    assert laid_out.is_of(weight)
    with torch.no_grad():
        weight.mul_(2)
    assert not laid_out.is_of(weight)


# --- attention and LSTM -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_attention_in_rust_is_that_of_float32_rounded(dtype: torch.dtype):
    torch.manual_seed(0)
    lengths, rows = [3, 1, 40], torch.arange(99, dtype=torch.int32)
    qkv, (keys, queries) = torch.randn(44, 3, 2, 16).to(dtype), 0.3 * torch.randn(2, 2, 99, 16)
    texts = PackedTexts(lengths, torch.tensor([0, 3, 4, 44]))
    out = attend(qkv, Positions(keys, queries, rows), texts, scale=0.2, executor="rust")
    exact = Positions(keys.double(), queries.double(), rows)
    wanted = disentangled_attention_reference(qkv.double(), exact, lengths=lengths, scale=0.2)
    assert out.dtype is dtype
    assert (out.double() - wanted).abs().max() <= torch.finfo(dtype).eps * wanted.abs().max()
    in_float32 = attend(qkv.float(), Positions(keys, queries, rows), texts, scale=0.2, executor="rust")
    assert torch.equal(out, in_float32.to(dtype))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_lstm_keeps_its_state_in_float32(dtype: torch.dtype, layers: int):
    torch.manual_seed(0)
    lstm = nn.LSTM(32, 16, layers, batch_first=True, bidirectional=True).to(dtype).eval()
    exact, vectors, counts = copy.deepcopy(lstm).double(), torch.randn(69, 32).to(dtype), torch.tensor([60, 9])
    with torch.inference_mode():
        assert takes_native_lstm(lstm, vectors)
        assert not takes_native_lstm(lstm, vectors.float())
        out = native_lstm(lstm, vectors, counts)
        wanted = torch.cat([exact(own.double()[None])[0][0] for own in vectors.split([60, 9])])
    assert out.dtype is dtype
    assert (out.double() - wanted).abs().max() < 4 * torch.finfo(dtype).eps


# --- a model ----------------------------------------------------------------------------------------------------------


def test_in_rust_scores_are_nearer_to_those_of_float32(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
):
    exact, half = (GLiNER.from_pretrained(checkpoint("deberta"), dtype=dtype) for dtype in ("fp32", "bf16"))
    options = {"threshold": 0.0, "flat_ner": False, "multi_label": True}
    wanted = exact.inference(CROSSNER[:6], LABELS[:2], **options)
    error = {}
    for executor in ("torch", "rust"):
        monkeypatch.setenv(LSTM, executor)
        monkeypatch.setenv(SPANS, executor)
        monkeypatch.setenv(ATTENTION, "grouped" if executor == "torch" else "rust")
        found = half.inference(CROSSNER[:6], LABELS[:2], **options)
        scores = {key: e["score"] for key, e in keyed(found)}
        differences = [abs(scores[key] - e["score"]) for key, e in keyed(wanted) if key in scores]
        assert len(differences) > 100
        error[executor] = sum(differences) / len(differences)
    assert error["rust"] < 0.05
    assert error["rust"] < 1.1 * error["torch"]


def keyed(answers: list[list[dict[str, object]]]) -> list[tuple[tuple[object, ...], dict[str, object]]]:
    return [((text, e["start"], e["end"], e["label"]), e) for text, own in enumerate(answers) for e in own]
