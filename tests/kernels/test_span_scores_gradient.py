"""The gradient of the span scores: plain torch and Triton beside what autograd makes of a sum written out."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from gliner_fast.kernels import span_reference
from gliner_fast.kernels._triton import INTERPRETED
from gliner_fast.kernels.span_reference import span_scores_gradient_reference
from gliner_fast.kernels.span_scores_gradient import span_scores_gradient as triton_gradient
from tests.installed import TRITON
from tests.kernels.spans import DTYPES, LONG, SHAPES_AND_DTYPES
from tests.kernels.spans import SHAPES as SHAPES_OF_ALL_PATHS

# Without a GPU the kernels run in Triton's interpreter (tests/conftest.py).
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu] if DEVICE == "cuda" else []
needs_triton = pytest.mark.skipif(DEVICE == "cpu" and not INTERPRETED, reason="needs Triton")
PATHS = [
    pytest.param(span_scores_gradient_reference, id="torch"),
    pytest.param(triton_gradient, id="triton", marks=[needs_triton]),
]

SHAPES = [
    # word counts, class counts, widest span, hidden units
    ([1], [1], 1, 1),
    ([5], [2], 12, 6),
    ([7, 1, 4], [2, 5, 1], 3, 70),  # more than one block of hidden units
    ([40, 3], [3, 17], 4, 20),  # more than one block of words, and of the least types
    ([3], [70], 2, 5),  # more than one block of the most types
    ([270, 3], [2, 1], 2, 3),  # sums of a long text in parts, with a short one beside it
    ([3, 0, 2], [2, 2, 0], 4, 9),
    ([], [], 2, 4),
]


class Inputs(NamedTuple):
    u: Tensor
    v: Tensor
    g: Tensor
    d_logits: Tensor


def draw(
    word_counts: list[int], class_counts: list[int], max_width: int, hidden: int, dtype: torch.dtype = torch.float64
) -> Inputs:
    """Random inputs; the gradient of what is past a text's end is NaN."""
    generator = torch.Generator().manual_seed(0)
    words, types = sum(word_counts), sum(class_counts)
    shapes = [(words, hidden), (words, hidden), (types, hidden)]
    u, v, g = (torch.randn(shape, generator=generator).to(DEVICE, dtype) for shape in shapes)
    inside = torch.isfinite(exact_scores(u, v, g, g.new_zeros(types), word_counts, class_counts, max_width))
    d_logits = torch.randn(len(inside), generator=generator).to(DEVICE, dtype)
    return Inputs(u, v, g, d_logits.masked_fill(~inside, math.nan))


def exact_scores(
    u: Tensor, v: Tensor, g: Tensor, c: Tensor, word_counts: list[int], class_counts: list[int], max_width: int
) -> Tensor:
    """Every span's ReLU and product as the formula says, in memory of spans x H."""
    blocks = [u.flatten()[:0]]
    texts = zip(*(x.split(word_counts) for x in (u, v)), *(x.split(class_counts) for x in (g, c)), strict=True)
    for own_u, own_v, own_g, own_c in texts if word_counts else ():
        words = len(own_u)
        end = torch.arange(words, device=u.device)[:, None] + torch.arange(max_width, device=u.device)  # (W, K)
        spans = (own_u[:, None] + own_v[end.clamp(max=max(0, words - 1))] if words else own_u[:, None]).relu()
        scores = torch.where((end < words)[..., None], spans @ own_g.T + own_c, -math.inf)  # (W, K, C)
        blocks.append(scores.reshape(-1))
    return torch.cat(blocks)


def autograd_gradient(
    inputs: Inputs, word_counts: list[int], class_counts: list[int], max_width: int
) -> tuple[Tensor, ...]:
    """What autograd makes of `exact_scores`, in the inputs' dtype."""
    u, v, g = (tensor.detach().clone().requires_grad_() for tensor in inputs[:3])
    c = g.new_zeros(len(g)).requires_grad_()
    scores = exact_scores(u, v, g, c, word_counts, class_counts, max_width)
    inside = torch.isfinite(scores)
    (scores[inside] * inputs.d_logits[inside]).sum().backward()
    return tuple(torch.zeros_like(x) if x.grad is None else x.grad for x in (u, v, g, c))


