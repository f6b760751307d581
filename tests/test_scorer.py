"""The factored span head against the package's own layers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gliner_fast.kernels._triton import INTERPRETED
from gliner_fast.scorer import SpanScorer
from gliner_fast.scoring.span_executor import VARIABLE

WIDTH, MAX_WIDTH = 10, 4
WORD_COUNTS, CLASS_COUNTS = [6, 1, 9], [3, 1, 2]


def pair(span_mode: str) -> tuple[SpanScorer, torch.nn.Module, torch.nn.Module]:
    """Our scorer and the package's span and prompt layers with the same weights, in float64."""
    from gliner.modeling.layers import create_projection_layer
    from gliner.modeling.span_rep import SpanRepLayer

    torch.manual_seed(0)
    ours = SpanScorer(WIDTH, MAX_WIDTH, span_mode, dropout=0.4).double().eval()
    spans = SpanRepLayer(span_mode=span_mode, hidden_size=WIDTH, max_width=MAX_WIDTH, dropout=0.4).double().eval()
    prompts = create_projection_layer(WIDTH, 0.4).double().eval()
    layer = spans.span_rep_layer
    out = layer.out_project
    twins = [
        (ours.prompt.inner, prompts[0]),
        (ours.prompt.outer, prompts[3]),
        (ours.start.inner, layer.project_start[0]),
        (ours.start.outer, layer.project_start[3]),
        (ours.end.inner, layer.project_end[0]),
        (ours.end.outer, layer.project_end[3]),
        (ours.out, out if span_mode == "marker" else out[3]),
    ]
    if ours.joint is not None:
        twins.append((ours.joint, out[0]))
    for mine, theirs in twins:
        mine.load_state_dict(theirs.state_dict())
    return ours, spans, prompts


def reference_scores(spans: torch.nn.Module, prompts: torch.nn.Module, words: Tensor, labels: Tensor) -> Tensor:
    """(W, K, C) logits of one text as the package computes them: every span's representation, then the product."""
    count = len(words)
    starts = torch.arange(count)[:, None].expand(count, MAX_WIDTH)
    ends = (starts + torch.arange(MAX_WIDTH)).clamp(max=count - 1)
    index = torch.stack([starts, ends], -1).reshape(1, -1, 2)
    vectors = spans(words[None], index).reshape(count, MAX_WIDTH, -1)
    return torch.einsum("wkd,cd->wkc", vectors, prompts(labels))


@pytest.mark.gliner
@pytest.mark.parametrize("span_mode", ["markerV0", "marker"])
def test_factored_scores_equal_the_package_s(span_mode: str) -> None:
    ours, spans, prompts = pair(span_mode)
    words = torch.randn(sum(WORD_COUNTS), WIDTH, dtype=torch.float64)
    labels = torch.randn(sum(CLASS_COUNTS), WIDTH, dtype=torch.float64)
    logits = ours(words, ours.prompt(labels), WORD_COUNTS, CLASS_COUNTS)
    texts = zip(words.split(WORD_COUNTS), labels.split(CLASS_COUNTS), strict=True)
    wanted = []
    for own_words, own_labels in texts:
        scores = reference_scores(spans, prompts, own_words, own_labels)
        past = torch.arange(len(own_words))[:, None] + torch.arange(MAX_WIDTH) >= len(own_words)
        wanted.append(scores.masked_fill(past[..., None], float("-inf")).reshape(-1))
    torch.testing.assert_close(logits, torch.cat(wanted), rtol=0, atol=1e-12)


@pytest.mark.gliner
@pytest.mark.parametrize("span_mode", ["markerV0", "marker"])
def test_gradients_equal_the_package_s(span_mode: str) -> None:
    ours, spans, prompts = pair(span_mode)
    words = torch.randn(7, WIDTH, dtype=torch.float64)
    labels = torch.randn(3, WIDTH, dtype=torch.float64)
    mine = ours(words, ours.prompt(labels), [7], [3]).view(7, MAX_WIDTH, 3)
    theirs = reference_scores(spans, prompts, words, labels)
    weights = torch.randn_like(theirs).masked_fill(~torch.isfinite(mine), 0.0)
    (mine.masked_fill(~torch.isfinite(mine), 0.0) * weights).sum().backward()
    (theirs * weights).sum().backward()
    torch.testing.assert_close(ours.start.inner.weight.grad, spans.span_rep_layer.project_start[0].weight.grad)
    torch.testing.assert_close(ours.end.outer.bias.grad, spans.span_rep_layer.project_end[3].bias.grad)
    torch.testing.assert_close(ours.prompt.inner.weight.grad, prompts[0].weight.grad)
    out = spans.span_rep_layer.out_project
    torch.testing.assert_close(ours.out.weight.grad, (out if span_mode == "marker" else out[3]).weight.grad)


