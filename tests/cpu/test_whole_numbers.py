"""Layers and networks in whole numbers: how they come to them, and when they leave them."""

from __future__ import annotations

import copy
import pickle
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
import torch.multiprocessing  # registers how tensors are sent
import torch.nn.functional as F
from torch._subclasses import FakeTensor, FakeTensorMode

from gliner_fast.cpu import packed_weights, whole_numbers
from gliner_fast.cpu.linear import Linear
from gliner_fast.cpu.whole_numbers import precision_of, quantize, why_slow
from gliner_fast.scorer import SpanScorer
from tests.cpu.conftest import KINDS
from tests.encoders.test_packed_bert import make_encoder, texts_of


@pytest.fixture
def layer(kind):
    torch.manual_seed(0)
    layer = Linear(6, 4).eval()
    quantize(layer, kind)
    return layer


def is_exact(layer, dtype=torch.float32):
    vectors = torch.linspace(-1, 1, 18, dtype=dtype).view(3, 6)
    with torch.inference_mode():
        return torch.allclose(layer(vectors), F.linear(vectors, layer.weight, layer.bias), rtol=0, atol=2e-6)


def load_others(layer):
    layer.load_state_dict({name: value + 1 for name, value in layer.state_dict().items()})


def change_in_place(layer):
    with torch.no_grad():
        layer.weight.mul_(1.5)


def step_in_eval_mode(layer):
    layer(torch.ones(1, 6)).sum().backward()
    torch.optim.AdamW(layer.parameters(), fused=True).step()


@pytest.mark.parametrize(
    "change",
    [
        load_others,
        change_in_place,
        step_in_eval_mode,
        lambda layer: layer.weight.data.mul_(1.5),
        lambda layer: layer.train().eval(),
        lambda layer: layer.double(),
        lambda layer: layer.to(torch.float64).to(torch.float32),
    ],
    ids=["load", "in place", "optimizer", "behind torch's back", "train", "double", "there and back"],
)
def test_weights_that_are_others_stand_in_no_whole_numbers(layer, change):
    assert not is_exact(layer)
    assert precision_of(layer) is not None
    change(layer)
    assert is_exact(layer, layer.weight.dtype)
    assert precision_of(layer) is None


@pytest.mark.parametrize(
    "lay",
    [lambda wide: wide[:6, :4].mT, lambda wide: wide[:4, 3:9], lambda wide: wide[:4, ::2]],
    ids=["by columns", "a part", "every other"],
)
def test_weights_in_pieces_tell_of_writes_behind_torch_s_back_too(kind, lay):
    layer = Linear(6, 4).eval()
    layer.weight = torch.nn.Parameter(lay(torch.randn(12, 12)))
    assert not layer.weight.is_contiguous()
    quantize(layer, kind)
    assert not is_exact(layer)
    layer.weight.data.mul_(3)
    assert is_exact(layer)
    assert precision_of(layer) is None


def share(layer):
    layer.share_memory()


def pickle_for_a_spawned_process(layer):
    ForkingPickler.dumps(layer)


def put_elsewhere(layer):
    layer.weight.data = layer.weight.data.clone()


@pytest.mark.parametrize("move", [share, pickle_for_a_spawned_process, put_elsewhere])
def test_weights_that_only_moved_stay_in_whole_numbers(layer, move, monkeypatch):
    assert not is_exact(layer)
    packed, before = layer.whole.parts, layer.weight.data_ptr()
    move(layer)
    assert layer.weight.data_ptr() != before
    assert precision_of(layer) is not None
    summed = []
    checksum = packed_weights._checksum
    monkeypatch.setattr(packed_weights, "_checksum", lambda weight: summed.append(0) or checksum(weight))
    for _ in range(3):
        assert not is_exact(layer)
    assert layer.whole.parts is packed
    assert len(summed) == 1
    layer.weight.data.mul_(1.5)
    assert is_exact(layer)
    assert precision_of(layer) is None


@pytest.mark.parametrize("row", range(4))
def test_those_that_moved_and_are_others_do_not(layer, row):
    changed = layer.weight.detach().clone()
    changed[row, 5 - row] += 1e-6
    layer.weight.data = changed
    assert precision_of(layer) is None
    assert is_exact(layer)


def test_those_that_went_to_another_dtype_do_not_come_back_as_whole_numbers(layer):
    layer.double()
    assert layer.whole is None
    layer.float()
    assert is_exact(layer)


def test_weights_made_in_inference_mode_tell_of_a_change_too(kind):
    with torch.inference_mode():
        layer = Linear(6, 4).eval()
        quantize(layer, kind)
        assert not is_exact(layer)
        load_others(layer)
        assert is_exact(layer)


