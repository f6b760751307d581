"""Who computes the span scores, and that all of them agree, forward and back."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gliner_fast.cpu import native
from gliner_fast.cpu.native import allows_tf32
from gliner_fast.kernels import _triton
from gliner_fast.kernels._triton import INTERPRETED
from gliner_fast.kernels.span_reference import span_scores_reference
from gliner_fast.scoring import span_executor
from gliner_fast.scoring.span_executor import VARIABLE, SpanLayout, choose_executor, find_spans, score_spans

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
LAYOUT = SpanLayout([5, 1, 9], [2, 3, 1], 3)
WORDS, TYPES, HIDDEN = 15, 6, 12

needs_interpreter = pytest.mark.skipif(not INTERPRETED, reason="needs Triton, and a machine without a GPU")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the environment variable."""
    monkeypatch.delenv(VARIABLE, raising=False)
    return lambda value: monkeypatch.setenv(VARIABLE, value)


def draw(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(WORDS, HIDDEN), (WORDS, HIDDEN), (TYPES, HIDDEN), (TYPES,)]
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


# --- who is chosen ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("has_vectors", "dtype", "chosen"),
    [
        (True, torch.float32, "rust"),
        (True, torch.bfloat16, "rust"),
        (True, torch.float16, "rust"),
        (False, torch.float32, "torch"),
        (True, torch.float64, "torch"),
    ],
)
def test_rust_computes_on_a_cpu_where_it_can(asked, monkeypatch, has_vectors, dtype, chosen):
    monkeypatch.setattr(span_executor._rust, "has_vectors", lambda: has_vectors)
    assert choose_executor(CPU, dtype) == chosen


@pytest.mark.parametrize(
    ("has_triton", "capability", "dtype", "chosen"),
    [
        (True, (9, 0), torch.float32, "triton"),
        (True, (8, 0), torch.bfloat16, "triton"),
        (True, (9, 0), torch.float64, "torch"),
        (True, (7, 5), torch.float16, "torch"),
        (False, (9, 0), torch.float16, "torch"),
    ],
)
def test_triton_computes_on_cuda_where_it_can(asked, monkeypatch, has_triton, capability, dtype, chosen):
    monkeypatch.setattr(_triton, "HAS_TRITON", has_triton)
    monkeypatch.setattr(native, "_is_supported_by_triton", native._is_supported_by_triton.__wrapped__)  # asks each time
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert choose_executor(CUDA, dtype) == chosen


def test_the_variable_decides(asked, monkeypatch):
    monkeypatch.setattr(_triton, "HAS_TRITON", True)
    monkeypatch.setattr(_triton, "INTERPRETED", True)
    asked("torch")
    assert choose_executor(CUDA, torch.float32) == "torch"
    asked("triton")
    assert choose_executor(CPU, torch.float32) == "triton"
    monkeypatch.setattr(span_executor._rust, "has_vectors", lambda: False)
    asked("rust")
    assert choose_executor(CPU, torch.float32) == "rust"


def test_an_unknown_name_is_refused(asked):
    asked("numpy")
    with pytest.raises(ValueError, match="GLINER_FAST_SPAN_EXECUTOR is 'numpy': expected one of torch, rust, triton"):
        choose_executor(CPU, torch.float32)


@pytest.mark.parametrize(("device", "dtype"), [(CUDA, torch.float32), (CPU, torch.float64)])
def test_rust_is_refused_where_it_cannot_compute(asked, device, dtype):
    asked("rust")
    with pytest.raises(ValueError, match=f"the model computes in {dtype} on {device}: Rust takes float32, bf16 and"):
        choose_executor(device, dtype)


def test_triton_is_refused_where_it_is_not_installed(asked, monkeypatch):
    asked("triton")
    monkeypatch.setattr(_triton, "HAS_TRITON", False)
    with pytest.raises(
        ValueError, match=r"Triton 3\.4 or a later one is not installed: pip install 'gliner-fast\[gpu\]'"
    ):
        choose_executor(CUDA, torch.float32)


