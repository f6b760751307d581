"""The Triton kernel of disentangled attention against its plain reference, and that against transformers' formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gliner_fast.encoders.deberta_config import DebertaConfig, position_rows
from gliner_fast.kernels import _triton
from gliner_fast.kernels import disentangled_attention as module
from gliner_fast.kernels._triton import INTERPRETED, Card
from gliner_fast.kernels.attention_reference import Positions, disentangled_attention_reference
from gliner_fast.kernels.disentangled_attention import HEAD_DIMS, Blocks, disentangled_attention
from tests.device_waits import no_wait
from tests.encoders.test_deberta import SETTINGS
from tests.kernels.spans import DEVICES, DTYPES, CountingKernel, assert_close_to_exact, needs_triton

pytestmark = needs_triton

# Each side of a tile's end, of where distances get log-bucketed (128) and of the table's end (512).
HOSTILE = [1, 2, 63, 64, 65, 127, 128, 129, 130, 255, 256, 257, 512, 700]
# The interpreter's time grows with the square of the length: there the longest have one width and dtype each, in turn.
HOSTILE_CASES = [
    (length, *variant)
    for turn, length in enumerate(HOSTILE)
    for place, variant in enumerate(product([32, 64], DTYPES))
    if not INTERPRETED or length < 255 or place == turn % 6
]
MIXED = [33, 1, 64, 2, 70, 31]


class Layer:
    """Random inputs of one layer: scores of about unit size, so that the softmax is neither flat nor one-hot."""

    def __init__(
        self, lengths: list[int], head_dim: int, *, heads: int = 2, dtype: torch.dtype = torch.float32,
        device: str = "cpu", kinds: tuple[str, ...] = ("c2p", "p2c"), buckets: int = 256, window: int | None = None,
        biased: bool = False,
    ) -> None:  # fmt: skip
        config = DebertaConfig.read({**SETTINGS, "position_buckets": buckets, "max_position_embeddings": 512})
        generator = torch.Generator().manual_seed(0)

        def normal(*size: int) -> Tensor:
            return torch.randn(*size, generator=generator)

        self.scale = 1 / math.sqrt(3 * head_dim)
        self.lengths, self.window = lengths, window
        qkv = normal(sum(lengths), 3, heads, head_dim)
        keys, queries = normal(2, heads, 2 * config.span, head_dim) * self.scale
        rows = position_rows(max(lengths), config).int()
        self.qkv = qkv.to(device, dtype)
        self.positions = Positions(
            keys.to(device, dtype) if "c2p" in kinds else None,
            queries.to(device, dtype) if "p2c" in kinds else None,
            rows.to(device),
            normal(heads, len(rows)).to(device) if biased else None,
        )

    def attend(self, **options: bool) -> Tensor:
        offsets = torch.tensor([0, *accumulate(self.lengths)], device=self.qkv.device)
        longest = max(self.lengths, default=0)
        return disentangled_attention(
            self.qkv,
            self.positions,
            longest=longest,
            offsets=offsets,
            scale=self.scale,
            window=self.window,
            **options,
        )

    def plain(self) -> Tensor:
        return disentangled_attention_reference(
            self.qkv, self.positions, lengths=self.lengths, scale=self.scale, window=self.window
        )

    def exact(self) -> Tensor:
        keys, queries = (
            None if part is None else part.double() for part in (self.positions.keys, self.positions.queries)
        )
        biases = self.positions.biases
        positions = Positions(keys, queries, self.positions.rows, None if biases is None else biases.double())
        return disentangled_attention_reference(
            self.qkv.double(), positions, lengths=self.lengths, scale=self.scale, window=self.window
        )

    def check(self) -> None:
        assert_close_to_exact(self.attend(), self.plain(), self.exact())


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> CountingKernel:
    counting = CountingKernel(module._disentangled_attention_kernel)
    monkeypatch.setattr(module, "_disentangled_attention_kernel", counting)
    return counting


# --- the reference ----------------------------------------------------------------------------------------------------


def test_the_reference_is_the_paper_s_sum_over_each_pair():
    layer = Layer([7, 3], 16, buckets=4)
    found, at = layer.plain(), 0
    config = DebertaConfig.read({**SETTINGS, "position_buckets": 4, "max_position_embeddings": 512})
    for length in layer.lengths:
        query, key, value = layer.qkv[at : at + length].unbind(1)  # each (L, H, d)
        for head in range(2):
            scores = torch.empty(length, length)
            for i in range(length):
                for j in range(length):
                    row = position_rows(8, config)[i - j + 7]
                    scores[i, j] = (
                        layer.scale * query[i, head] @ key[j, head]
                        + query[i, head] @ layer.positions.keys[head, row]
                        + key[j, head] @ layer.positions.queries[head, row]
                    )
            torch.testing.assert_close(found[at : at + length, head], scores.softmax(-1) @ value[:, head])
        at += length


@pytest.mark.parametrize("window", [0, 2, 9])
def test_the_reference_sees_what_is_near_alone(window: int):
    layer = Layer([7, 3], 16, kinds=(), window=window)
    found, at = layer.plain(), 0
    for length in layer.lengths:
        query, key, value = layer.qkv[at : at + length].unbind(1)  # each (L, H, d)
        for i in range(length):
            seen = slice(max(0, i - window), i + window + 1)
            scores = torch.einsum("hd,jhd->hj", query[i], key[seen]) * layer.scale
            expected = torch.einsum("hj,jhd->hd", scores.softmax(-1), value[seen])
            torch.testing.assert_close(found[at + i], expected)
        at += length


@pytest.mark.parametrize("kinds", [("c2p", "p2c"), ()], ids=str)
def test_the_reference_adds_what_a_distance_has(kinds: tuple[str, ...]):
    layer = Layer([7, 3], 16, kinds=kinds, biased=True)
    biases = layer.positions.biases
    found, at = layer.plain(), 0
    # Each score times its exponential: what is added becomes a factor of the weights.
    layer.positions = Positions(layer.positions.keys, layer.positions.queries, layer.positions.rows)
    for length in layer.lengths:
        own = Layer([length], 16)
        own.qkv, own.positions = layer.qkv[at : at + length].clone(), layer.positions
        own.qkv[:, 2] = 0
        weights = torch.empty(2, length, length)
        for j in range(length):  # weights, by values that are 1 for one key alone
            own.qkv[:, 2] = 0
            own.qkv[j, 2] = 1
            weights[:, :, j] = own.plain()[:, :, 0].T
        for i in range(length):
            for j in range(length):
                weights[:, i, j] *= biases[:, i - j + 6].exp()
        weights /= weights.sum(-1, keepdim=True)
        expected = torch.einsum("hij,jhd->ihd", weights, layer.qkv[at : at + length, 2])
        torch.testing.assert_close(found[at : at + length], expected)
        at += length


# --- the kernel -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("length", "head_dim", "dtype"), HOSTILE_CASES, ids=str)
def test_the_kernel_is_as_good_as_plain_torch(
    length: int, head_dim: int, dtype: torch.dtype, device: str, kernel: CountingKernel, monkeypatch: pytest.MonkeyPatch
):
    if INTERPRETED and length > 2:  # which takes as long for a small tile as for a large one; still several a text
        blocks = module.Blocks(64, warps=4, stages=1)
        monkeypatch.setattr(module, "_choose_blocks", lambda *_, **__: blocks)
    layer = Layer([length], head_dim, heads=1, dtype=dtype, device=device)
    ours = layer.attend()
    assert kernel.launches == 1
    assert (ours.dtype, ours.shape) == (dtype, (length, 1, head_dim))
    assert_close_to_exact(ours, layer.plain(), layer.exact())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_texts_of_all_lengths_share_a_batch(head_dim: int, dtype: torch.dtype, device: str, kernel: CountingKernel):
    layer = Layer(MIXED, head_dim, heads=1, dtype=dtype, device=device)
    layer.check()
    assert kernel.launches == 1


@pytest.mark.parametrize("device", DEVICES)
def test_a_text_beyond_1_024_subwords(device: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_choose_blocks", lambda *_, **__: module.Blocks(64, warps=4, stages=1))
    Layer([1_100], 16, heads=1, device=device).check()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kinds", [("c2p",), ("p2c",), ()], ids=str)
@pytest.mark.parametrize("buckets", [256, 16, -1])
def test_every_kind_of_positions(kinds: tuple[str, ...], buckets: int, device: str):
    Layer([3, 40], 32, heads=1, kinds=kinds, buckets=buckets, device=device).check()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rows", "window"), [(16, 0), (16, 15), (16, 33), (32, 7), (64, 64), (64, 2**31 - 1)])
def test_what_is_near_alone(rows: int, window: int, dtype: torch.dtype, device: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_choose_blocks", lambda *_, **__: module.Blocks(rows, warps=4, stages=1))
    Layer([100, 1, 33, 16, 70], 16, heads=1, dtype=dtype, device=device, kinds=(), window=window).check()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("rows", "kinds", "window"), [(16, (), None), (32, ("c2p", "p2c"), None), (64, (), 20)], ids=str
)
def test_what_a_distance_has_is_added(
    rows: int,
    kinds: tuple[str, ...],
    window: int | None,
    dtype: torch.dtype,
    device: str,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(module, "_choose_blocks", lambda *_, **__: module.Blocks(rows, warps=4, stages=1))
    lengths = [rows + 4, 1, 33, 16, 20]  # one of two tiles
    layer = Layer(lengths, 16, dtype=dtype, device=device, kinds=kinds, window=window, biased=True)
    layer.check()
    zeros = torch.zeros_like(layer.positions.biases)
    layer.positions = replace(layer.positions, biases=None)
    without = layer.attend()
    assert (without - layer.exact()).abs().max() < 0.1
    layer.positions = replace(layer.positions, biases=zeros)
    # Equal in the interpreter; a compiler may lay out the two kernels' sums differently, which then round differently.
    some = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(layer.attend(), without, rtol=some, atol=some)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("rows", [16, 32, 64])
def test_what_a_distance_has_is_added_at_each_end_of_a_tile(
    rows: int, window: int | None, device: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "_choose_blocks", lambda *_, **__: module.Blocks(rows, warps=4, stages=1))
    lengths = [1, 2, *(tiles * rows + over for tiles in (1, 2) for over in (-1, 0, 1))]
    layer = Layer(lengths, 16, heads=2, device=device, kinds=(), window=window, biased=True)
    layer.positions = replace(layer.positions, biases=4 * layer.positions.biases)  # they decide who is seen
    layer.check()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_a_distance_has_may_reach_further_than_the_texts(dtype: torch.dtype, device: str):
    layer = Layer([40, 9], 16, dtype=dtype, device=device, kinds=(), biased=True)
    expected = layer.attend()
    rows, biases = torch.zeros(199, dtype=torch.int32, device=device), torch.full((2, 199), 1e4, device=device)
    biases[:, 60:139] = layer.positions.biases
    layer.positions = Positions(None, None, rows, biases)
    assert torch.equal(layer.attend(), expected)


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=10)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=3).filter(any),
    heads=st.integers(1, 2),
    head_dim=st.sampled_from(HEAD_DIMS),
)
def test_any_small_batch(lengths: list[int], heads: int, head_dim: int, device: str):
    Layer(lengths, head_dim, heads=heads, device=device).check()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rows", [16, 32, 64])
def test_any_tile_gives_the_same(rows: int, device: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_choose_blocks", lambda *_, **__: module.Blocks(rows, warps=4, stages=1))
    Layer([33, 5, 64], 32, heads=1, device=device).check()


@pytest.mark.parametrize("device", DEVICES)
def test_a_text_has_the_same_bits_whatever_texts_are_around_it(device: str, monkeypatch: pytest.MonkeyPatch):
    # Short texts alone have blocks of their own, for which the compiler may take other instructions.
    monkeypatch.setattr(module, "MEASURED_BLOCKS", {})
    monkeypatch.setattr(module, "default_blocks", lambda *_: Blocks(32, warps=2, stages=1))
    layer = Layer(MIXED, 32, heads=1, dtype=torch.float16, device=device)
    parts = layer.attend().split(MIXED)
    for text, part in enumerate(parts):
        alone = Layer([MIXED[text]], 32, heads=1, dtype=torch.float16, device=device)
        alone.qkv, alone.positions = layer.qkv.split(MIXED)[text], layer.positions
        assert torch.equal(alone.attend(), part)


def fill_outputs(monkeypatch: pytest.MonkeyPatch, change: Callable[[Tensor], Tensor]) -> None:
    """Changes what the launch function is given as memory for its result."""
    new_empty = Tensor.new_empty

    def changed(like: Tensor, *size: int, **options: object) -> Tensor:
        fresh = new_empty(like, *size, **options)
        return change(fresh) if like.dim() == 4 and fresh.dim() == 3 else fresh

    monkeypatch.setattr(Tensor, "new_empty", changed)


# NumPy, which the interpreter computes with, of what is no number.
@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning", "ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("device", DEVICES)
def test_only_its_own_text_is_read_and_every_row_is_written(device: str, monkeypatch: pytest.MonkeyPatch):
    layer = Layer([33, 20, 64], 32, heads=1, device=device)
    expected = layer.attend()
    poisoned = layer.qkv.clone()
    poisoned[:33] = math.nan
    poisoned[53:] = math.nan
    layer.qkv = poisoned
    fill_outputs(monkeypatch, lambda out: out.fill_(math.inf))
    ours = layer.attend()
    assert torch.equal(ours[33:53], expected[33:53])
    assert ours[:33].isnan().all()
    assert ours[53:].isnan().all()


@pytest.mark.parametrize("device", DEVICES)
def test_nothing_beyond_the_output_is_written(device: str, monkeypatch: pytest.MonkeyPatch):
    layer = Layer([30, 3], 16, heads=1, device=device)
    room = torch.full((33 + 64, 1, 16), 7.0, device=device)
    fill_outputs(monkeypatch, lambda _: room[:33])
    layer.attend()
    assert (room[33:] == 7).all()
    assert (room[:33] != 7).any(-1).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("window", [None, 0, 20])  # of a subword that sees itself alone the score may be far below 0
def test_scores_far_apart_overflow_nothing(window: int | None, device: str):
    layer = Layer([70, 1], 16, device=device, kinds=("c2p", "p2c") if window is None else (), window=window)
    layer.qkv[:, :2] *= 100  # scores of some thousands, whose exponentials no float holds
    layer.qkv[70, 0] = -layer.qkv[70, 1]  # the only one of its text
    ours = layer.attend()
    assert ours.isfinite().all()
    assert (ours - layer.exact()).abs().max() < 1e-2


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_sums_of_16_bits_are_rounded_once(dtype: torch.dtype, device: str):
    layer = Layer([300], 16, heads=1, dtype=dtype, device=device, kinds=())
    layer.qkv[:, 0] = 0  # all keys weigh the same, which no rounding changes
    layer.qkv[:, 2] += 3
    exact = layer.exact()
    assert ((layer.attend() - exact).abs() <= 0.51 * torch.finfo(dtype).eps * exact.abs()).all()


@pytest.mark.parametrize("device", DEVICES)
def test_rows_may_reach_further_than_the_texts(device: str):
    layer = Layer([40, 9], 16, device=device)
    expected = layer.attend()
    config = DebertaConfig.read({**SETTINGS, "position_buckets": 256, "max_position_embeddings": 512})
    rows = position_rows(128, config).int().to(device)
    layer.positions = Positions(layer.positions.keys, layer.positions.queries, rows)
    assert torch.equal(layer.attend(), expected)


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_given_need_not_lie_one_after_another(device: str):
    layer = Layer([40, 9], 16, device=device, biased=True)
    expected = layer.attend()
    apart = [part.mT.contiguous().mT for part in (layer.qkv, *vars(layer.positions).values()) if part.dim() > 1]
    assert not any(part.is_contiguous() for part in apart)
    layer.qkv, keys, queries, biases = apart
    layer.positions = Positions(keys, queries, layer.positions.rows, biases)
    assert torch.equal(layer.attend(), expected)


@pytest.mark.parametrize("device", DEVICES)
def test_no_subwords_start_nothing(device: str, kernel: CountingKernel):
    layer = Layer([1], 16, device=device)
    layer.qkv, layer.lengths = layer.qkv[:0], [0]
    assert layer.attend().shape == (0, 2, 16)
    layer.lengths = []
    assert layer.attend().shape == layer.plain().shape == (0, 2, 16)
    assert kernel.launches == 0


# --- what is refused --------------------------------------------------------------------------------------------------


def test_other_dtypes_are_refused():
    layer = Layer([2], 16, dtype=torch.float64)
    with pytest.raises(TypeError, match=r"qkv is torch\.float64: expected float32, float16 or bfloat16"):
        layer.attend()


def test_other_heads_are_refused():
    with pytest.raises(ValueError, match=r"heads are 24 wide: the kernel takes \(16, 32, 64\)"):
        Layer([2], 24).attend()


def test_positions_that_do_not_reach_the_ends_of_a_text_are_refused():
    layer = Layer([5], 16)
    layer.qkv, layer.lengths = torch.cat([layer.qkv, layer.qkv[:1]]), [6]
    with pytest.raises(ValueError, match=r"a text has 6 subwords, and positions\.rows reaches 5"):
        layer.attend()


@pytest.mark.parametrize("shape", [(2, 7), (1, 9)])
def test_biases_of_other_distances_are_refused(shape: tuple[int, int]):
    layer = Layer([5], 16)
    layer.positions = replace(layer.positions, biases=torch.zeros(shape))
    with pytest.raises(ValueError, match=r"positions\.biases is \(., .\): expected \(2, 9\), heads, distances"):
        layer.attend()


def test_a_window_where_distances_have_scores_is_refused():
    with pytest.raises(ValueError, match="distances have scores: the kernel then sees all of a text"):
        Layer([5], 16, kinds=("p2c",), window=3).attend()


def test_a_cpu_without_the_interpreter_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_triton, "INTERPRETED", False)
    with pytest.raises(ValueError, match="qkv is on cpu: the kernel needs Triton and a CUDA device, or TRITON"):
        Layer([2], 16).attend()


def test_measured_blocks_come_before_the_default(monkeypatch: pytest.MonkeyPatch):
    qkv = torch.empty(4, 3, 2, 64, dtype=torch.bfloat16)
    own, card = module.ShapeClass(16, 64, has_positions=True, is_short=False), Card("a card", 8)
    assert module._choose_blocks(qkv, 33, card, has_positions=True) == module.default_blocks(own, 8)
    best = module.Blocks(64, warps=8, stages=3)
    monkeypatch.setitem(module.MEASURED_BLOCKS, "a card", {own: best})
    assert module._choose_blocks(qkv, 33, card, has_positions=True) == best
    for longest, has_positions in ((32, True), (33, False)):
        others = module.default_blocks(own._replace(has_positions=has_positions, is_short=longest <= 32), 8)
        assert module._choose_blocks(qkv, longest, card, has_positions=has_positions) == others != best


# --- on a card --------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_tf32_is_used_only_where_allowed():
    layer = Layer(MIXED, 64, device="cuda")
    assert (layer.attend() - layer.exact()).abs().max() < 1e-5
    assert 1e-5 < (layer.attend(allow_tf32=True) - layer.exact()).abs().max() < 1e-2


@pytest.mark.gpu
def test_the_host_waits_for_nothing():
    layer = Layer(MIXED, 64, dtype=torch.bfloat16, device="cuda")
    offsets = torch.tensor([0, *accumulate(MIXED)], device="cuda")

    def attend() -> None:
        disentangled_attention(layer.qkv, layer.positions, longest=max(MIXED), offsets=offsets, scale=layer.scale)

    attend()  # compiles
    with no_wait():
        attend()


@pytest.mark.gpu
def test_offsets_beyond_2_to_the_31():
    heads, head_dim, length = 16, 64, 512
    texts = 2**31 // (3 * heads * head_dim * length) + 2
    layer = Layer([length], head_dim, heads=heads, dtype=torch.bfloat16, device="cuda")
    expected = layer.attend()
    layer.qkv = layer.qkv.repeat(texts, 1, 1, 1)
    layer.lengths = [length] * texts
    assert layer.qkv.numel() > 2**31
    assert torch.equal(layer.attend()[-length:], expected)
