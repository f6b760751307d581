"""Gold spans -> which of the flat logits, of spans or of marks of words, should be high."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gliner_fast.annotated.example import Span
from gliner_fast.training.corpus import Judged
from gliner_fast.upload import move


@dataclass(frozen=True)
class Targets:
    """What the flat logits of a batch should be.

    Of spans: blocks (W_b, K, C_b), one after another (`kernels.span_reference`). Of marks: blocks (W_b, C_b, 3), as
    `TokenScorer` lays them out; they are taken for spans of one word with three logits each.

    Attributes:
        positives: (G,) int64, indices of the logits of gold spans with their types, or of their marks; distinct.
        judged: (T,) uint8, which spans tell something about each packed type (`corpus.Judged`); None where all do.
        known: (N * K,) bool, the spans that tell something about types that are judged by what is known; None without
            such a type.
        word_counts: words of each text.
        class_counts: entity types of each text.
        max_width: K; 1 where words are marked.
        marks: logits of a span and type: 1, or 3 where words are marked.
    """

    positives: Tensor
    judged: Tensor | None
    known: Tensor | None
    word_counts: Sequence[int]
    class_counts: Sequence[int]
    max_width: int
    marks: int = 1

    @property
    def count(self) -> int:
        """What a mean loss is divided by: spans of up to K words in their texts, or pairs of a word and a type."""
        if self.marks > 1:
            return sum(words * classes for words, classes in zip(self.word_counts, self.class_counts, strict=True))
        return sum(sum(max(0, words - width) for width in range(self.max_width)) for words in self.word_counts)

    def to(self, device: torch.device) -> Targets:
        """Moves the tensors."""
        judged, known = (None if each is None else move(each, device) for each in (self.judged, self.known))
        return replace(self, positives=move(self.positives, device), judged=judged, known=known)


@dataclass(frozen=True)
class LogitPlaces:
    """Where each of S flat logits belongs.

    Attributes:
        types: (S,) int64, its entity type among the packed ones.
        spans: (S,) int64, its span: packed word x K + width index.
    """

    types: Tensor
    spans: Tensor


def locate_logits(targets: Targets, device: torch.device) -> LogitPlaces:
    """Says where each flat logit belongs."""
    words = torch.tensor(targets.word_counts, device=device)  # (B,)
    classes = torch.tensor(targets.class_counts, device=device)  # (B,)
    spans = words * targets.max_width  # (B,)
    sizes = spans * classes * targets.marks  # (B,)
    pairs = sum(w * c for w, c in zip(targets.word_counts, targets.class_counts, strict=True))
    total = pairs * targets.max_width * targets.marks
    text = torch.repeat_interleave(sizes, output_size=total)  # (S,)
    within = torch.arange(total, device=device) - (sizes.cumsum(0) - sizes)[text]  # (S,)
    within, own_classes = within // targets.marks, classes[text]
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
    max_width: int | None,
    *,
    known: Sequence[NDArray[np.bool_] | None] | None = None,
) -> Targets:
    """Lays out the gold spans of a batch.

    Args:
        spans: for each text its (first word, one past the last, type) of at most K words; distinct.
        judged: for each text which spans tell something about each of its types.
        word_counts: words of each text.
        class_counts: entity types of each text that the model reads: the tokenizer's limit may cut off the last ones,
            whose spans and judgements are then left out, and an entity token in the text is one more.
        max_width: K; None where words are marked.
        known: for each text its `known_spans`, of one word where words are marked; None where none of its types is
            judged by them.
    """
    marks = 3 if max_width is None else 1
    max_width = max_width or 1
    positives: list[int] = []
    flags: list[Judged] = []
    first = 0
    for own, own_judged, words, classes in zip(spans, judged, word_counts, class_counts, strict=True):
        read = [span for span in own if span[2] < classes]
        if marks == 1:
            positives += [first + (start * max_width + end - start - 1) * classes + type_ for start, end, type_ in read]
        else:
            positives += [first + place for place in _marks(read, classes)]
        # An entity token that stands in the text makes a type of its own, which is asked for nothing.
        flags += [*own_judged[:classes], *[Judged.MARKED] * (classes - len(own_judged))]
        first += words * max_width * classes * marks
    by_known = None
    if known is not None and Judged.KNOWN in flags:
        blocks = [
            np.zeros((words, max_width), np.bool_) if own is None else own
            for own, words in zip(known, word_counts, strict=True)
        ]
        by_known = torch.from_numpy(np.concatenate(blocks).reshape(-1))
    return Targets(
        torch.tensor(positives, dtype=torch.int64, device="cpu"),
        None if all(flag == Judged.ALL for flag in flags) else torch.tensor(flags, dtype=torch.uint8, device="cpu"),
        by_known,
        list(word_counts),
        list(class_counts),
        max_width,
        marks,
    )


def _marks(spans: Sequence[tuple[int, int, int]], classes: int) -> list[int]:
    """Where the marks of a text's spans stand in its block (W, C, 3), each once."""
    places = set()
    for start, end, type_ in spans:
        places |= {(start * classes + type_) * 3, ((end - 1) * classes + type_) * 3 + 1}
        places |= {(word * classes + type_) * 3 + 2 for word in range(start, end)}
    return sorted(places)