def test_triton_is_refused_on_a_cpu_without_its_interpreter(asked, monkeypatch):
    asked("triton")
    monkeypatch.setattr(_triton, "HAS_TRITON", True)
    monkeypatch.setattr(_triton, "INTERPRETED", False)
    with pytest.raises(ValueError, match="the model is on cpu: load it with map_location='cuda', or set TRITON_INTER"):
        choose_executor(CPU, torch.float32)


@pytest.mark.parametrize(
    ("set_up", "allowed"),
    [
        (lambda: None, False),
        (lambda: torch.set_float32_matmul_precision("high"), True),
        (lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True), True),
    ],
)
def test_tf32_is_used_where_torch_may_use_it(set_up, allowed):
    before = torch.get_float32_matmul_precision()
    try:
        set_up()
        assert allows_tf32() is allowed
    finally:
        torch.set_float32_matmul_precision(before)


# --- what they compute ------------------------------------------------------------------------------------------------


def test_the_gradient_is_that_of_finite_differences():
    def finite_scores(*inputs: Tensor) -> Tensor:
        scores = score_spans(*inputs, LAYOUT, "torch")
        return scores[torch.isfinite(scores)]

    assert torch.autograd.gradcheck(finite_scores, draw(torch.float64))


def test_past_the_end_no_gradient_is_read():
    u, v, g, c = draw()
    scores = score_spans(u, v, g, c, LAYOUT, "torch")
    past = torch.isinf(scores).detach()
    assert past.any()
    # What autograd hands back for an infinite logit is often no number.
    gradients = torch.autograd.grad(scores, (u, v, g, c), torch.ones_like(scores).masked_fill(past, math.nan))
    assert all(gradient.isfinite().all() for gradient in gradients)


def saved_elements(scores: Callable[[], Tensor]) -> int:
    """How many numbers autograd keeps of a computation; a tensor kept twice counts twice."""
    kept = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        scores()
    return sum(kept)


def test_autograd_keeps_words_and_types_and_no_span():
    u, v, g, c = draw()
    assert saved_elements(lambda: score_spans(u, v, g, c, LAYOUT, "torch")) == u.numel() + v.numel() + g.numel()
    # Autograd left alone keeps every span of the same sum; some widths do not fit into the shortest text.
    alone = saved_elements(lambda: span_scores_reference(u, v, g, c, **vars(LAYOUT)))
    assert alone > 0.9 * WORDS * LAYOUT.max_width * HIDDEN


@needs_interpreter
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_triton_s_scores_and_gradients_are_torch_s(dtype):
    inputs = draw(dtype)
    found = {}
    for executor in ("torch", "triton"):
        scores = score_spans(*inputs, LAYOUT, executor)
        inside = torch.isfinite(scores)
        found[executor] = scores[inside].detach(), *torch.autograd.grad(scores[inside].square().sum(), inputs)
    for ours, wanted in zip(found["triton"], found["torch"], strict=True):
        assert ours.dtype == dtype
        assert float((ours - wanted).abs().max() / wanted.abs().max()) <= 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("executor", ["rust", pytest.param("triton", marks=needs_interpreter)])
def test_what_is_found_scores_above_the_thresholds(executor):
    inputs = draw()
    thresholds = torch.tensor([0.5, 0.9, 0.0, math.inf, 0.3, 1.0])
    found = find_spans(*inputs, LAYOUT, thresholds, None, executor)
    if executor == "triton":
        found = found.wait()
    scores = score_spans(*inputs, LAYOUT, "torch").sigmoid()
    sizes = [words * LAYOUT.max_width * classes for words, classes in zip([5, 1, 9], [2, 3, 1], strict=True)]
    wanted = []
    for text, (own, threshold) in enumerate(zip(scores.split(sizes), thresholds.split([2, 3, 1]), strict=True)):
        block = own.view(-1, LAYOUT.max_width, len(threshold))  # (W, K, C)
        wanted += [[text, *place] for place in torch.nonzero(block > threshold).tolist()]
    if executor == "triton":
        columns = found.texts, found.starts, found.widths, found.types
        assert not found.scores.requires_grad
    else:
        columns = found.texts, found.starts, found.ends - found.starts - 1, found.classes
    assert [list(row) for row in zip(*(column.tolist() for column in columns), strict=True)] == wanted
