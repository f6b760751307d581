"""Texts -> entities on a CUDA device: ours in fp32 and bf16 beside gliner as shipped and gliner at its best.

"As shipped" is fp32, batches of 8 in input order. "At its best" is fp16, sorted by length, with the batch size that was
fastest in a trial on this card; once as it is, and once with its DeBERTa compiled, each with a trial of its own. (Where
all of `gliner`'s network is compiled, torch does so anew for each length, until it gives up.) `bench_gpu_attentions`
has other people's attention under gliner instead, and under ours; `bench_gpu_latency` single texts, also with CUDA
graphs, which one of the compiled rivals has, too. `bench_gpu_card` is of ours alone, with many texts: subwords a
second, the share of the measured product peak that the useful operations make, the share of the time that the card was
busy, the stages' seconds and the peak memory.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import Any

import pytest
import torch

from benches.bench_end_to_end import THRESHOLD, Answers, fastest_batch_size, inference_sorted
from benches.compare import SCALE, Race, keys_of, words_of
from benches.conftest import LABELS, SIZES, checkpoint, distinct_texts
from benches.floor import measure_peaks
from benches.gpu_peers import gpu_peers
from benches.on_card import busy_seconds, on_card, peak_bytes, profiled
from benches.useful_work import UsefulWork
from gliner_fast import GLiNER
from gliner_fast.comparing.reference_candidates import find_reference_candidates
from gliner_fast.comparing.verification import compare
from gliner_fast.encoders.attention_executor import VARIABLE as ATTENTION
from gliner_fast.encoders.cuda_graphs import VARIABLE as GRAPHS
from gliner_fast.encoders.deberta import DebertaEncoder
from gliner_fast.predicting.request import Options, Request
from gliner_fast.stats import Stats

pytestmark = pytest.mark.gliner  # which also writes the checkpoints

# The parameter tells the race which machine to name and to wait for.
ON_CUDA = pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.gpu)])
TEXTS = {"short": 2048, "mixed": 384}
# Of which ours alone is given several times as many in bf16, to see the card in full swing, a race with packages that
# take seconds for them a part, and a trial of batch sizes some.
FULL_SWING, IN_RACE, IN_TRIAL = {"bf16": 8, "fp32": 1}, 0.5, 256
FEWEST_ROUNDS = 3
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Of the entities that either side finds in bf16 and fp32, the share that both do. The checkpoints are random, and their
# scores crowd at the threshold: of base, `gliner` itself finds a third again. What bf16 does to a trained model is for
# `python -m benches.precision` to say.
LEAST_AGREEMENT = 0.1


@lru_cache(maxsize=1)
def reference(size: str, device: str) -> Any:
    """The reference with a checkpoint of a size, as shipped."""
    from gliner import GLiNER as Reference

    return Reference.from_pretrained(checkpoint(size), map_location=device)


@lru_cache(maxsize=2)
def best_reference(size: str, device: str, *, compiled: str = "") -> Any:
    """The same in fp16, its DeBERTa compiled in one of torch's modes, such as "default", or not at all."""
    from gliner import GLiNER as Reference

    best = Reference.from_pretrained(checkpoint(size), map_location=device).half()
    if compiled:
        best.model.token_rep_layer.bert_layer.model.compile(dynamic=True, mode=compiled)
    return best


@cache
def best_batch_size(name: str, label_count: int, size: str, device: str, *, compiled: str = "") -> int:
    """The batch size with which the reference in fp16 reads sorted texts of a corpus fastest."""
    best = best_reference(size, device, compiled=compiled)
    run = partial(inference_sorted, best, distinct_texts(name, IN_TRIAL), labels_of(label_count))
    return fastest_batch_size(run, device)


def labels_of(count: int) -> list[str]:
    """So many labels, up to 100."""
    labels = [*LABELS, *(f"{label} of old" for label in LABELS), *(f"{label} abroad" for label in LABELS)]
    return [*labels, *(f"unknown {label}" for label in LABELS)][:count]


@lru_cache(maxsize=1)
def ours_of(size: str, dtype: str, device: str) -> GLiNER:
    return GLiNER.from_pretrained(checkpoint(size), map_location=device, dtype=dtype)


def near_misses(shipped: Any, text: str, labels: list[str]) -> Any:
    """What the reference would find a little below the threshold."""
    return find_reference_candidates(shipped, text, labels, floor=THRESHOLD - 1e-4)