def test_copies_and_what_is_pickled_have_none(layer):
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert is_exact(other)
    assert not is_exact(layer)


def test_the_scorer_has_its_first_layer_in_halves(kind):
    scorer = SpanScorer(6, 3, "markerV0", 0.1).eval()
    words = torch.randn(5, 6)
    with torch.inference_mode():
        exact = scorer.halves(words)
        quantize(scorer, kind)
        ours = scorer.halves(words)
    for mine, theirs in zip(ours, exact, strict=True):
        assert 0 < float((mine - theirs).norm() / theirs.norm()) < {"int16": 1e-3, "int8": 0.03}[kind]
    assert (scorer.out.whole, len(scorer.joint.whole.parts)) == (None, 2)


def test_a_network_that_could_not_use_them_is_refused(kind):
    with pytest.raises(ValueError, match="in training mode"):
        quantize(Linear(6, 4), kind)
    compiled = Linear(6, 4).eval()
    compiled._compiled_call_impl = compiled.forward  # as compile() leaves it
    with pytest.raises(ValueError, match=f"{kind} is not compiled"):
        quantize(compiled, kind)


@pytest.mark.parametrize("other", [torch.float64, torch.bfloat16], ids=str)
def test_a_network_of_several_dtypes_is_refused_as_a_whole(kind, other):
    network = torch.nn.Sequential(Linear(6, 4), torch.nn.Sequential(Linear(4, 3).to(other), Linear(3, 2))).eval()
    with pytest.raises(ValueError, match=rf"but 1\.0 is in {other} on cpu: load the model without dtype"):
        quantize(network, kind)
    assert [own.whole for own in network.modules() if isinstance(own, Linear)] == [None] * 3


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_layers_without_weights_stay_as_they_are(kind):
    network = torch.nn.Sequential(Linear(6, 4), Linear(4, 0), Linear(0, 2)).eval()
    quantize(network, kind)
    assert (precision_of(network[0]), precision_of(network[1:])) == (kind, None)
    with torch.no_grad():
        assert torch.equal(network(torch.ones(3, 6)), network[2].bias.expand(3, 2))
    quantize(torch.nn.Identity().eval(), kind)


def test_a_cpu_without_avx2_is_told(kind, monkeypatch):
    monkeypatch.setattr(whole_numbers, "is_x86", lambda: False)
    assert why_slow(kind) == f"{kind} is made for x86 CPUs with AVX2, and may be slow on this one"


def test_a_cpu_without_vnni_is_told_of_what_is_faster(monkeypatch):
    if not whole_numbers.is_x86():
        pytest.skip("another warning is due")
    for features, warns in (["avx2", "avx512"], True), (["avx2", "avx512", "avx512_vnni"], False):
        monkeypatch.setattr(whole_numbers, "cpu_features", lambda own=features: own)
        monkeypatch.setattr(whole_numbers._rust, "has_vectors", lambda: True)
        assert why_slow("int16") is None
        assert ("on this one int16 is faster" in (why_slow("int8") or "")) is warns


def test_one_kind_takes_the_place_of_the_other(layer, kind):
    other = "int8" if kind == "int16" else "int16"
    quantize(layer, other)
    assert precision_of(layer) == other
    assert isinstance(layer.whole.parts[0], KINDS[other])


@pytest.mark.parametrize("shape", [(0, 3), (2, 3), (2, 12), (4, 3, 0)], ids=str)
def test_vectors_of_another_width_are_refused(layer, shape):
    with torch.inference_mode(), pytest.raises((ValueError, RuntimeError)):
        layer(torch.ones(shape))


def test_tensors_without_numbers_go_through_torch(layer, kind):
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        found = layer(mode.from_tensor(torch.ones(3, 6)))
    assert (type(found), found.shape) == (FakeTensor, (3, 4))
    assert precision_of(layer) == kind


@pytest.mark.parametrize("encoder", ["bert", "electra"])
def test_other_encoders_run_in_them(kind, encoder):
    encoder = make_encoder(encoder)
    ids, is_subword = texts_of([9, 8])
    given = (ids[is_subword], torch.tensor([9, 8]), torch.tensor([0, 9, 17]))
    with torch.inference_mode():
        exact = encoder(*given)
        quantize(encoder, kind)
        ours = encoder(*given)
    assert 0 < float((ours - exact).norm() / exact.norm()) < {"int16": 3e-3, "int8": 0.1}[kind]


def test_layers_of_both_kinds_are_told(layer, kind):
    other = Linear(6, 4).eval()
    quantize(other, "int8" if kind == "int16" else "int16")
    assert precision_of(torch.nn.Sequential(layer, other)) == "int16 and int8"
    assert precision_of(torch.nn.Sequential(layer, Linear(6, 4))) == f"partly {kind}"
