"""Span scores, their candidates and their gradient, in plain torch: the specification, and what a CPU computes by.

How well each span of up to K words fits each entity type (GLiNER, Zaratiana et al. 2024, equation 1), with the head
factored (DESIGN 3.1):

    logit[i, k, t] = relu(u[i] + v[i + k]) . g[t] + c[t]

The kernels are in `span_scores.py`, `span_candidates.py` and `span_scores_gradient.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gliner_fast.kernels.pending_candidates import SpanCandidates

# Rows of relu(u_i + v_j) formed at once, in elements: 2**20 float32 are 4 MiB. Medians of this function on 2 cores of
# an EPYC 7003 (2026-11-23, H 2048, K 12, 5 and 25 types): for texts of 380 words 2**21 was 8 to 15 % slower and 2**18
# up to twice as slow; for texts of 20 words 2**19 to 2**25 came in no clear order.
_BLOCK_ELEMENTS = 2**20


def span_scores_reference(
    u: Tensor,
    v: Tensor,
    g: Tensor,
    c: Tensor,
    *,
    word_counts: Sequence[int],
    class_counts: Sequence[int],
    max_width: int,
) -> Tensor:
    """Logits of every span of every text against the text's own entity types.

    Args:
        u: (N, H), start halves of the packed words, bias included.
        v: (N, H), end halves of the packed words.
        g: (T, H), the texts' entity types after the second layer, packed.
        c: (T,), their constants.
        word_counts: words of each text; N in all.
        class_counts: entity types of each text; T in all.
        max_width: K, the widest span in words.

    Returns:
        (sum of words x K x types,): text b is a (W_b, K, C_b) block, blocks one after another; [i, k, t] rates words
        i..i+k+1. A span past the end of its text is -inf.
    """
    sizes = [words * max_width * classes for words, classes in zip(word_counts, class_counts, strict=True)]
    logits = u.new_empty(sum(sizes))
    word = type_ = at = 0
    for words, classes, size in zip(word_counts, class_counts, sizes, strict=True):
        block = logits[at : at + size].view(words, max_width, classes)  # (W, K, C)
        own_types = slice(type_, type_ + classes)
        _score_text(u[word : word + words], v[word : word + words], g[own_types], c[own_types], block)
        word, type_, at = word + words, type_ + classes, at + size
    return logits


def _score_text(u: Tensor, v: Tensor, g: Tensor, c: Tensor, out: Tensor) -> None:
    """Fills `out`, (W, K, C), for one text: u, v (W, H), g (C, H), c (C,)."""
    words, max_width, classes = out.shape
    if not words or not classes:
        return
    width = min(max_width, words)  # no span is wider than its text
    hidden = u.shape[1]
    padded = torch.cat([v, v.new_zeros(width - 1, hidden)])  # (W+K-1, H): widths past the end read zeros
    ends = padded.as_strided((words, width, hidden), (hidden, hidden, 1), padded.storage_offset())  # [i, k] = v[i+k]
    step = max(1, _BLOCK_ELEMENTS // (width * hidden))
    for first in range(0, words, step):
        rows = slice(first, min(first + step, words))
        spans = (u[rows, None, :] + ends[rows]).relu_()  # (w, K, H)
        out[rows, :width] = torch.addmm(c, spans.reshape(-1, hidden), g.mT).view(-1, width, classes)  # (w, K, C)
    start = torch.arange(words, device=u.device)[:, None]
    past_the_end = start + torch.arange(max_width, device=u.device) >= words  # (W, K)
    out.masked_fill_(past_the_end[:, :, None], float("-inf"))


def span_candidates_reference(
    u: Tensor,
    v: Tensor,
    g: Tensor,
    c: Tensor,
    *,
    word_counts: Sequence[int],
    class_counts: Sequence[int],
    max_width: int,
    thresholds: Tensor,
    allowed_spans: Tensor | None = None,
) -> SpanCandidates:
    """Spans within their text whose sigmoid, in the logits' dtype, is greater than the threshold rounded to that dtype.

    Beside what `span_scores_reference` takes: `thresholds` (T,), one for each packed type, infinite for a type that
    admits none; `allowed_spans` (N, K) bool, where given, False for the spans that are not asked for, each by its first
    word and its width. A NaN is no candidate.
    """
    logits = span_scores_reference(u, v, g, c, word_counts=word_counts, class_counts=class_counts, max_width=max_width)
    scores, thresholds = logits.sigmoid(), thresholds.to(logits)
    found = []
    word = type_ = at = 0
    for text, (words, classes) in enumerate(zip(word_counts, class_counts, strict=True)):
        size = words * max_width * classes
        block = scores[at : at + size].view(words, max_width, classes)  # (W, K, C)
        wanted = block > thresholds[type_ : type_ + classes]
        if allowed_spans is not None:
            wanted &= allowed_spans[word : word + words, :, None]
        start, width, own_type = torch.where(wanted)  # each (S_b,)
        inside = start + width < words  # a score past the end is 0, which a threshold below 0 would let in
        start, width, own_type = start[inside], width[inside], own_type[inside]
        found.append((torch.full_like(start, text), start, width, own_type, block[start, width, own_type]))
        word, type_, at = word + words, type_ + classes, at + size
    if not found:
        none = scores.new_empty(0, dtype=torch.int64)
        return SpanCandidates(none, none, none, none, scores)
    return SpanCandidates(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def span_scores_gradient_reference(
    u: Tensor,
    v: Tensor,
    g: Tensor,
    d_logits: Tensor,
    *,
    word_counts: Sequence[int],
    class_counts: Sequence[int],
    max_width: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients with respect to u, v, g and c, given those of the logits.

    Args:
        u: (N, H), start halves of the packed words, as `span_scores` took them.
        v: (N, H), end halves.
        g: (T, H), the texts' entity types, packed.
        d_logits: gradient of the flat logits, in blocks (W_b, K, C_b); what it holds past the end of a text is ignored.
        word_counts: words of each text; N in all.
        class_counts: entity types of each text; T in all.
        max_width: K, the widest span in words.

    Returns:
        du (N, H), dv (N, H), dg (T, H) and dc (T,), in the dtype of u. Sums over blocks run in fp32 at least.
    """
    exact = torch.promote_types(u.dtype, torch.float32)
    du, dv, dg = (torch.zeros(like.shape, dtype=exact, device=like.device) for like in (u, v, g))
    dc = torch.zeros(len(g), dtype=exact, device=g.device)
    word = type_ = at = 0
    for words, classes in zip(word_counts, class_counts, strict=True):
        own, types = slice(word, word + words), slice(type_, type_ + classes)
        size = words * max_width * classes
        d = d_logits[at : at + size].view(words, max_width, classes)  # (W, K, C)
        _add_text(u[own], v[own], g[types], d, du[own], dv[own], dg[types], dc[types])
        word, type_, at = word + words, type_ + classes, at + size
    return du.to(u.dtype), dv.to(u.dtype), dg.to(u.dtype), dc.to(u.dtype)


