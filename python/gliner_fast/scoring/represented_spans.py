"""Marked spans -> candidates of token-level models that score spans by their vectors (compat section 6.5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gliner_fast.decode import Selection, exact_thresholds
from gliner_fast.scoring.candidates import Candidates
from gliner_fast.scoring.marked_spans import find_spans_to_score
from gliner_fast.scoring.pending_scores import PendingScores
from gliner_fast.scoring.probabilities import probabilities
from gliner_fast.scoring.span_vectors import MarkedSpanVectors
from gliner_fast.upload import upload

_Ints = NDArray[np.int64]

# Numbers of the widest tensor at a time: on a CPU it stays in the caches.
_CPU_BLOCK, _GPU_BLOCK = 2**20, 2**25


class RepresentedSpans(NamedTuple):
    """Spans of a batch that are marked, by the types that rate them.

    What several types mark comes once for each of them, as in the package.

    Attributes:
        candidates: by start, marking type, end and rating type in each text; scores are those of span vectors.
        marks: (S,) float32, the lowest mark of each: at a threshold it is found where this passes, in the precision of
            the scores, and its own score does, in float64.
        markers: (S,) the type whose marks these are, an index into the text's entity tokens.
    """

    candidates: Candidates
    marks: NDArray[np.float32]
    markers: _Ints


def find_represented_spans(
    scored: Tensor | PendingScores,
    words: Tensor,
    prompts: Tensor,
    layer: MarkedSpanVectors,
    word_counts: _Ints,
    class_counts: _Ints,
    selection: Selection,
) -> RepresentedSpans:
    """Picks the spans of a batch that may be entities, by each type that rates them above its threshold.

    They are those that any type marks, and a type rates a span by the product of their vectors. NaN passes nothing,
    unlike in the package.

    Args:
        scored: marks of words, as `find_marked_spans` takes them.
        words: (N, D) packed word vectors.
        prompts: (T, D) packed label vectors.
        layer: makes span vectors.
        word_counts: (B,) words of each text.
        class_counts: (B,) scored entity types of each text.
        selection: what may be an entity.
    """
    marked = find_spans_to_score(scored, word_counts, class_counts, selection).candidates
    texts, starts, ends, span_of_mark = _distinct(marked)
    firsts = (np.cumsum(word_counts) - word_counts)[texts]  # (U,) first packed word of each span's text
    counts = class_counts[texts]  # (U,)
    first_types = (np.cumsum(class_counts) - class_counts)[texts]  # (U,)
    scores = _score(words, prompts, layer, firsts + starts, firsts + ends - 1, first_types, counts)  # (P,)
    span_of_pair = np.repeat(np.arange(len(texts)), counts)  # (P,)
    class_of_pair = _within(counts)
    limits = exact_thresholds(selection, class_counts)
    passing = np.flatnonzero(scores > limits[first_types[span_of_pair] + class_of_pair])
    passing_of_span = np.bincount(span_of_pair[passing], minlength=len(texts))  # (U,)
    own = passing_of_span[span_of_mark]  # (M,) candidates of each mark
    mark = np.repeat(np.arange(len(own)), own)  # (S,)
    begins = np.cumsum(passing_of_span) - passing_of_span
    pair = passing[begins[span_of_mark[mark]] + _within(own)]  # (S,)
    offsets = np.concatenate([[0], np.cumsum(own)])[marked.offsets].astype(np.int64)
    candidates = Candidates(offsets, marked.starts[mark], marked.ends[mark], class_of_pair[pair], scores[pair])
    return RepresentedSpans(candidates, marked.scores[mark], marked.classes[mark])


def _distinct(marked: Candidates) -> tuple[_Ints, _Ints, _Ints, _Ints]:
    """Text, start and end of the spans, (U,) each, by text; and which of them each of the marked is."""
    widest = 1 + marked.ends.max(initial=0)
    keys, of_each = np.unique((marked.texts * widest + marked.starts) * widest + marked.ends, return_inverse=True)
    rest, ends = np.divmod(keys, widest)
    texts, starts = np.divmod(rest, widest)
    return texts, starts, ends, of_each


def _score(
    words: Tensor,
    prompts: Tensor,
    layer: MarkedSpanVectors,
    starts: _Ints,
    last_words: _Ints,
    first_types: _Ints,
    counts: _Ints,
) -> NDArray[np.float32]:
    """The probability of each span and type of its text, span after span, (P,).

    Args:
        words: (N, D).
        prompts: (T, D).
        layer: makes span vectors.
        starts: (U,) packed words.
        last_words: (U,) packed words.
        first_types: (U,) the first packed type of each span's text.
        counts: (U,) types of each span's text.
    """
    parts = []
    for block in _blocks(counts, words):
        own = counts[block]
        types = np.repeat(first_types[block], own) + _within(own)
        pairs = np.repeat(np.arange(len(own)), own)
        start, last = upload([torch.from_numpy(starts[block]), torch.from_numpy(last_words[block])], words.device)
        span, type_ = upload([torch.from_numpy(pairs), torch.from_numpy(types)], words.device)
        vectors = layer(words, start, last)  # (U', D)
        # Pair by pair, so that a score does not depend on how many others are computed; summed as a product is.
        wide = torch.promote_types(vectors.dtype, torch.float32)
        logits = (vectors[span].to(wide) * prompts[type_].to(wide)).sum(-1)  # (P',)
        parts.append(probabilities(logits.to(vectors.dtype)).float())
    if not parts:
        return np.zeros(0, np.float32)
    scores: NDArray[np.float32] = torch.cat(parts).cpu().numpy()
    return scores


def _blocks(counts: _Ints, words: Tensor) -> Iterator[slice]:
    """Cuts spans with so many types each into blocks of bounded memory; a span is not cut."""
    most = (_CPU_BLOCK if words.device.type == "cpu" else _GPU_BLOCK) // words.shape[1]
    ends = np.cumsum(np.maximum(counts, 4))  # a span's vector is made of 4D numbers
    begin = 0
    while begin < len(counts):
        before = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + most, "right")))
        yield slice(begin, end)
        begin = end


def _within(counts: _Ints) -> _Ints:
    """0, 1, ... for each of so many, one after another: of [2, 3] it is [0, 1, 0, 1, 2]."""
    within: _Ints = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return within
