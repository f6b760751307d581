"""The Triton span scorer's dense logits against the plain reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gliner_fast.kernels import _triton, span_tiling
from gliner_fast.kernels import span_scores as module
from gliner_fast.kernels.span_reference import span_scores_reference
from gliner_fast.kernels.span_scores import span_scores
from tests.device_waits import no_wait
from tests.kernels.spans import (
    DEVICES,
    DTYPES,
    LONG,
    SHAPES,
    CountingKernel,
    assert_close_to_exact,
    needs_triton,
    random_batch,
)

pytestmark = needs_triton


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> CountingKernel:
    counting = CountingKernel(module._span_scores_kernel)
    monkeypatch.setattr(module, "_span_scores_kernel", counting)
    return counting


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_kernel_is_as_good_as_plain_torch(shape, dtype: torch.dtype, device: str, kernel: CountingKernel):
    batch = random_batch(*shape, dtype=dtype, device=device)
    ours = span_scores(*batch.tensors, **batch.shape)
    assert kernel.launches == 1
    assert ours.dtype == dtype
    plain = span_scores_reference(*batch.tensors, **batch.shape)
    assert_close_to_exact(ours, plain, span_scores_reference(*batch.double, **batch.shape))


@pytest.mark.parametrize("device", DEVICES)
def test_a_text_of_10_000_words(device: str):
    batch = random_batch(*LONG, device=device)
    plain = span_scores_reference(*batch.tensors, **batch.shape)
    exact = span_scores_reference(*batch.double, **batch.shape)
    assert_close_to_exact(span_scores(*batch.tensors, **batch.shape), plain, exact)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_blocks_of_large_batches_give_the_same(
    dtype: torch.dtype, device: str, kernel: CountingKernel, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(span_tiling, "SMALL_BATCH", 0)
    batch = random_batch([50, 3], [20, 70], 12, 100, dtype=dtype, device=device)
    ours = span_scores(*batch.tensors, **batch.shape)
    assert kernel.launches == 1
    plain = span_scores_reference(*batch.tensors, **batch.shape)
    assert_close_to_exact(ours, plain, span_scores_reference(*batch.double, **batch.shape))


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=20)
@given(
    texts=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=4),
    max_width=st.sampled_from([1, 2, 3, 5, 12, 17]),
    hidden=st.sampled_from([1, 15, 40]),
)
def test_any_small_batch(texts: list[tuple[int, int]], max_width: int, hidden: int, device: str):
    batch = random_batch([w for w, _ in texts], [c for _, c in texts], max_width, hidden, device=device)
    plain = span_scores_reference(*batch.tensors, **batch.shape)
    exact = span_scores_reference(*batch.double, **batch.shape)
    assert_close_to_exact(span_scores(*batch.tensors, **batch.shape), plain, exact)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("counts", [([], []), ([0, 0], [3, 1]), ([4], [0])], ids=["no texts", "no words", "no types"])
def test_nothing_to_score_starts_nothing(counts, device: str, kernel: CountingKernel):
    batch = random_batch(*counts, 3, 8, device=device)
    assert span_scores(*batch.tensors, **batch.shape).shape == (0,)
    assert kernel.launches == 0


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy, which the interpreter computes with
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("operand", range(4), ids="uvgc")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_not_finite_spreads_as_in_torch(dtype: torch.dtype, operand: int, value: float, device: str):
    batch = random_batch([6, 3], [2, 3], 4, 20, dtype=dtype, device=device)
    batch.tensors[operand].view(-1)[3] = value
    ours, plain = span_scores(*batch.tensors, **batch.shape), span_scores_reference(*batch.tensors, **batch.shape)
    assert not torch.isfinite(plain).all()
    exact = span_scores_reference(*batch.double, **batch.shape)
    torch.testing.assert_close(plain[~torch.isfinite(exact)].double(), exact[~torch.isfinite(exact)], equal_nan=True)
    assert_close_to_exact(ours, plain, exact)


@pytest.mark.parametrize("device", DEVICES)
def test_any_layout_of_the_inputs_gives_the_same(device: str):
    batch = random_batch([7, 4], [2, 5], 3, 24, device=device)
    u, v, g, c = batch.tensors
    expected = span_scores(u, v, g, c, **batch.shape)
    halves = torch.cat([u, v], dim=1).chunk(2, dim=1)  # rows stand apart
    columns = tuple(tensor.mT.contiguous().mT for tensor in (u, v, g))
    every_other = torch.stack([c, c + 1], dim=1)[:, 0]
    for first, second, types, constants in ((*halves, g, c), (*columns, every_other)):
        ours = span_scores(first, second, types, constants, **batch.shape)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_logit_is_written_and_nothing_else(shape, device: str):
    batch = random_batch(*shape, device=device)
    tiling = span_tiling.cut_tiles(batch.tensors[0], *batch.shape.values())
    room = torch.full((tiling.logits + 200,), math.nan, device=device)
    module.launch(*batch.tensors, tiling, batch.shape["max_width"], room[100:-100], allow_tf32=False)
    assert room[100:-100].isnan().sum() == 0
    assert room[:100].isnan().all()
    assert room[-100:].isnan().all()


@pytest.mark.parametrize("device", DEVICES)
def test_a_text_reads_nothing_of_its_neighbours(device: str):
    batch = random_batch([4, 5], [2, 3], 6, 8, device=device)
    u, v, g, c = batch.tensors
    alone = span_scores(u[:4], v[:4], g[:2], c[:2], word_counts=[4], class_counts=[2], max_width=6)
    u[4:], v[4:], g[2:], c[2:] = (math.nan,) * 4
    both = span_scores(u, v, g, c, **batch.shape)
    torch.testing.assert_close(both[: len(alone)], alone, rtol=0, atol=0)


@pytest.mark.parametrize("device", DEVICES)
def test_tf32_is_used_when_asked_for_alone(device: str, kernel: CountingKernel):
    batch = random_batch([6], [3], 4, 64, device=device)
    exact = span_scores_reference(*batch.double, **batch.shape)
    finite = torch.isfinite(exact)
    loose = span_scores(*batch.tensors, **batch.shape, allow_tf32=True)
    assert (loose - exact)[finite].abs().max() < 1e-2
    assert (span_scores(*batch.tensors, **batch.shape) - exact)[finite].abs().max() < 1e-5


def test_other_dtypes_are_refused():
    batch = random_batch([2], [1], 2, 8)
    with pytest.raises(TypeError, match=r"u is torch\.float64: expected float32, float16 or bfloat16"):
        span_scores(*batch.double, **batch.shape)


def test_a_cpu_without_the_interpreter_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_triton, "INTERPRETED", False)
    batch = random_batch([2], [1], 2, 8)
    with pytest.raises(ValueError, match="u is on cpu: the kernel needs Triton and a CUDA device, or TRITON"):
        span_scores(*batch.tensors, **batch.shape)


# --- tiles ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_width", [1, 2, 3, 5, 9, 12, 13, 16, 17, 24, 100])
def test_a_tile_has_room_for_its_widths(max_width: int):
    tiling = span_tiling.cut_tiles(torch.empty(40, 8), [40], [3], max_width)
    assert tiling.starts + tiling.widths - 1 <= tiling.ends <= 16
    assert tiling.widths * len(tiling.tile_texts) >= max_width
    assert all(size & (size - 1) == 0 for size in (tiling.starts, tiling.ends, tiling.groups))


@pytest.mark.parametrize(
    ("words", "types", "dtype", "warps"),
    [(40, 5, torch.float32, 4), (4096, 5, torch.bfloat16, 4), (4096, 32, torch.bfloat16, 8),
     (4096, 64, torch.bfloat16, 16), (4096, 100, torch.bfloat16, 8), (100, 100, torch.bfloat16, 8)],
)  # fmt: skip
def test_a_thread_keeps_few_hits_where_rows_suffice_for_more_warps(
    words: int, types: int, dtype: torch.dtype, warps: int
):
    assert span_tiling.cut_tiles(torch.empty(words, 8, dtype=dtype), [words], [types], 12).hit_warps == warps


def test_more_warps_get_no_more_registers_than_there_are(monkeypatch: pytest.MonkeyPatch):
    u = torch.empty(4096, 8, dtype=torch.bfloat16)
    for measured, allowed in ((168, 128), (96, 96), (None, None)):
        blocks = span_tiling.Blocks(256, 64, 32, warps=8, stages=4, registers=measured)
        monkeypatch.setitem(span_tiling.MEASURED_BLOCKS, "", {span_tiling.shape_class(u, 64): blocks})
        tiling = span_tiling.cut_tiles(u, [4096], [64], 12)
        assert (tiling.hit_warps, tiling.hit_registers) == (16, allowed)


def test_counts_may_be_of_numpy():
    counts = np.array([40, 20])
    ours, plain = (span_tiling.cut_tiles(torch.empty(60, 8), given, given, 12) for given in (counts, counts.tolist()))
    assert torch.equal(ours.texts, plain.texts)
    assert (ours.blocks, ours.logits) == (plain.blocks, plain.logits)


def test_the_usual_width_wastes_a_quarter():
    tiling = span_tiling.cut_tiles(torch.empty(40, 8), [40], [3], 12)
    assert (tiling.starts, tiling.ends, tiling.widths) == (4, 16, 12)


def test_places_are_found_again_beyond_2_to_the_31():
    words, types, max_width = [10_000, 0, 10_000, 3], [20, 5, 1000, 2], 12
    tiling = span_tiling.cut_tiles(torch.empty(0, 8), words, types, max_width)
    assert tiling.logits == 10_000 * 12 * 20 + 10_000 * 12 * 1000 + 3 * 12 * 2
    scale = 40  # the third text's last block stands at 4.8e9
    tiling = span_tiling.cut_tiles(torch.empty(0, 8), [*words[:3], 10_000 * scale], [20, 5, 1000, 1000], max_width)
    places = [(0, 0, 0, 0), (0, 9_999, 11, 19), (2, 0, 0, 0), (2, 9_999, 11, 999), (3, 399_999, 11, 999)]
    first = [0, 2_400_000, 2_400_000, 122_400_000]
    sizes = [20, 5, 1000, 1000]
    keys = torch.tensor([first[b] + (i * max_width + k) * sizes[b] + t for b, i, k, t in places])
    assert keys[-1] > 2**31
    assert list(zip(*(part.tolist() for part in tiling.decode(keys, max_width)), strict=True)) == places


@pytest.mark.parametrize("max_width", [1, 2, 12, 16, 20])
def test_every_default_fits_the_shared_memory_of_small_cards(max_width: int):
    for own, blocks in span_tiling.DEFAULT_BLOCKS.items():
        words = 100 if own.is_small else 10_000
        u = torch.empty(words, 1, dtype=torch.float32 if own.bits == 32 else torch.bfloat16)
        tiling = span_tiling.cut_tiles(u, [words], [own.types], max_width)
        assert tiling.blocks == blocks
        words, pairs = (tiling.starts + tiling.ends) * tiling.groups, tiling.starts * tiling.ends * tiling.groups
        used = span_tiling.shared_bytes(u, blocks, words, pairs)
        assert used <= span_tiling.SHARED_BYTES


def test_shared_memory_is_that_of_the_rows_in_flight_or_of_the_sums():
    u = torch.empty(1, 1, dtype=torch.bfloat16)
    blocks = span_tiling.Blocks(128, 16, 32, warps=4, stages=3)
    assert span_tiling.shared_bytes(u, blocks, 20, 64) == (20 + 16) * 32 * 2 * 3
    assert span_tiling.shared_bytes(u.float(), blocks, 20, 64) == (20 + 16) * 32 * 4 * 3
    assert span_tiling.shared_bytes(u, blocks, 20, 1024) == 1024 * 16 * 4


def test_what_counts_hits_can_count_them_all():
    assert [module.count_dtype(most) for most in (0, 2**31 - 1, 2**31)] == [torch.int32, torch.int32, torch.int64]


def test_measured_blocks_come_before_the_default(monkeypatch: pytest.MonkeyPatch):
    u = torch.empty(10, 8)
    own = span_tiling.shape_class(u, 5)
    assert own == span_tiling.ShapeClass(32, 16, is_small=True)
    assert span_tiling.choose_blocks(u, 5, "a card") == span_tiling.DEFAULT_BLOCKS[own]
    best = span_tiling.Blocks(64, 16, 16, warps=4, stages=2)
    monkeypatch.setitem(span_tiling.MEASURED_BLOCKS, "a card", {own: best})
    assert span_tiling.choose_blocks(u, 5, "a card") == best
    assert span_tiling.choose_blocks(u, 17, "a card") == span_tiling.DEFAULT_BLOCKS[own._replace(types=32)]


@pytest.mark.gpu
def test_offsets_beyond_2_to_the_31():
    words, hidden = 720_000, 3_072  # u alone passes 2**31 numbers
    u, v = (torch.zeros(words, hidden, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    u[-5:], v[-5:] = torch.randn(2, 5, hidden, device="cuda", dtype=torch.bfloat16)
    g, c = torch.randn(2, hidden, device="cuda", dtype=torch.bfloat16) / 50, torch.zeros(2, device="cuda").bfloat16()
    ours = span_scores(u, v, g, c, word_counts=[words - 5, 5], class_counts=[1, 1], max_width=3)
    plain = span_scores_reference(u[-5:], v[-5:], g[1:], c[1:], word_counts=[5], class_counts=[1], max_width=3)
    exact = span_scores_reference(
        *(part.double() for part in (u[-5:], v[-5:], g[1:], c[1:])), word_counts=[5], class_counts=[1], max_width=3
    )
    assert_close_to_exact(ours[-15:], plain, exact)


@pytest.mark.gpu
def test_the_host_waits_for_nothing():
    batch = random_batch([30, 9], [5, 3], 12, 64, dtype=torch.bfloat16, device="cuda")
    span_scores(*batch.tensors, **batch.shape)  # compiles
    with no_wait():
        span_scores(*batch.tensors, **batch.shape)
