"""Candidates that the Triton span scorer picks on the device, against a filter over all logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gliner_fast.kernels import span_candidates as module
from gliner_fast.kernels import span_reference, span_tiling
from gliner_fast.kernels import span_scores as scores_module
from gliner_fast.kernels.pending_candidates import Room, SpanCandidates
from gliner_fast.kernels.span_reference import span_candidates_reference, span_scores_reference
from gliner_fast.kernels.span_scores import span_scores
from gliner_fast.scoring.probabilities import probabilities
from tests.device_waits import no_wait
from tests.kernels.spans import (
    DEVICES,
    DTYPES,
    EXTREME_LOGITS,
    LONG,
    PASSES_OF_EXTREME,
    SHAPES_AND_DTYPES,
    Batch,
    CountingKernel,
    constant_logits,
    needs_triton,
    random_batch,
)

pytestmark = needs_triton


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> CountingKernel:
    counting = CountingKernel(scores_module._span_scores_kernel)
    monkeypatch.setattr(scores_module, "_span_scores_kernel", counting)
    return counting


def span_candidates(*tensors: Tensor, **asked: Any) -> SpanCandidates:
    """The kernel's candidates, waited for, and on the device again. Thresholds may be on the device."""
    asked["thresholds"] = asked["thresholds"].cpu()
    found = module.span_candidates(*tensors, sigmoid=probabilities, **asked).wait()
    assert all(not part.is_cuda for part in vars(found).values())
    return SpanCandidates(*(part.to(tensors[0].device) for part in vars(found).values()))


