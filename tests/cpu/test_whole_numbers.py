"""Linear layers in whole numbers of 16 and 8 bits, against float64, and models that run in them."""

from __future__ import annotations

import copy
import math
import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
import torch.multiprocessing  # registers how tensors are sent
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses import FakeTensor, FakeTensorMode

from gliner_fast import GLiNER, _rust, extract_files
from gliner_fast.cpu import packed_weights, whole_numbers
from gliner_fast.cpu.linear import Linear, linear
from gliner_fast.cpu.packed_weights import Packed
from gliner_fast.cpu.whole_numbers import Packing, kinds_of, precision_of, quantize, why_slow
from gliner_fast.devices import spread
from gliner_fast.scorer import SpanScorer
from tests.encoders.test_packed_bert import make_encoder, texts_of
from tests.jobs.conftest import read_jsonl, write_jsonl
from tests.samples import CROSSNER, LABELS

TEXTS = [*CROSSNER[:30], "", "word", "word " * 384]

# A CPU that has not the instructions for them says so, and computes the same.
pytestmark = pytest.mark.filterwarnings("ignore:int16 is made for", "ignore:int8 is made for")

KINDS = {"int16": _rust.Int16Weights, "int8": _rust.Int8Weights}


@pytest.fixture(scope="module")
def exact() -> GLiNER:
    return GLiNER.from_pretrained()