@pytest.mark.parametrize("gradient", PATHS)
@pytest.mark.parametrize(("word_counts", "class_counts", "max_width", "hidden"), SHAPES)
def test_gradients_are_those_of_autograd(gradient, word_counts, class_counts, max_width, hidden, monkeypatch):
    if gradient is triton_gradient and (DEVICE == "cuda" or TRITON < (3, 6)):
        pytest.skip(
            "a card's matrix units, and older ones of Triton, take no float64; the next test compares what they take"
        )
    monkeypatch.setattr(span_reference, "_BLOCK_ELEMENTS", 150)  # several blocks of the reference
    inputs = draw(word_counts, class_counts, max_width, hidden)
    ours = gradient(*inputs, word_counts=word_counts, class_counts=class_counts, max_width=max_width)
    for mine, wanted in zip(ours, autograd_gradient(inputs, word_counts, class_counts, max_width), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("gradient", PATHS)
@pytest.mark.parametrize(("shape", "dtype"), SHAPES_AND_DTYPES)
def test_the_error_is_at_most_twice_autograd_s(gradient, shape, dtype: torch.dtype):
    assert_as_good_as_autograd(gradient, *shape, dtype)


@pytest.mark.parametrize("gradient", PATHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_error_is_at_most_twice_autograd_s_where_all_sizes_are_odd(gradient, dtype: torch.dtype):
    assert_as_good_as_autograd(gradient, [40, 1, 7], [5, 2, 18], 3, 70, dtype)


@pytest.mark.parametrize("gradient", PATHS)
def test_the_gradient_of_a_text_of_10_000_words(gradient):
    assert_as_good_as_autograd(gradient, *LONG, torch.float32)


def assert_as_good_as_autograd(
    gradient, word_counts: list[int], class_counts: list[int], max_width: int, hidden: int, dtype: torch.dtype
) -> None:
    inputs = draw(word_counts, class_counts, max_width, hidden, dtype)
    counts = word_counts, class_counts, max_width
    exact = autograd_gradient(Inputs(*(tensor.double() for tensor in inputs)), *counts)
    plain = autograd_gradient(inputs, *counts)
    ours = gradient(*inputs, word_counts=word_counts, class_counts=class_counts, max_width=max_width)
    for mine, torch_s, wanted in zip(ours, plain, exact, strict=True):
        assert mine.dtype == dtype
        # Both round a sum of thousands: beside the largest of them 1e-6 is a handful of fp32's last bits.
        assert max_error(mine, wanted) <= 2 * max_error(torch_s, wanted) + 1e-6 * max(1.0, float(wanted.abs().max()))


def max_error(ours: Tensor, exact: Tensor) -> float:
    return float((ours.double() - exact).abs().max())


@needs_triton
@pytest.mark.parametrize("shape", SHAPES_OF_ALL_PATHS.values(), ids=SHAPES_OF_ALL_PATHS)
def test_every_gradient_is_written_and_nothing_else(shape, monkeypatch: pytest.MonkeyPatch):
    word_counts, class_counts, max_width, hidden = shape
    if INTERPRETED and hidden > 1024:
        pytest.skip("slow in the interpreter, and nothing but more blocks of hidden units")
    inputs = draw(*shape, torch.float32)
    rooms: list[Tensor] = []

    def poisoned(*size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        rooms.append(torch.full((math.prod(size) + 200,), math.nan, dtype=dtype, device=device))
        return rooms[-1][100:-100].view(size)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", poisoned)
        patch.setattr(torch, "empty_like", lambda like: poisoned(*like.shape, dtype=like.dtype, device=like.device))
        triton_gradient(*inputs, word_counts=word_counts, class_counts=class_counts, max_width=max_width)
    sizes = [sum(word_counts) * hidden] * 2 + [sum(class_counts) * hidden, sum(class_counts)]
    assert [len(room) - 200 for room in rooms] == sizes
    for room in rooms:
        assert not room[100:-100].isnan().any()
        assert room[:100].isnan().all()
        assert room[-100:].isnan().all()


@pytest.mark.gpu  # 18 GB of its memory
def test_offsets_beyond_2_to_the_31():
    words, hidden = 720_000, 3_072  # u alone passes 2**31 numbers
    shape = ([5], [2], 3)
    alone = draw(*shape, hidden, torch.bfloat16)
    u, v = (torch.zeros(words, hidden, dtype=torch.bfloat16, device=DEVICE) for _ in range(2))
    u[-5:], v[-5:] = alone.u, alone.v
    d_logits = torch.cat([alone.d_logits.new_zeros((words - 5) * 3), alone.d_logits])
    g = torch.cat([alone.g[:1], alone.g])
    both = triton_gradient(u, v, g, d_logits, word_counts=[words - 5, 5], class_counts=[1, 2], max_width=3)
    wanted = triton_gradient(*alone, word_counts=shape[0], class_counts=shape[1], max_width=3)
    for mine, own in zip(both, wanted, strict=True):
        torch.testing.assert_close(mine[-len(own) :], own)


@pytest.mark.gpu  # 5 GB of its memory
def test_logits_of_one_text_beyond_2_to_the_31():
    words, types, max_width = 60_000, 3_000, 12
    alone = draw([5], [types], max_width, 16, torch.bfloat16)
    d_logits = torch.zeros(words * max_width * types, dtype=torch.bfloat16, device=DEVICE)
    d_logits[-len(alone.d_logits) :] = alone.d_logits.nan_to_num()
    u, v = (torch.cat([part.new_ones(words - 5, 16), part]) for part in (alone.u, alone.v))
    ours = triton_gradient(u, v, alone.g, d_logits, word_counts=[words], class_counts=[types], max_width=max_width)
    wanted = triton_gradient(*alone, word_counts=[5], class_counts=[types], max_width=max_width)
    assert len(d_logits) > 2**31
    for mine, own in zip(ours, wanted, strict=True):
        torch.testing.assert_close(mine[-len(own) :], own)
        assert not mine[: -len(own)].any()


@pytest.mark.parametrize("gradient", PATHS)
def test_a_sum_of_exactly_zero_passes_nothing_on(gradient):
    # u + v is 0 everywhere but for the span of both words, where it is 1.
    u, v = torch.tensor([[0.0], [-1.0]], device=DEVICE), torch.tensor([[0.0], [1.0]], device=DEVICE)
    g, d = torch.ones(1, 1, device=DEVICE), torch.ones(4, device=DEVICE)
    du, dv, dg, dc = gradient(u, v, g, d, word_counts=[2], class_counts=[1], max_width=2)
    assert [x.flatten().tolist() for x in (du, dv, dg, dc)] == [[1.0, 0.0], [0.0, 1.0], [1.0], [3.0]]


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # numpy's, under the interpreter
@pytest.mark.parametrize("gradient", PATHS)
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_text_s_gradient_reads_no_neighbour(gradient, poison: float):
    inputs = draw([4, 5], [2, 3], 6, 8, torch.float32)
    alone = Inputs(inputs.u[:4], inputs.v[:4], inputs.g[:2], inputs.d_logits[: 4 * 6 * 2])
    wanted = gradient(*alone, word_counts=[4], class_counts=[2], max_width=6)
    for tensor, own in zip(inputs, alone, strict=True):
        tensor[len(own) :] = poison
    both = gradient(*inputs, word_counts=[4, 5], class_counts=[2, 3], max_width=6)
    for mine, own in zip(both, wanted, strict=True):
        assert torch.equal(mine[: len(own)], own)


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("gradient", PATHS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["u", "v", "g"])
def test_what_is_not_finite_spreads_as_in_autograd(gradient, place: str, value: float):
    shape = ([5, 2], [2, 1], 3)
    inputs = draw(*shape, hidden=4, dtype=torch.float32)
    getattr(inputs, place)[1, 2] = value
    # A logit that is no number has no gradient of use: autograd must see the same gradient of every logit.
    inputs.d_logits.nan_to_num_(0.0)
    u, v, g = (tensor.clone().requires_grad_() for tensor in inputs[:3])
    c = g.new_zeros(len(g)).requires_grad_()
    exact_scores(u, v, g, c, *shape).backward(inputs.d_logits)
    ours = gradient(*inputs, word_counts=shape[0], class_counts=shape[1], max_width=shape[2])
    for mine, wanted in zip(ours, (u.grad, v.grad, g.grad, c.grad), strict=True):
        torch.testing.assert_close(mine, wanted, equal_nan=True, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("gradient", PATHS)
def test_a_span_past_the_end_adds_nothing_to_what_is_infinite(gradient):
    u, v, g, d = (part.to(DEVICE) for part in (torch.tensor([[math.inf]]), torch.zeros(1, 1), *torch.ones(2, 1, 1)))
    dg = gradient(u, v, g, d.expand(2, 1).flatten(), word_counts=[1], class_counts=[1], max_width=2)[2]
    assert float(dg) == math.inf


@needs_triton
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_sums_of_16_bits_are_rounded_once(dtype: torch.dtype):
    shape = ([270], [3], 4)  # whose sums for the types are added up in parts
    drawn = draw(*shape, hidden=8, dtype=dtype)
    inputs = drawn._replace(u=torch.ones_like(drawn.u), v=torch.ones_like(drawn.v))  # whose sum nothing rounds
    exact = autograd_gradient(Inputs(*(tensor.double() for tensor in inputs)), *shape)
    options = {"word_counts": shape[0], "class_counts": shape[1], "max_width": shape[2]}
    for mine, wanted in zip(triton_gradient(*inputs, **options), exact, strict=True):
        assert ((mine - wanted).abs() <= 0.51 * torch.finfo(dtype).eps * wanted.abs() + 1e-4).all()


@needs_triton
def test_layouts_that_are_not_contiguous_are_read_as_they_are():
    shape = ([6, 3], [2, 4], 3)
    inputs = draw(*shape, hidden=10, dtype=torch.float32)
    strided = Inputs(*(torch.stack([tensor, tensor], -1)[..., 0] for tensor in inputs))
    assert not strided.u.is_contiguous()
    options = {"word_counts": shape[0], "class_counts": shape[1], "max_width": shape[2]}
    for mine, wanted in zip(triton_gradient(*strided, **options), triton_gradient(*inputs, **options), strict=True):
        assert torch.equal(mine, wanted)