def _add_text(u: Tensor, v: Tensor, g: Tensor, d: Tensor, du: Tensor, dv: Tensor, dg: Tensor, dc: Tensor) -> None:
    """Adds one text to its gradients: u, v, du, dv (W, H); g, dg (C, H); dc (C,); d (W, K, C)."""
    words, max_width, classes = d.shape
    if not words or not classes:
        return
    width = min(max_width, words)  # no span is wider than its text
    hidden = u.shape[1]
    step = max(1, _BLOCK_ELEMENTS // (width * hidden))
    for first in range(0, words, step):
        stop = min(first + step, words)
        start = torch.arange(first, stop, device=u.device)  # (w,)
        end = start[:, None] + torch.arange(width, device=u.device)  # (w, K)
        outside = end >= words
        spans = u[start][:, None] + v[end.clamp(max=words - 1)]  # (w, K, H)
        inactive = (spans <= 0) | outside[:, :, None]  # ReLU's derivative at 0 is 0; one of NaN is 1, as in torch
        spans.masked_fill_(inactive, 0.0)
        own = d[start, :width].masked_fill(outside[:, :, None], 0.0)  # (w, K, C)
        dg += own.flatten(0, 1).mT @ spans.flatten(0, 1)
        dc += own.sum((0, 1), dtype=dc.dtype)
        passed = (own @ g).masked_fill_(inactive, 0.0)  # (w, K, H)
        du[start] = passed.sum(1, dtype=du.dtype)
        for k in range(width):
            last = min(stop, words - k)  # spans of this width that start before it end in the text
            if last > first:
                dv[first + k : last + k] += passed[: last - first, k]
