"""Gold spans -> which of the flat logits should be high."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gliner_fast.annotated.example import Span
from gliner_fast.training.corpus import Judged


@dataclass(frozen=True)
class SpanTargets:
    """What the flat logits of a batch should be: blocks (W_b, K, C_b), one after another (`kernels.span_reference`).

    Attributes:
        positives: (G,) int64, indices of the logits of gold spans with their types; distinct.
        judged: (T,) uint8, which spans tell something about each packed type (`corpus.Judged`); None where all do.
        known: (N * K,) bool, the spans that tell something about types that are judged by what is known; None without
            such a type.
        word_counts: words of each text.
        class_counts: entity types of each text.
        max_width: K.
    """

    positives: Tensor
    judged: Tensor | None
    known: Tensor | None
    word_counts: Sequence[int]
    class_counts: Sequence[int]
    max_width: int

    @property
    def span_count(self) -> int:
        """Spans of up to K words within their texts."""
        return sum(sum(max(0, words - width) for width in range(self.max_width)) for words in self.word_counts)

    def to(self, device: torch.device) -> SpanTargets:
        """Moves the tensors."""
        judged, known = (
            None if each is None else each.to(device, non_blocking=True) for each in (self.judged, self.known)
        )
        positives = self.positives.to(device, non_blocking=True)
        return SpanTargets(positives, judged, known, self.word_counts, self.class_counts, self.max_width)


@dataclass(frozen=True)
class LogitPlaces:
    """Where each of S flat logits belongs.

    Attributes:
        types: (S,) int64, its entity type among the packed ones.
        spans: (S,) int64, its span: packed word x K + width index.
    """

    types: Tensor
    spans: Tensor


def locate_logits(targets: SpanTargets, device: torch.device) -> LogitPlaces:
    """Says where each flat logit belongs."""
    words = torch.tensor(targets.word_counts, device=device)  # (B,)
    classes = torch.tensor(targets.class_counts, device=device)  # (B,)
    spans = words * targets.max_width  # (B,)
    sizes = spans * classes  # (B,)
    total = sum(w * targets.max_width * c for w, c in zip(targets.word_counts, targets.class_counts, strict=True))
    text = torch.repeat_interleave(sizes, output_size=total)  # (S,)
    within = torch.arange(total, device=device) - (sizes.cumsum(0) - sizes)[text]  # (S,)
    own_classes = classes[text]
    return LogitPlaces(
        types=(classes.cumsum(0) - classes)[text] + within % own_classes,
        spans=(spans.cumsum(0) - spans)[text] + within // own_classes,
    )


def known_spans(words: Sequence[str], spans: Sequence[Span], max_width: int) -> NDArray[np.bool_]:
    """Spans of which is known what they are, (W, K): they share a word with a marked span, or hold no capital letter.

    Args:
        words: W of them.
        spans: that are marked, with whatever label.
        max_width: K.
    """
    marked = np.zeros(len(words), np.int64)
    for start, end, _ in spans:
        marked[start:end] = 1
    capital = np.array([word != word.lower() for word in words], np.int64)
    first = np.arange(len(words))[:, None]  # (W, 1)
    behind = np.minimum(first + np.arange(1, max_width + 1), len(words))  # (W, K)
    in_span = [np.concatenate([[0], np.cumsum(flags)]) for flags in (marked, capital)]
    marks, capitals = (sums[behind] - sums[first] for sums in in_span)  # each (W, K)
    known: NDArray[np.bool_] = (marks > 0) | (capitals == 0)
    return known


def make_targets(
    spans: Sequence[Sequence[tuple[int, int, int]]],
    judged: Sequence[Sequence[Judged]],
    word_counts: Sequence[int],
    class_counts: Sequence[int],
    max_width: int,
    *,
    known: Sequence[NDArray[np.bool_] | None] | None = None,
) -> SpanTargets:
    """Lays out the gold spans of a batch.

    Args:
        spans: for each text its (first word, one past the last, type) of at most K words; distinct.
        judged: for each text which spans tell something about each of its types.
        word_counts: words of each text.
        class_counts: entity types of each text that the model reads: the tokenizer's limit may cut off the last ones,
            whose spans and judgements are then left out.
        max_width: K.
        known: for each text its `known_spans`; None where none of its types is judged by them.
    """
    positives: list[int] = []
    flags: list[Judged] = []
    first = 0
    for own, own_judged, words, classes in zip(spans, judged, word_counts, class_counts, strict=True):
        positives += [
            first + (start * max_width + end - start - 1) * classes + type_
            for start, end, type_ in own
            if type_ < classes
        ]
        flags += own_judged[:classes]
        first += words * max_width * classes
    by_known = None
    if known is not None and Judged.KNOWN in flags:
        blocks = [
            np.zeros((words, max_width), np.bool_) if own is None else own
            for own, words in zip(known, word_counts, strict=True)
        ]
        by_known = torch.from_numpy(np.concatenate(blocks).reshape(-1))
    return SpanTargets(
        torch.tensor(positives, dtype=torch.int64),
        None if all(flag == Judged.ALL for flag in flags) else torch.tensor(flags, dtype=torch.uint8),
        by_known,
        list(word_counts),
        list(class_counts),
        max_width,
    )
