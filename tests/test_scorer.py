"""The factored span head against the package's own layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gliner_fast.scorer import SpanScorer

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
