"""Span scores: how well each span of up to K words fits each entity type (GLiNER, Zaratiana et al. 2024, equation 1).

With the head factored (DESIGN 3.1) a score needs 4D multiply-adds for a span and a type:

    logit[i, k, t] = relu(u[i] + v[i + k]) . g[t] + c[t]

This file holds the specification in plain torch, which is also the CPU path.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

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