@pytest.mark.gliner
@pytest.mark.parametrize("span_mode", ["markerV0", "marker"])
def test_span_vectors_are_the_package_s_representations(span_mode: str) -> None:
    ours, spans, _ = pair(span_mode)
    words = torch.randn(6, WIDTH, dtype=torch.float64)
    starts, ends = torch.tensor([0, 2, 5]), torch.tensor([3, 2, 5])
    index = torch.stack([starts, ends], -1)[None].repeat(1, 2, 1)[:, :6]
    padded = torch.cat([index[0], torch.zeros(6 * MAX_WIDTH - len(index[0]), 2, dtype=torch.long)])[None]
    theirs = spans(words[None], padded).reshape(-1, WIDTH)[:3]
    torch.testing.assert_close(ours.span_vectors(words, starts, ends), theirs, rtol=0, atol=1e-12)


def unfactored_scores(scorer: SpanScorer, words: Tensor, prompts: Tensor) -> Tensor:
    """All logits as markerV0 is written down: both layers for every span, then the product with the types."""
    blocks = []
    for own_words, own_prompts in zip(words.split(WORD_COUNTS), prompts.split(CLASS_COUNTS), strict=True):
        count = len(own_words)
        end = torch.arange(count)[:, None] + torch.arange(MAX_WIDTH)  # (W, K)
        starts, ends = F.relu(scorer.start(own_words)), F.relu(scorer.end(own_words))  # each (W, D)
        pairs = torch.cat([starts[:, None].expand(-1, MAX_WIDTH, -1), ends[end.clamp(max=count - 1)]], -1)
        vectors = scorer.out(F.relu(scorer.joint(pairs)))  # (W, K, D)
        scores = torch.where((end < count)[:, :, None], vectors @ own_prompts.T, float("-inf"))
        blocks.append(scores.reshape(-1))
    return torch.cat(blocks)


def head(dtype: torch.dtype, span_mode: str = "markerV0") -> tuple[SpanScorer, Tensor, Tensor]:
    """A scorer in training (without dropout), word vectors and label vectors."""
    torch.manual_seed(0)
    scorer = SpanScorer(WIDTH, MAX_WIDTH, span_mode, dropout=0.0).to(dtype)
    words = torch.randn(sum(WORD_COUNTS), WIDTH, dtype=dtype, requires_grad=True)
    return scorer, words, torch.randn(sum(CLASS_COUNTS), WIDTH, dtype=dtype, requires_grad=True)


def scores_and_gradients(scores: Tensor, scorer: SpanScorer, *inputs: Tensor) -> dict[str, Tensor]:
    """The finite scores, and the gradients of a weighted sum of them with respect to all weights and inputs."""
    inside = torch.isfinite(scores)
    weights = torch.linspace(-1, 1, len(scores), dtype=scores.dtype)
    leaves = dict(scorer.named_parameters()) | {f"input {index}": value for index, value in enumerate(inputs)}
    gradients = torch.autograd.grad((scores * weights)[inside].sum(), list(leaves.values()))
    return {"scores": scores[inside].detach(), **dict(zip(leaves, gradients, strict=True))}


def test_training_the_factored_head_is_training_the_unfactored_one():
    scorer, words, labels = head(torch.float64)
    prompts = scorer.prompt(labels)
    ours = scores_and_gradients(scorer(words, prompts, WORD_COUNTS, CLASS_COUNTS), scorer, words, labels)
    prompts = scorer.prompt(labels)
    theirs = scores_and_gradients(unfactored_scores(scorer, words, prompts), scorer, words, labels)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.skipif(not INTERPRETED, reason="needs Triton, and a machine without a GPU")
@pytest.mark.parametrize("span_mode", ["markerV0", "marker"])
def test_training_through_triton_is_training_through_torch(span_mode: str, monkeypatch: pytest.MonkeyPatch):
    scorer, words, labels = head(torch.float32, span_mode)
    found = {}
    for executor in ("torch", "triton"):
        monkeypatch.setenv(VARIABLE, executor)
        scores = scorer(words, scorer.prompt(labels), WORD_COUNTS, CLASS_COUNTS)
        assert scorer.executor == executor
        found[executor] = scores_and_gradients(scores, scorer, words, labels)
    for name, value in found["torch"].items():
        torch.testing.assert_close(found["triton"][name], value, rtol=1e-4, atol=1e-5)