@pytest.fixture(scope="module", params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(kind) -> GLiNER:
    return GLiNER.from_pretrained(dtype=kind)


def multiply(kind, vectors, weight, bias=None, activation="none"):
    with torch.inference_mode():
        return linear(vectors, weight, bias, activation, *Packed.pack(KINDS[kind], weight).parts)


def rounding(kind, rows):
    """How much each number of some rows may be rounded by."""
    if kind == "int16":
        return (rows.double().abs().amax(-1, keepdim=True) / 8191 * 0.501).expand_as(rows)
    return torch.cat(
        [(part.abs().amax(-1, keepdim=True) / 127 * 0.501).expand_as(part) for part in rows.double().split(64, dim=-1)],
        dim=-1,
    )


# --- a layer ----------------------------------------------------------------------------------------------------------


@given(
    kind=st.sampled_from(sorted(KINDS)),
    leading=st.lists(st.integers(0, 9), max_size=3),
    inputs=st.integers(1, 140),
    outputs=st.integers(1, 70),
    has_bias=st.booleans(),
    spread=st.sampled_from([0.0, 3.0]),
    seed=st.integers(0, 99),
)
def test_products_are_as_near_as_the_rounding_allows(kind, leading, inputs, outputs, has_bias, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.exp(spread * torch.randn(inputs, generator=generator))  # some numbers far above the others
    vectors = torch.randn(*leading, inputs, generator=generator) * sizes
    weight = torch.randn(outputs, inputs, generator=generator)
    bias = torch.randn(outputs, generator=generator) if has_bias else None
    ours, expected = multiply(kind, vectors, weight, bias), F.linear(vectors.double(), weight.double())
    expected = expected if bias is None else expected + bias
    assert ours.shape == expected.shape
    dx, dw = rounding(kind, vectors), rounding(kind, weight)
    allowed = F.linear(vectors.double().abs(), dw) + F.linear(dx, weight.double().abs() + dw) + 1e-5
    assert ((ours - expected).abs() <= allowed).all()


@pytest.mark.parametrize("shape", [(1, 384), (48, 1), (70, 3072)], ids=str)
def test_errors_are_a_tenth_and_four_times_those_of_bf16(kind, shape):
    torch.manual_seed(0)
    vectors, weight = torch.randn(*shape), torch.randn(40, shape[1])
    exact = F.linear(vectors.double(), weight.double())
    ours = multiply(kind, vectors, weight)
    error = float((ours - exact).norm() / exact.norm())
    half = F.linear(vectors.bfloat16().double(), weight.bfloat16().double())
    assert 0 < error < {"int16": 0.15, "int8": 5}[kind] * float((half - exact).norm() / exact.norm())


def test_the_activation_is_gelu(kind):
    torch.manual_seed(0)
    vectors, weight, bias = torch.randn(7, 20), torch.randn(9, 20), torch.randn(9)
    torch.testing.assert_close(
        multiply(kind, vectors, weight, bias, "gelu"),
        F.gelu(multiply(kind, vectors, weight, bias)),
        rtol=1e-5,
        atol=1e-6,
    )
    with pytest.raises(ValueError, match='activation is "relu": expected none, gelu or gelu_tanh'):
        multiply(kind, vectors, weight, bias, "relu")


def test_a_row_with_a_number_that_is_none_is_none(kind):
    vectors, weight = torch.ones(3, 5), torch.ones(4, 5)
    for number in (math.nan, math.inf):
        vectors[1, 2] = number
        assert multiply(kind, vectors, weight).isnan().tolist() == [[False] * 4, [True] * 4, [False] * 4]


@pytest.mark.parametrize(("of_vectors", "of_weight"), [(1e36, 1e-6), (1e-6, 1e36), (1e-20, 1e10)], ids=str)
def test_products_of_great_and_small_numbers_are_what_they_are_of_others(kind, of_vectors, of_weight):
    torch.manual_seed(0)
    vectors, weight = torch.randn(3, 70), torch.randn(5, 70)
    torch.testing.assert_close(
        multiply(kind, vectors * of_vectors, weight * of_weight) / (of_vectors * of_weight),
        multiply(kind, vectors, weight),
        rtol=1e-3,
        atol=0.1,
    )


def test_rows_that_stand_apart_are_read(kind):
    torch.manual_seed(0)
    wide, weight = torch.randn(6, 40), torch.randn(5, 40)
    for vectors, own in ((wide[:, 3:23], weight[:, :20]), (wide.mT[:6].mT, weight[:, :6])):
        assert torch.equal(multiply(kind, vectors, own), multiply(kind, vectors.clone(), own.clone()))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_what_a_row_becomes_depends_on_it_alone(kind, threads, monkeypatch):
    torch.manual_seed(0)
    vectors, weight = torch.randn(500, 700), torch.randn(400, 700)  # work for several threads
    alone = torch.cat([multiply(kind, row[None], weight) for row in vectors[::50]])
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert torch.equal(multiply(kind, vectors, weight)[::50], alone)


@pytest.mark.parametrize(
    ("x", "out", "message"),
    [
        ((2, 4), (2, 5), r"x is \[2, 4\] and out \[2, 5\], but the weights are \[5, 3\]"),
        ((2, 3), (3, 5), r"out \[3, 5\]"),
        ((2, 3), (2, 4), r"out \[2, 4\]"),
    ],
)
def test_shapes_that_do_not_fit_are_told(kind, x, out, message):
    weights = KINDS[kind](np.ones((5, 3), np.float32))
    assert weights.shape == (5, 3)
    with pytest.raises(ValueError, match=message):
        weights.apply(np.ones(x, np.float32), None, "none", np.ones(out, np.float32), 1, 0)
    with pytest.raises(ValueError, match="bias has 4 values: expected 5"):
        weights.apply(np.ones((2, 3), np.float32), np.ones(4, np.float32), "none", np.ones((2, 5), np.float32), 1, 0)
    with pytest.raises(ValueError, match="no columns"):
        KINDS[kind](np.ones((5, 0), np.float32))


# --- a network --------------------------------------------------------------------------------------------------------


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


def test_a_model_that_was_sent_to_a_spawned_process_is_what_it_was(kind, model):
    expected = model.inference([text[:120] for text in CROSSNER[:2]], LABELS)
    ForkingPickler.dumps(model)
    assert model.precision == kind
    ForkingPickler.dumps(model.share_memory())
    assert model.inference([text[:120] for text in CROSSNER[:2]], LABELS) == expected
    assert model.precision == kind


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
    assert why_slow(kind) == f"{kind} is made for x86 CPUs with AVX2, and slow on this one"


def test_a_cpu_without_vnni_is_told_of_what_is_faster(monkeypatch):
    if not whole_numbers.is_x86():
        pytest.skip("another warning is due")
    for features, warns in (["avx2", "avx512"], True), (["avx2", "avx512", "avx512_vnni"], False):
        monkeypatch.setattr(whole_numbers, "cpu_features", lambda own=features: own)
        monkeypatch.setattr(whole_numbers._rust, "has_vectors", lambda: True)
        assert why_slow("int16") is None
        assert ("on this one int16 is faster" in (why_slow("int8") or "")) is warns


@pytest.mark.filterwarnings("error")
def test_it_is_told_once_and_where_the_user_asked_for_it(monkeypatch):
    monkeypatch.setattr(whole_numbers, "is_x86", lambda: False)
    with pytest.warns(UserWarning, match="slow on this one") as by_loading:
        model = GLiNER.from_pretrained(dtype="int8")
    with pytest.warns(UserWarning, match="slow on this one") as by_method:
        model.quantize("int16")
    new = {"backbone_from_pretrained": False, "tokenizer": model.data_processor.transformer_tokenizer}
    with pytest.warns(UserWarning, match="slow on this one") as by_config:
        GLiNER.from_config(model.config, quantize="int8", **new)
    for caught in (by_loading, by_method, by_config):
        assert [own.filename for own in caught] == [__file__]
    pickle.loads(pickle.dumps(copy.deepcopy(model)))
    spread(model, [torch.device("cpu")] * 2)


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


# --- a model ----------------------------------------------------------------------------------------------------------


def test_a_trained_model_finds_the_same(exact, kind, model):
    assert (exact.precision, model.precision) == ("float32", kind)
    off = {"int16": 0.01, "int8": 0.1}[kind]
    expected, found = exact.inference(TEXTS, LABELS, threshold=0.3), model.inference(TEXTS, LABELS, threshold=0.3)
    scores, exact_scores = by_place(found), by_place(expected)
    both = scores.keys() & exact_scores.keys()
    assert len(both) > 60
    assert 0 < max(abs(scores[place] - exact_scores[place]) for place in both) < off
    for place in scores.keys() ^ exact_scores.keys():
        assert (scores | exact_scores)[place] == pytest.approx(0.3, abs=off)  # beside the threshold


def by_place(answers):
    return {
        (row, own["start"], own["end"], own["label"]): own["score"]
        for row, found in enumerate(answers)
        for own in found
    }


def test_answers_do_not_depend_on_batch_mates(model):
    together = model.inference(TEXTS, LABELS, threshold=0.3)
    for text, found in zip(TEXTS, together, strict=True):
        alone = model.predict_entities(text, LABELS, threshold=0.3)
        assert [own["score"] for own in alone] == pytest.approx([own["score"] for own in found], abs=2e-6)


def test_a_loaded_model_can_be_quantized_and_saves_what_it_was(exact, kind, tmp_path, monkeypatch):
    own = GLiNER.from_pretrained(quantize=kind)
    assert own.precision == kind
    own.save_pretrained(tmp_path, safe_serialization=True)
    again = GLiNER.from_pretrained(tmp_path)
    assert again.precision == "float32"
    for mine, theirs in zip(again.parameters(), exact.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    again.quantize()
    assert again.precision == "int8"  # as of `gliner`
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *_, **__: None)
    again.compile()
    assert again.precision == "float32"


def test_copies_on_other_devices_compute_as_the_model(kind, model):
    own, other = spread(model, [torch.device("cpu")] * 2)
    assert precision_of(own.network) == precision_of(other.network) == kind
    with pytest.raises(ValueError, match="is to be copied to meta"):
        spread(model, [torch.device("cpu"), torch.device("meta")])


def leave_by_layer(model):
    model.model.encoder.train()
    model.model.eval()


def leave_by_dtype(model):
    model.model.encoder.double().float()


def leave_with_the_lstm(model):
    leave_by_layer(model)
    model.model.rnn.train()
    model.model.eval()


@pytest.mark.parametrize("leave", [leave_by_layer, leave_by_dtype, leave_with_the_lstm])
def test_copies_have_whole_numbers_where_the_model_has_them(kind, leave):
    model = GLiNER.from_pretrained(dtype=kind)
    leave(model)
    assert model.precision == f"partly {kind}"
    expected = model.inference(TEXTS[:6], LABELS, threshold=0.3)
    assert model.precision == f"partly {kind}"
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert kinds_of(copied.model) == kinds_of(model.model)
        assert copied.inference(TEXTS[:6], LABELS, threshold=0.3) == expected
    _, other = spread(model, [torch.device("cpu")] * 2)
    assert Packing.of(other.network) == Packing.of(model.model)


def test_a_model_with_layers_in_other_dtypes_can_be_copied(kind):
    model = GLiNER.from_pretrained(dtype=kind)
    model.model.scorer.double()
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert copied.precision == f"partly {kind}"
        assert kinds_of(copied.model) == kinds_of(model.model)


def test_layers_of_both_kinds_are_told(layer, kind):
    other = Linear(6, 4).eval()
    quantize(other, "int8" if kind == "int16" else "int16")
    assert precision_of(torch.nn.Sequential(layer, other)) == "int16 and int8"
    assert precision_of(torch.nn.Sequential(layer, Linear(6, 4))) == f"partly {kind}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantize": "fp16"}, "quantize is 'fp16': expected 'int16' or 'int8'"),
        ({"quantize": True}, "quantize is True"),
        ({"quantize": "int16", "dtype": "bf16"}, r"torch\.bfloat16 on cpu was asked for"),
        ({"dtype": "int16", "map_location": "meta"}, "on meta was asked for"),
    ],
)
def test_what_cannot_be_had_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GLiNER.from_pretrained(**options)