def agreement_of(
    ours: Callable[[], Answers], shipped: Callable[[], Answers], candidates: Callable[[int], Any], dtype: str
) -> tuple[str, bool]:
    """How far answers agree with the reference's in fp32, in words, and whether that is enough.

    cuDNN's LSTM rounds the factors of float32 to 10 bits unless it is told not to: here it is, on both sides.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.backends.cudnn, "allow_tf32", False)
        found, exact = ours(), shipped()
        mine, theirs = keys_of(found), keys_of(exact)
        if dtype == "fp32":
            report = compare(found, exact, candidates, threshold=THRESHOLD)
            is_equal = report.ok and bool(mine)
            return told(mine, theirs) if is_equal else f"NOT EQUAL, or nothing found: {report}", is_equal
    return told(mine, theirs), len(mine & theirs) > LEAST_AGREEMENT * len(mine | theirs)


def told(mine: set[tuple[Any, ...]], theirs: set[tuple[Any, ...]]) -> str:
    """How many entities of either are of both, in words."""
    return f"{len(mine & theirs):,} of {len(mine | theirs):,} entities as in fp32"


def add_card_figures(card: dict[str, Any], model: GLiNER, texts: list[str], labels: list[str], dtype: str) -> None:
    """Adds what tells how busy the card is with many texts, one by one: what fails costs none of those before it."""

    def call() -> None:
        model.inference(texts, labels, threshold=THRESHOLD)
        torch.cuda.synchronize()

    times = []
    for _ in range(4):  # the first may meet a batch that is greater than all before
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    seconds = statistics.median(times[1:])
    useful = UsefulWork.of(model, call)
    card |= {"texts": len(texts), "seconds": seconds, "subwords_a_second": useful.subwords / seconds}
    operations = useful.encoder + useful.span_scores
    card["share_of_product_peak"] = operations / seconds / measure_peaks(DTYPES[dtype]).operations
    stats = Stats()
    predictor = model.predictor()
    prepared = predictor.prepare(Request.read(texts, labels, Options(threshold=THRESHOLD)))
    card["peak_bytes"] = peak_bytes(lambda: predictor.predict(prepared, stats))  # above the weights of all models here
    card["padding_share"] = stats.padding_share
    card["stages"] = {name: value for name, value in stats.to_dict().items() if name.endswith("_seconds")}
    if seen := on_card(profiled(call)):  # or it was not busy for all that the profiler knows
        card["busy_share"] = busy_seconds(seen) / seconds


@ON_CUDA
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("label_count", [5, 25])
@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.timeout(1_800)
def bench_gpu_card(race: Race, name: str, label_count: int, dtype: str, size: str, device: str) -> None:
    """Ours alone, in full swing: `gliner` need not run here."""
    texts = distinct_texts(name, max(32, round(FULL_SWING[dtype] * TEXTS[name] * SCALE)))
    labels, model = labels_of(label_count), ours_of(size, dtype, device)
    assert model.model.reads_packed, "these figures are those of packed texts: they need Triton and a card since Ampere"
    figures = race.benchmark.extra_info
    figures |= {"machine": dict(race.machine), "conditions": {"corpus": name, "labels": label_count, "dtype": dtype}}
    figures["card"] = {}
    # First: without a round there is no entry for the figures, if what follows fails or is cut short.
    race.benchmark.pedantic(lambda: model.inference(texts, labels, threshold=THRESHOLD), rounds=1)
    add_card_figures(figures["card"], model, texts, labels, dtype)


@ON_CUDA
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("label_count", [5, 25, 100])
@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.timeout(1_800)
def bench_gpu(race: Race, name: str, label_count: int, dtype: str, size: str, device: str) -> None:
    count = max(32, round(IN_RACE * TEXTS[name] * SCALE))
    texts, labels = distinct_texts(name, count), labels_of(label_count)
    model, shipped = ours_of(size, dtype, device), reference(size, device)
    assert model.model.reads_packed, "these figures are those of packed texts: they need Triton and a card since Ampere"

    def ours() -> Answers:
        answers: Answers = model.inference(texts, labels, threshold=THRESHOLD)
        return answers

    def as_shipped() -> Answers:
        answers: Answers = shipped.inference(texts, labels, threshold=THRESHOLD)
        return answers

    agreement, is_enough = agreement_of(
        ours, as_shipped, lambda index: near_misses(shipped, texts[index], labels), dtype
    )
    batch_size = best_batch_size(name, label_count, size, device)
    best = best_reference(size, device)
    rivals = {f"gliner fp16, batch {batch_size}": lambda: inference_sorted(best, texts, labels, batch_size)}
    race.run(
        ours,
        {"gliner as shipped": as_shipped, **rivals},
        fewest_rounds=FEWEST_ROUNDS,
        agreement=agreement,
        **words_of(texts, corpus=name, labels=label_count, size=size, threshold=THRESHOLD, dtype=dtype),
    )
    assert is_enough, agreement


@ON_CUDA
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.timeout(1_800)
def bench_gpu_compiled(race: Race, name: str, size: str, device: str) -> None:
    """Ours in bf16 beside `gliner` in fp16, sorted, with its DeBERTa compiled, which takes a minute for each size."""
    texts, labels = distinct_texts(name, max(32, round(IN_RACE * TEXTS[name] * SCALE))), labels_of(5)
    model, shipped = ours_of(size, "bf16", device), reference(size, device)
    batch_size = best_batch_size(name, len(labels), size, device, compiled="default")
    compiled = best_reference(size, device, compiled="default")

    def ours() -> Answers:
        answers: Answers = model.inference(texts, labels, threshold=THRESHOLD)
        return answers

    exact = shipped.inference(texts, labels, threshold=THRESHOLD)
    agreement, is_enough = agreement_of(ours, lambda: exact, lambda _: [], "bf16")
    race.run(
        ours,
        {f"gliner fp16 compiled, batch {batch_size}": lambda: inference_sorted(compiled, texts, labels, batch_size)},
        fewest_rounds=FEWEST_ROUNDS,
        agreement=agreement,
        **words_of(texts, corpus=name, labels=len(labels), size=size, threshold=THRESHOLD, dtype="bf16"),
    )
    assert is_enough, agreement


@ON_CUDA
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["short", "mixed"])
@pytest.mark.timeout(1_800)
def bench_gpu_attentions(race: Race, name: str, size: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours in bf16 beside `gliner` in fp16 with other people's attention, and beside ours with one of them."""
    texts, labels = distinct_texts(name, max(32, round(IN_RACE * TEXTS[name] * SCALE))), LABELS[:5]
    model = ours_of(size, "bf16", device)
    encoder = model.model.encoder
    assert isinstance(encoder, DebertaEncoder)
    peers = gpu_peers(encoder.config.hidden_size // encoder.config.heads)
    if not peers:
        pytest.skip("neither flashdeberta nor disentangled-flash is installed: carry the wheels of `make gpu-wheels`")
    shipped = reference(size, device)

    def ours(executor: str = "") -> Answers:
        with monkeypatch.context() as patched:
            patched.setenv(ATTENTION, executor)  # which is read at each call
            answers: Answers = model.inference(texts, labels, threshold=THRESHOLD)
        return answers

    exact = shipped.inference(texts, labels, threshold=THRESHOLD)
    calls, agreements = {}, {}
    for peer, load in peers.items():
        try:
            loaded = load(checkpoint(size), device)
            batch_size = fastest_batch_size(partial(inference_sorted, loaded, texts[:IN_TRIAL], labels), device)
        except Exception as error:  # noqa: BLE001  # one that does not run here should not cost the others their figures
            agreements[peer] = f"does not run: {error}"
            continue
        calls[f"gliner fp16 with {peer}, batch {batch_size}"] = partial(
            inference_sorted, loaded, texts, labels, batch_size
        )
    if "disentangled-flash" in peers:
        calls["ours with disentangled-flash"] = partial(ours, "disentangled-flash")
    race.benchmark.extra_info["peers"] = dict(agreements)
    agreements = {rival: told(keys_of(call()), keys_of(exact)) for rival, call in calls.items()}
    agreement, is_enough = agreement_of(ours, lambda: exact, lambda _: [], "bf16")
    race.run(
        ours,
        calls,
        fewest_rounds=FEWEST_ROUNDS,
        agreement=agreement,
        agreements=agreements,
        **words_of(texts, corpus=name, labels=len(labels), size=size, threshold=THRESHOLD, dtype="bf16"),
    )
    assert is_enough, agreement


@ON_CUDA
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.timeout(1_800)
def bench_gpu_latency(race: Race, dtype: str, size: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One text at a time, with and without CUDA graphs."""
    best = best_reference(size, device)
    race_one_by_one(race, dtype, size, device, monkeypatch, {"gliner fp16": best})


@ON_CUDA
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])  # the second records CUDA graphs, as ours can
@pytest.mark.timeout(1_800)
def bench_gpu_latency_compiled(race: Race, mode: str, size: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in bf16 beside `gliner` with its DeBERTa compiled, which takes a minute for each size and mode."""
    compiled = best_reference(size, device, compiled=mode)
    race_one_by_one(race, "bf16", size, device, monkeypatch, {f"gliner fp16 compiled, {mode}": compiled})


def race_one_by_one(
    race: Race, dtype: str, size: str, device: str, monkeypatch: pytest.MonkeyPatch, others: dict[str, Any]
) -> None:
    """Races ours, with and without CUDA graphs, against the reference as shipped and others, one text at a time."""
    texts, labels = distinct_texts("short", 16), LABELS[:5]
    model, shipped = ours_of(size, dtype, device), reference(size, device)

    def one_by_one(predictor: Any) -> Answers:
        return [predictor.predict_entities(text, labels, threshold=THRESHOLD) for text in texts]

    def recorded() -> Answers:
        with monkeypatch.context() as patched:
            patched.setenv(GRAPHS, "1")  # which is read at each call
            return one_by_one(model)

    agreement, is_enough = agreement_of(
        lambda: one_by_one(model),
        lambda: one_by_one(shipped),
        lambda index: near_misses(shipped, texts[index], labels),
        dtype,
    )
    race.run(
        lambda: one_by_one(model),
        {
            "gliner as shipped": lambda: one_by_one(shipped),
            **{name: partial(one_by_one, other) for name, other in others.items()},
            "ours with CUDA graphs": recorded,
        },
        agreement=agreement,
        agreements={"ours with CUDA graphs": told(keys_of(recorded()), keys_of(one_by_one(shipped)))},
        amount=len(texts),
        unit="texts",
        labels=len(labels),
        size=size,
        threshold=THRESHOLD,
        dtype=dtype,
    )
    assert is_enough, agreement