def test_the_scorer_says_who_computed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    scorer, words, labels = head(torch.float32)
    assert scorer.executor is None
    scorer(words, scorer.prompt(labels), WORD_COUNTS, CLASS_COUNTS)
    assert scorer.executor == "torch"
    monkeypatch.setenv(VARIABLE, "rust")
    thresholds = torch.full((sum(CLASS_COUNTS),), 0.5)
    scorer.find(words, scorer.prompt(labels), WORD_COUNTS, CLASS_COUNTS, thresholds)
    assert scorer.executor == "rust"
    scorer(words, scorer.prompt(labels), WORD_COUNTS, CLASS_COUNTS)
    assert scorer.executor == "torch"
    monkeypatch.setenv(VARIABLE, "torch")
    with pytest.raises(ValueError, match="torch finds no candidates by itself"):
        scorer.find(words, scorer.prompt(labels), WORD_COUNTS, CLASS_COUNTS, thresholds)


@pytest.mark.parametrize("asked", ["", "rust"])
def test_the_sums_of_marker_are_torch_s_on_a_cpu(asked: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, asked)
    scorer, words, labels = head(torch.float32, "marker")
    assert scorer.executor_for(words) == "torch"
    with pytest.raises(ValueError, match="torch finds no candidates by itself"):
        scorer.find(words, scorer.prompt(labels), WORD_COUNTS, CLASS_COUNTS, torch.full((sum(CLASS_COUNTS),), 0.5))


def test_a_span_of_4_d_is_kept_by_no_step_of_training():
    words_of_each, width = 40, 8
    scorer = SpanScorer(width, MAX_WIDTH, "markerV0", dropout=0.0)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        words, labels = torch.randn(2 * words_of_each, width), torch.randn(4, width)
        scorer(words, scorer.prompt(labels), [words_of_each] * 2, [2, 2])
    assert max(kept) <= 2 * words_of_each * 4 * width  # words x 4D
    assert 2 * words_of_each * 4 * width in kept


@pytest.mark.parametrize(
    "executor",
    ["torch", pytest.param("triton", marks=pytest.mark.skipif(not INTERPRETED, reason="needs Triton, and no GPU"))],
)
def test_the_head_trains_under_autocast(executor: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, executor)
    scorer, words, labels = head(torch.float32)
    exact = scores_and_gradients(scorer(words, scorer.prompt(labels), WORD_COUNTS, CLASS_COUNTS), scorer, words, labels)
    with torch.autocast("cpu", torch.bfloat16):
        scores = scorer(words, scorer.prompt(labels), WORD_COUNTS, CLASS_COUNTS)
    assert scores.dtype == torch.bfloat16
    ours = scores_and_gradients(scores.float(), scorer, words, labels)
    for name, value in exact.items():
        assert ours[name].dtype == torch.float32 == value.dtype
        assert (ours[name] - value).abs().max() <= 0.1 * value.abs().max(), name


@pytest.mark.parametrize(("span_mode", "part"), [("markerV0", "joint"), ("markerV0", "out"), ("marker", "out")])
@pytest.mark.parametrize("training", [False, True])
def test_an_adapter_around_a_layer_that_is_read_by_its_weights_is_refused(span_mode: str, part: str, training: bool):
    scorer = SpanScorer(WIDTH, MAX_WIDTH, span_mode, dropout=0.0).train(training)
    setattr(scorer, part, torch.nn.Sequential(getattr(scorer, part)))
    told = rf"scorer\.{part} is a Sequential: this layer is read by its weights.*merge the adapter"
    with torch.set_grad_enabled(training), pytest.raises(TypeError, match=told):
        scorer(torch.randn(sum(WORD_COUNTS), WIDTH), torch.randn(sum(CLASS_COUNTS), WIDTH), WORD_COUNTS, CLASS_COUNTS)


@pytest.mark.parametrize("part", ["joint", "out"])
def test_so_is_a_forward_that_was_put_into_one(part: str):
    scorer = SpanScorer(WIDTH, MAX_WIDTH, "markerV0", dropout=0.0).eval()
    layer = getattr(scorer, part)
    layer.forward = lambda vectors, own=layer.forward: 2 * own(vectors)  # as adapters do that leave modules in place
    told = rf"scorer\.{part} is a Linear with a forward of its own: this layer is read by its weights"
    with torch.no_grad(), pytest.raises(TypeError, match=told):
        scorer(torch.randn(sum(WORD_COUNTS), WIDTH), torch.randn(sum(CLASS_COUNTS), WIDTH), WORD_COUNTS, CLASS_COUNTS)