def candidates_of_dense_logits(batch: Batch, **asked: Any) -> SpanCandidates:
    """What the reference picks from the kernel's own logits: those round as the candidates' do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(span_reference, "span_scores_reference", span_scores)
        return span_candidates_reference(*batch.tensors, **batch.shape, **asked)


def assert_same(ours: SpanCandidates, expected: SpanCandidates) -> None:
    """The same candidates in the same order.

    Scores may differ in the last bit: on a CPU torch's sigmoid of a number depends on whether it stands in the part of
    the tensor that is computed in vectors.
    """
    for name in ("texts", "starts", "widths", "types"):
        assert getattr(ours, name).dtype == torch.int64
        assert getattr(ours, name).tolist() == getattr(expected, name).tolist(), name
    assert ours.scores.dtype == expected.scores.dtype
    last_bit = 2 * torch.finfo(ours.scores.dtype).eps
    torch.testing.assert_close(ours.scores, expected.scores, rtol=last_bit, atol=0)


def test_the_reference_lists_what_a_loop_finds():
    batch = random_batch([4, 0, 2], [2, 3, 1], 3, 8, dtype=torch.float64)
    thresholds = torch.tensor([0.5, 0.2, 0, 0, 0, 0.6])
    allowed = torch.rand(6, 3, generator=torch.Generator().manual_seed(1)) > 0.3
    ours = span_candidates_reference(*batch.tensors, **batch.shape, thresholds=thresholds, allowed_spans=allowed)
    u, v, g, c = batch.tensors
    expected = []
    for text, first_word, words, first_type, types in ((0, 0, 4, 0, 2), (2, 4, 2, 5, 1)):
        for start in range(words):
            for width in range(min(3, words - start)):
                for type_ in range(types):
                    joined = (u[first_word + start] + v[first_word + start + width]).clamp(min=0)
                    score = torch.sigmoid(joined @ g[first_type + type_] + c[first_type + type_])
                    if score > thresholds[first_type + type_] and allowed[first_word + start, width]:
                        expected.append((text, start, width, type_, float(score)))
    found = [getattr(ours, name).tolist() for name in ("texts", "starts", "widths", "types")]
    assert list(zip(*found, strict=True)) == [row[:4] for row in expected]
    assert 3 < len(expected) < 15
    torch.testing.assert_close(ours.scores, torch.tensor([row[4] for row in expected], dtype=torch.float64))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("max_width", [1, 3, 12, 20])
def test_candidates_are_those_of_the_dense_logits(
    max_width: int, dtype: torch.dtype, device: str, kernel: CountingKernel
):
    batch = random_batch([25, 0, 1, 9], [3, 2, 40, 20], max_width, 40, dtype=dtype, device=device)
    thresholds = torch.linspace(0.5, 1.1, 65).to(device)
    ours = span_candidates(*batch.tensors, **batch.shape, thresholds=thresholds)
    assert kernel.launches == 1  # there is room for them all
    assert len(ours.scores) > 10
    assert_same(ours, candidates_of_dense_logits(batch, thresholds=thresholds))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("shape", "dtype"), SHAPES_AND_DTYPES)
def test_candidates_of_every_shape_are_those_of_the_dense_logits(shape, dtype: torch.dtype, device: str):
    batch = random_batch(*shape, dtype=dtype, device=device)
    words, types = len(batch.tensors[0]), len(batch.tensors[2])
    asked = {"thresholds": torch.linspace(0.6, 0.8, types).to(device)}
    if types < 10:  # half of the spans
        allowed = torch.rand(words, shape[2], generator=torch.Generator().manual_seed(0)) > 0.5
        asked["allowed_spans"] = allowed.to(device)
    ours = span_candidates(*batch.tensors, **batch.shape, **asked)
    assert_same(ours, candidates_of_dense_logits(batch, **asked))


@pytest.mark.parametrize("device", DEVICES)
def test_candidates_of_a_text_of_10_000_words(device: str):
    batch = random_batch(*LONG, device=device)
    logits = span_scores_reference(*batch.tensors, **batch.shape)
    threshold = logits[torch.isfinite(logits)].sigmoid().quantile(0.9) + 1e-5  # which is no span's score
    asked = {"thresholds": threshold.expand(3)}
    ours = span_candidates(*batch.tensors, **batch.shape, **asked)
    assert len(ours.scores) > 1_000
    assert int(ours.starts.max()) > 9_900
    assert_same(ours, candidates_of_dense_logits(batch, **asked))


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=10)
@given(
    texts=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 20)), max_size=3),
    max_width=st.sampled_from([1, 4, 12, 17]),
    seed=st.integers(0, 9),
)
def test_any_small_batch(texts: list[tuple[int, int]], max_width: int, seed: int, device: str):
    batch = random_batch([w for w, _ in texts], [c for _, c in texts], max_width, 15, device=device)
    generator = torch.Generator().manual_seed(seed)
    words, types = len(batch.tensors[0]), len(batch.tensors[2])
    thresholds = (torch.rand(types, generator=generator) * 1.2 - 0.1).to(device)
    allowed = (torch.rand(words, max_width, generator=generator) > 0.5).to(device)
    for asked in ({}, {"allowed_spans": allowed}):
        ours = span_candidates(*batch.tensors, **batch.shape, thresholds=thresholds, **asked)
        assert_same(ours, candidates_of_dense_logits(batch, thresholds=thresholds, **asked))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_score_equal_to_its_threshold_is_left_out(dtype: torch.dtype, device: str):
    logits = torch.cat([torch.linspace(-90, 90, 181), torch.linspace(-3, 3, 61)]).to(device, dtype)
    batch = constant_logits(logits)
    own = probabilities(logits.cpu()).to(device)
    # Neighbours in the working dtype: what torch lets through must get through, and nothing else.
    below = own.nextafter(torch.zeros_like(own)) if dtype is torch.float32 else own - own.abs() * torch.finfo(dtype).eps
    for thresholds in (own, below, own * (1 + torch.finfo(dtype).eps)):
        ours = span_candidates(*batch.tensors, **batch.shape, thresholds=thresholds.float())
        assert ours.types.tolist() == torch.where(own > thresholds)[0].tolist()
        torch.testing.assert_close(ours.scores, own[ours.types], rtol=0, atol=0)
    assert not len(span_candidates(*batch.tensors, **batch.shape, thresholds=own.float()).scores)
    assert len(span_candidates(*batch.tensors, **batch.shape, thresholds=below.float()).scores) > 100


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_a_sum_that_passes_once_it_is_rounded_is_found(dtype: torch.dtype, device: str):
    eps = torch.finfo(dtype).eps
    batch = constant_logits(torch.tensor([-8.0]).to(device, dtype))
    u, _, g, c = batch.tensors
    u[0, 0], g[0, 0] = 1, -3 * eps  # -8 is the nearest number
    own = probabilities(c.cpu())
    ours = span_candidates(*batch.tensors, **batch.shape, thresholds=(own - own * eps).float())
    assert ours.scores.tolist() == own.tolist()


@pytest.mark.parametrize("device", DEVICES)
def test_a_threshold_is_rounded_to_the_scores_dtype(device: str):
    logit = torch.tensor([0.3]).logit().to(device, torch.bfloat16)
    batch = constant_logits(logit)  # its sigmoid is 0.30078125, and so is 0.3 in bf16
    assert float(torch.sigmoid(logit)) > 0.3
    ours = span_candidates(*batch.tensors, **batch.shape, thresholds=torch.tensor([0.3], device=device))
    assert len(ours.scores) == 0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("threshold", "found"), PASSES_OF_EXTREME)
def test_logits_and_thresholds_that_are_not_finite(threshold: float, found: list[int], device: str):
    logits = EXTREME_LOGITS.to(device)
    batch = constant_logits(logits)
    thresholds = torch.full_like(logits, threshold)
    ours = span_candidates(*batch.tensors, **batch.shape, thresholds=thresholds)
    assert ours.types.tolist() == found
    assert_same(ours, span_candidates_reference(*batch.tensors, **batch.shape, thresholds=thresholds))


@pytest.mark.parametrize("device", DEVICES)
def test_a_threshold_below_zero_lets_no_span_past_the_end_in(device: str):
    batch = random_batch([3], [2], 5, 8, device=device)
    ours = span_candidates(*batch.tensors, **batch.shape, thresholds=torch.full((2,), -1.0, device=device))
    assert len(ours.scores) == (3 + 2 + 1) * 2
    assert bool((ours.starts + ours.widths < 3).all())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("room", "launches"), [(0, 2), (1, 2), (10**4, 1)])
def test_more_candidates_than_room_are_all_found(
    room: int, launches: int, device: str, kernel: CountingKernel, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Room, "of", lambda *_: room)
    batch = random_batch([30, 9], [5, 7], 6, 16, device=device)
    thresholds = torch.full((12,), 0.1, device=device)
    ours = span_candidates(*batch.tensors, **batch.shape, thresholds=thresholds)
    assert len(ours.scores) > 39
    assert kernel.launches == launches
    assert_same(ours, candidates_of_dense_logits(batch, thresholds=thresholds))


@pytest.mark.parametrize("device", DEVICES)
def test_batches_like_the_last_ones_have_room(device: str, kernel: CountingKernel):
    batch = random_batch([300, 90], [25, 25], 6, 16, device=device)
    asked = {"thresholds": torch.full((50,), 0.1, device=device), "room": Room()}
    for launches in (2, 3, 4):  # of the first, the kernel is launched twice
        found = span_candidates(*batch.tensors, **batch.shape, **asked)
        assert len(found.scores) > 1024 + 4 * 390
        assert kernel.launches == launches
    for _ in range(8):
        asked["room"].learn(0, 390)
    assert asked["room"].of(390, 10**9) == 1024 + 4 * 390  # one batch that needed much is forgotten
    assert asked["room"].of(390, 100) == 100


@pytest.mark.parametrize("device", DEVICES)
def test_two_runs_give_the_same_order(device: str):
    batch = random_batch([40, 40], [5, 5], 12, 16, device=device)
    asked = {"thresholds": torch.full((10,), 0.7, device=device)}
    first, second = (span_candidates(*batch.tensors, **batch.shape, **asked) for _ in range(2))
    assert len(first.scores) > 100
    assert_same(first, second)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("count_dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("capacity", [0, 1, 16, 48, 4096])
def test_hits_stay_in_their_room_and_all_are_counted(capacity: int, count_dtype: torch.dtype, device: str):
    batch = random_batch([30, 9], [5, 7], 6, 16, device=device)
    logits = span_scores(*batch.tensors, **batch.shape)
    wanted = torch.where(logits >= 1)[0].tolist()
    assert 48 < len(wanted) < 4096
    tiling = span_tiling.cut_tiles(batch.tensors[0], *batch.shape.values())
    keys, found = (torch.full((capacity + 200,), -7, device=device, dtype=own) for own in (torch.int64, torch.float32))
    count = torch.zeros(1, dtype=count_dtype, device=device)
    hits = scores_module.Hits(keys[100 : 100 + capacity], count, torch.ones(12, device=device), None)
    module.launch(*batch.tensors, tiling, 6, found[100 : 100 + capacity], allow_tf32=False, hits=hits)
    assert int(count) == len(wanted)
    used = 100 + min(capacity, len(wanted))
    own = keys[100:used].tolist()
    assert len(set(own)) == len(own) == used - 100
    assert set(own) <= set(wanted)
    torch.testing.assert_close(found[100:used], logits[own], rtol=0, atol=1e-6)
    for room in (keys, found):
        assert (room[:100] == -7).all()
        assert (room[used:] == -7).all()


@pytest.mark.parametrize("device", DEVICES)
def test_the_order_in_which_hits_find_their_places_does_not_show(device: str, monkeypatch: pytest.MonkeyPatch):
    batch = random_batch([40, 7], [5, 5], 12, 16, device=device)
    asked = {"thresholds": torch.full((10,), 0.7, device=device)}
    wanted = span_candidates(*batch.tensors, **batch.shape, **asked)
    launch, generator = module.launch, torch.Generator().manual_seed(0)

    def launch_and_shuffle(*inputs: Any, hits: Any, **options: Any) -> None:
        launch(*inputs, hits=hits, **options)
        logits, count = inputs[-1], int(hits.count)
        assert count <= len(hits.keys)
        order = torch.randperm(count, generator=generator).to(device)
        logits[:count] = logits[order]
        hits.keys[:count] = hits.keys[order]

    monkeypatch.setattr(module, "launch", launch_and_shuffle)
    assert len(wanted.scores) > 100
    for _ in range(3):
        ours = span_candidates(*batch.tensors, **batch.shape, **asked)
        assert all(torch.equal(getattr(ours, name), getattr(wanted, name)) for name in vars(wanted))


@pytest.mark.parametrize("device", DEVICES)
def test_places_beyond_2_to_the_31_are_kept(device: str):
    batch = random_batch([9], [5], 3, 16, device=device)
    thresholds = torch.full((5,), 0.6, device=device)
    wanted = span_candidates(*batch.tensors, **batch.shape, thresholds=thresholds)
    tiling = span_tiling.cut_tiles(batch.tensors[0], [9], [5], 3)
    first = 2**31 + 48
    tiling.texts[:, 5] += first  # as if texts with so many logits came before
    if device != "cpu":  # there they are the same
        tiling.texts_on_host[:, 5] += first
    keys = torch.full((256,), -1, device=device)
    hits = scores_module.Hits(keys, keys.new_zeros(1), module.logit_bounds(thresholds.cpu()).to(device), None)
    module.launch(*batch.tensors, tiling, 3, torch.empty(256, device=device), allow_tf32=False, hits=hits)
    own = keys[keys >= 0].sort().values
    cells = (wanted.starts * 3 + wanted.widths) * 5 + wanted.types
    assert len(own) > 10
    assert torch.equal(own - first, cells)
    for got, expected in zip(
        tiling.decode(own.cpu(), 3), (wanted.texts, wanted.starts, wanted.widths, wanted.types), strict=True
    ):
        assert torch.equal(got, expected.cpu())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("allowed", [True, False])
def test_spans_that_are_not_allowed_are_left_out(allowed: bool, device: str):
    batch = random_batch([6, 4], [2, 2], 3, 8, device=device)
    mask = torch.full((10, 3), not allowed, device=device)
    mask[7, 1] = allowed  # of the second text: its second and third word
    mask = mask.mT.contiguous().mT  # any layout gives the same
    ours = span_candidates(*batch.tensors, **batch.shape, thresholds=torch.zeros(4, device=device), allowed_spans=mask)
    spans = set(zip(ours.texts.tolist(), ours.starts.tolist(), ours.widths.tolist(), strict=True))
    assert ((1, 1, 1) in spans) is allowed
    assert len(spans) == (1 if allowed else 6 + 5 + 4 + 4 + 3 + 2 - 1)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("counts", [([], []), ([0, 0], [3, 1]), ([4], [0])], ids=["no texts", "no words", "no types"])
def test_nothing_to_score_gives_no_candidates(counts, device: str, kernel: CountingKernel):
    batch = random_batch(*counts, 3, 8, dtype=torch.float16, device=device)
    thresholds = torch.zeros(sum(counts[1]), device=device)
    ours = span_candidates(*batch.tensors, **batch.shape, thresholds=thresholds)
    assert kernel.launches == 0
    assert_same(ours, span_candidates_reference(*batch.tensors, **batch.shape, thresholds=thresholds))
    assert ours.scores.dtype == torch.float16


@pytest.mark.parametrize("device", DEVICES)
def test_places_that_no_candidate_takes_are_never_read(device: str):
    batch = random_batch([5], [2], 3, 8, device=device)
    thresholds = torch.full((2,), 0.6, device=device)
    expected = candidates_of_dense_logits(batch, thresholds=thresholds)
    try:
        torch.use_deterministic_algorithms(True)  # fills empty tensors with NaN and the greatest integer
        ours = span_candidates(*batch.tensors, **batch.shape, thresholds=thresholds)
    finally:
        torch.use_deterministic_algorithms(False)
    assert 0 < len(ours.scores) < 20
    assert_same(ours, expected)


@pytest.mark.parametrize("device", DEVICES)
def test_thresholds_that_the_host_would_have_to_wait_for_are_refused(device: str):
    batch = random_batch([5], [2], 3, 8, device=device)
    with pytest.raises(ValueError, match="thresholds are on meta: expected them on the CPU"):
        module.span_candidates(*batch.tensors, **batch.shape, thresholds=torch.full((2,), 0.6, device="meta"))


@pytest.mark.gpu
def test_places_of_one_text_beyond_2_to_the_31():
    words, types, max_width = 60_000, 3_000, 12
    batch = random_batch([words], [types], max_width, 16, dtype=torch.bfloat16, device="cuda")
    thresholds = torch.full((types,), 2.0)  # which nothing passes
    thresholds[-1] = -1.0  # and all spans this
    ours = span_candidates(*batch.tensors, **batch.shape, thresholds=thresholds)
    u, v, g, c = batch.tensors
    alone = Batch((u, v, g[-1:], c[-1:]), {**batch.shape, "class_counts": [1]})
    expected = span_candidates(*alone.tensors, **alone.shape, thresholds=thresholds[-1:])
    assert words * types * max_width > 2**31
    assert (ours.types == types - 1).all()
    assert torch.equal(ours.starts, expected.starts)
    assert torch.equal(ours.widths, expected.widths)
    torch.testing.assert_close(ours.scores, expected.scores, rtol=0, atol=0.02)  # blocks of other sizes


@pytest.mark.gpu
def test_the_search_waits_for_nothing():
    batch = random_batch([30, 9], [5, 3], 12, 64, dtype=torch.bfloat16, device="cuda")
    asked = {"thresholds": torch.full((8,), 0.9)}
    span_candidates(*batch.tensors, **batch.shape, **asked)  # compiles
    with no_wait():
        pending = module.span_candidates(*batch.tensors, **batch.shape, **asked)
    assert len(pending.wait().scores) > 0