def test_a_loaded_model_is_quantized_to_nothing_else(exact):
    half = GLiNER.from_pretrained(dtype="bf16")
    with pytest.raises(ValueError, match=r"the model is in torch\.bfloat16 on cpu"):
        half.quantize()
    for name in ("int4", None):
        with pytest.raises(ValueError, match="expected 'int16' or 'int8'"):
            exact.quantize(dtype=name)
    assert exact.precision == GLiNER.from_pretrained(quantize=False).precision == "float32"


def test_a_job_runs_in_them_and_goes_on_in_nothing_else(kind, tmp_path):
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS[:9]])
    options = {"output_format": "jsonl", "device": "cpu"}
    extract_files(source, tmp_path / "out", LABELS, dtype=kind, **options)
    extract_files(source, tmp_path / "exact.jsonl", LABELS, device="cpu")
    shards = sorted((tmp_path / "out").rglob("shard-*.jsonl"))
    places = [
        by_place([row["entities"] for path in paths for row in read_jsonl(path)])
        for paths in (shards, [tmp_path / "exact.jsonl"])
    ]
    assert places[0].keys() == places[1].keys() != set()
    assert places[0] != places[1]  # scores
    with pytest.raises(ValueError, match="dtype"):
        extract_files(source, tmp_path / "out", LABELS, dtype="fp32", **options)
