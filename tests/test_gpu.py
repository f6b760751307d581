"""The same answers on a CUDA device. `make gpu-check` runs these; no other target does."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F

from gliner_fast import GLiNER, verify
from gliner_fast.comparing.verification import compare
from gliner_fast.cpu import linear as linear_module
from gliner_fast.encoders.attention_executor import VARIABLE as ATTENTION
from gliner_fast.encoders.cuda_graphs import VARIABLE as GRAPHS
from gliner_fast.kernels.pending_candidates import PendingCandidates
from gliner_fast.predicting.predictor import Scored
from gliner_fast.predicting.request import Options, Request
from gliner_fast.scorer import SpanScorer
from gliner_fast.scoring.span_executor import VARIABLE
from gliner_fast.scoring.word_vectors import WordLSTM
from gliner_fast.stats import Stats
from tests.device_waits import counted_waits, no_wait
from tests.relation_checkpoints import RELATIONS
from tests.samples import CROSSNER, LABELS
from tests.small_network import packed as as_packed
from tests.small_network import small_batch, small_network

pytestmark = pytest.mark.gpu

DEVICE = "cuda"


@pytest.fixture(autouse=True)
def no_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    # cuDNN's LSTM runs in TF32 (10 bits) unless told otherwise, ours and the reference's alike; fp32 is compared here.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.gliner
@pytest.mark.parametrize(
    "kind", ["deberta", "deberta-marker", "deberta-mean", "bert", "modernbert", "mt5", "token", "bi"]
)
def test_a_random_checkpoint_answers_as_gliner_does(kind: str, checkpoint):
    model = GLiNER.from_pretrained(checkpoint(kind), map_location=DEVICE)
    assert model.device.type == DEVICE
    report = verify(model, CROSSNER, LABELS, threshold=0.3)
    assert report.entities > 100
    assert report.ok, str(report)
    assert kind == "token" or model.model.scorer.executor == "triton"
    assert model.model.reads_packed


@pytest.mark.gliner
@pytest.mark.parametrize(
    "kind", ["relex", "relex-none", "relex-gcn", "relex-attention", "relex-triples", "token-relex"]
)
def test_relations_are_those_that_the_cpu_finds(kind: str, checkpoint):
    options = {"threshold": 0.4, "adjacency_threshold": 0.05, "relation_threshold": 0.45}
    answers = [
        GLiNER.from_pretrained(checkpoint(kind), map_location=device).inference(
            CROSSNER[:20], LABELS, RELATIONS, **options
        )
        for device in ("cpu", DEVICE)
    ]
    on_cpu, on_gpu = (
        {
            (text, r["head"]["start"], r["head"]["end"], r["tail"]["start"], r["tail"]["end"], r["relation"])
            for text, own in enumerate(relations)
            for r in own
        }
        for _, relations in answers
    )
    assert len(on_cpu) > 20
    assert len(on_cpu ^ on_gpu) <= max(1, len(on_cpu) / 100)  # scores at a threshold


def test_the_built_in_model_answers_as_on_the_cpu():
    on_cpu = GLiNER.from_pretrained().inference(CROSSNER, LABELS, threshold=0.3)
    on_gpu = GLiNER.from_pretrained(map_location=DEVICE).inference(CROSSNER, LABELS, threshold=0.3)
    report = compare(on_gpu, on_cpu, lambda _: [], threshold=0.3)
    assert report.entities > 100
    assert report.moved == 0
    assert len(report.differences) <= report.entities / 100  # scores at the threshold


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_keeps_nearly_all_entities(dtype: str):
    exact = GLiNER.from_pretrained(map_location=DEVICE).inference(CROSSNER, LABELS)
    half = GLiNER.from_pretrained(map_location=DEVICE, dtype=dtype).inference(CROSSNER, LABELS)
    keys = [
        {(text, e["start"], e["end"], e["label"]) for text, own in enumerate(answers) for e in own}
        for answers in (exact, half)
    ]
    assert len(keys[0] & keys[1]) >= 0.95 * len(keys[0] | keys[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(700, 64), (3, 5, 64), (0, 64)])
def test_a_product_of_16_bits_takes_gelu_along(shape, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    layer = linear_module.Linear(64, 96).to(DEVICE, dtype).eval()
    vectors = torch.randn(shape, device=DEVICE).to(dtype)
    calls = []
    together = linear_module.product_with_gelu
    monkeypatch.setattr(linear_module, "product_with_gelu", lambda *given: calls.append(0) or together(*given))
    with torch.inference_mode():
        exact = F.gelu(F.linear(vectors.double(), layer.weight.double(), layer.bias.double()))
        found = layer.product(vectors, "gelu")
        assert len(calls) == 1
        monkeypatch.setenv(linear_module.VARIABLE, "torch")
        apart = layer.product(vectors, "gelu")
        assert len(calls) == 1
    assert found.shape == apart.shape == exact.shape
    if exact.numel():
        errors = [float((each.double() - exact).abs().max()) for each in (found, apart)]
        assert errors[0] <= errors[1] + 1e-3  # the form by tanh is 0.0005 off
    layer(vectors.requires_grad_()).sum().backward()
    assert len(calls) == 1
    assert vectors.grad is not None


def test_a_batch_answers_as_its_texts_alone():
    model = GLiNER.from_pretrained(map_location=DEVICE)
    together = model.inference(CROSSNER, LABELS)
    alone = [model.predict_entities(text, LABELS) for text in CROSSNER]
    assert compare(together, alone, lambda _: []).moved == 0


def test_triton_and_torch_find_the_same_entities(monkeypatch: pytest.MonkeyPatch):
    model, found = GLiNER.from_pretrained(map_location=DEVICE), {}
    for executor in ("torch", "triton"):
        monkeypatch.setenv(VARIABLE, executor)
        found[executor] = model.inference(CROSSNER, LABELS, threshold=0.3)
        assert model.model.scorer.executor == executor
    report = compare(found["triton"], found["torch"], lambda _: [], threshold=0.3)
    assert report.entities > 100
    assert report.moved == 0
    assert len(report.differences) <= report.entities / 100  # scores at the threshold


@pytest.mark.gliner
@pytest.mark.parametrize("executor", ["triton", "disentangled-flash"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_packed_and_padded_texts_have_the_same_entities(
    dtype: str, executor: str, checkpoint, monkeypatch: pytest.MonkeyPatch
):
    if executor == "disentangled-flash":
        pytest.importorskip("disentangled_flash", reason="carry the wheels of `make gpu-wheels`")
    model, found = GLiNER.from_pretrained(checkpoint("deberta-two-heads"), map_location=DEVICE, dtype=dtype), {}
    for name in ("padded", executor):
        monkeypatch.setenv(ATTENTION, name)
        assert model.model.reads_packed is (name != "padded")
        found[name] = model.inference(CROSSNER, LABELS, threshold=0.3)
    report = compare(found[executor], found["padded"], lambda _: [], threshold=0.3)
    assert report.entities > 100
    # Scores at the threshold; a random checkpoint's crowd there, and each executor rounds elsewhere to 16 bits.
    assert len(report.differences) <= report.entities / (100 if dtype == "fp32" else 2)


def test_recorded_texts_have_the_entities_that_they_have_without(checkpoint, monkeypatch: pytest.MonkeyPatch):
    model = GLiNER.from_pretrained(checkpoint("deberta"), map_location=DEVICE)
    without = [model.predict_entities(text, LABELS, threshold=0.3) for text in CROSSNER]
    monkeypatch.setenv(GRAPHS, "1")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the encoder could not be recorded")
        recorded = [model.predict_entities(text, LABELS, threshold=0.3) for text in CROSSNER]
        again = [model.predict_entities(text, LABELS, threshold=0.3) for text in CROSSNER]
    assert len(model.model.encoder._graphs._recorded) > 1
    assert again == recorded
    report = compare(recorded, without, lambda _: [], threshold=0.3)
    assert report.entities > 100
    assert report.moved == 0
    assert len(report.differences) <= report.entities / 100  # scores at the threshold


# --- who waits for the device -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["first", "mean", "max"])
@pytest.mark.parametrize("threshold", [None, 0.5235], ids=["all scores", "candidates"])
@pytest.mark.parametrize("packed", [False, True])
def test_the_network_never_waits_for_the_device(packed, pooling, threshold):
    network, batch = small_network(pooling).to(DEVICE), small_batch()
    batch = (as_packed(batch) if packed else batch).to(torch.device(DEVICE))
    thresholds = None if threshold is None else torch.full((6,), threshold)
    with torch.inference_mode():
        network(batch, thresholds)  # compiles the kernel, and makes the tables of positions
        with counted_waits() as waits:
            scores = network(batch, thresholds)
    assert network.scorer.executor == "triton"
    assert waits == []
    if threshold is not None:
        assert len(scores.candidates.wait().texts) > 0


@pytest.mark.parametrize("words", [[5, 3, 1, 9], [18]], ids=["a batch", "a text alone"])
def test_no_library_waits_for_the_device_unseen(words: list[int]):
    network, lstm = small_network("first").to(DEVICE), WordLSTM(64, 1).to(DEVICE).eval()
    batch, thresholds = as_packed(small_batch()).to(torch.device(DEVICE)), torch.full((6,), 0.5)
    counts, vectors = torch.tensor(words), torch.randn(18, 64, device=DEVICE)

    def start() -> None:
        network(batch, thresholds)
        lstm(vectors, counts)

    slept = torch.cuda.Event()
    with torch.inference_mode():
        start()  # compiles the kernels, and makes the tables of positions
        start()
        torch.cuda.synchronize()
        torch.cuda._sleep(2 * 10**9)  # cycles: about a second
        slept.record()
        start()
        has_waited = slept.query()
    torch.cuda.synchronize()
    assert not has_waited


@pytest.mark.gliner
@pytest.mark.parametrize("kind", ["deberta", "deberta-marker", "bert", "modernbert", "mt5"])
def test_a_call_waits_for_the_device_once_a_batch_to_read_its_candidates(kind, checkpoint, monkeypatch):
    model = GLiNER.from_pretrained(checkpoint(kind), map_location=DEVICE)
    model.token_budget = 2_000
    expected = model.inference(CROSSNER, LABELS, threshold=0.3)  # compiles the kernels, and makes the tables
    waits, batches, wait = [], [], PendingCandidates.wait
    monkeypatch.setattr(PendingCandidates, "wait", lambda pending: waits.append(1) or wait(pending))
    hook = model.model.register_forward_hook(lambda *_: batches.append(1))
    with no_wait():  # for all but what `wait` does: it waits for an event
        found = model.inference(CROSSNER, LABELS, threshold=0.3)
    hook.remove()
    assert len(waits) == len(batches) > 3
    assert found == expected


@pytest.mark.gliner
@pytest.mark.parametrize("kind", ["relex", "relex-gat", "relex-triples", "token-relex"])
def test_relations_and_vectors_do_not_wait_for_batches_that_were_begun_since(kind: str, checkpoint):
    predictor = GLiNER.from_pretrained(checkpoint(kind), map_location=DEVICE).predictor()
    thresholds = {"threshold": 0.4, "adjacency_threshold": 0.05, "relation_threshold": 0.45}
    asked = Options(relations=RELATIONS, return_vectors=True, return_label_vectors=True, **thresholds)
    prepared = predictor.prepare(Request.read(CROSSNER[:20], LABELS, asked))

    def begin() -> Scored:
        return predictor.score(predictor.lay_out(prepared, prepared.scorable), Stats(), timed=False)

    expected = predictor.decode(prepared, begin())  # and the stream has its memory
    scored, slept = begin(), torch.cuda.Event()
    torch.cuda._sleep(2 * 10**9)  # cycles: about a second
    slept.record()
    found = predictor.decode(prepared, scored)
    has_waited = slept.query()
    torch.cuda.synchronize()
    assert not has_waited
    assert len(found.relations) == len(expected.relations) > 20
    assert len(found.entities) == len(expected.entities)


@pytest.mark.gliner
def test_all_devices_together_give_the_results_of_one(checkpoint):
    model = GLiNER.from_pretrained(checkpoint("deberta"), map_location=DEVICE)
    alone = list(model.stream(CROSSNER, LABELS, threshold=0.3, window_size=8))
    devices = ["cuda:0", "cuda:0"] if torch.cuda.device_count() == 1 else "all"
    assert list(model.stream(CROSSNER, LABELS, threshold=0.3, window_size=8, devices=devices)) == alone


@pytest.mark.parametrize("probabilities", [False, True])
def test_batches_in_flight_give_what_they_give_one_by_one(probabilities: bool):
    model = GLiNER.from_pretrained(map_location=DEVICE)
    model.token_budget = 2_000
    options = {"threshold": 0.3, "return_class_probs": probabilities}
    expected = [entities for text in CROSSNER for entities in [model.inference([text], LABELS, **options)[0]]]
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):  # of the caller; other threads have the default one
        for found in (model.inference(CROSSNER, LABELS, **options), list(model.stream(CROSSNER, LABELS, **options))):
            assert compare(found, expected, lambda _: [], threshold=0.3).moved == 0


# --- the word LSTM ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("words", [[5, 3, 1, 9], [18]], ids=["a batch", "a text alone"])
def test_the_word_lstm_reads_its_weights_where_they_lie(words: list[int], dtype: torch.dtype):
    torch.manual_seed(0)
    exact, counts = WordLSTM(64, 1).double().eval(), torch.tensor(words)
    vectors = torch.randn(18, 64)
    module = copy.deepcopy(exact).to(DEVICE, dtype)
    with torch.inference_mode():  # torch warns of weights that it copies, and a warning is an error here
        found = module(vectors.to(DEVICE, dtype), counts)
        wanted = exact(vectors.double(), counts)
    assert len({weight.untyped_storage().data_ptr() for weight in module.parameters()}) == 1
    # cuDNN's float32 is less exact than torch's on a CPU: 51 units were seen on an H200.
    units = 128 if dtype is torch.float32 else 32
    assert (found.cpu().double() - wanted).abs().max() < units * torch.finfo(dtype).eps


# --- training ---------------------------------------------------------------------------------------------------------


def test_training_the_head_keeps_no_span_and_repeats_to_the_bit(monkeypatch: pytest.MonkeyPatch):
    width, max_width, words, classes = 256, 48, [128] * 16, [5] * 16
    torch.manual_seed(0)
    scorer = SpanScorer(width, max_width, "markerV0", dropout=0.0).to(DEVICE)
    vectors, labels = torch.randn(sum(words), width, device=DEVICE), torch.randn(sum(classes), width, device=DEVICE)

    def step() -> dict[str, torch.Tensor]:
        scorer.zero_grad(set_to_none=True)
        logits = scorer(vectors, scorer.prompt(labels), words, classes)
        logits[torch.isfinite(logits)].square().mean().backward()
        return {name: weight.grad.clone() for name, weight in scorer.named_parameters()}

    monkeypatch.setenv(VARIABLE, "torch")
    wanted = step()
    monkeypatch.setenv(VARIABLE, "triton")
    first = step()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    second = step()
    peak = torch.cuda.max_memory_allocated() - before
    assert scorer.executor == "triton"
    for name, gradient in first.items():
        assert torch.equal(gradient, second[name]), name
        assert (gradient - wanted[name]).abs().max() <= 1e-4 * wanted[name].abs().max(), name
    assert peak < sum(words) * max_width * 4 * width * 4 / 4  # a quarter of spans x 4D numbers of 4 bytes
