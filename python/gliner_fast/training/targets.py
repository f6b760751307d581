"""Gold spans -> which of the flat logits should be high."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SpanTargets:
    """What the flat logits of a batch should be: blocks (W_b, K, C_b), one after another (`kernels.span_scores`).

    Attributes:
        positives: (G,) int64, indices of the logits of gold spans with their types; distinct.
        judged: (T,) bool, False for a packed type of which only gold spans tell something; None where all are judged.
        word_counts: words of each text.
        class_counts: entity types of each text.
        max_width: K.
    """

    positives: Tensor
    judged: Tensor | None
    word_counts: Sequence[int]
    class_counts: Sequence[int]
    max_width: int

    @property
    def span_count(self) -> int:
        """Spans of up to K words within their texts."""
        return sum(sum(max(0, words - width) for width in range(self.max_width)) for words in self.word_counts)

    def to(self, device: torch.device) -> SpanTargets:
        """Moves the tensors."""
        judged = None if self.judged is None else self.judged.to(device, non_blocking=True)
        positives = self.positives.to(device, non_blocking=True)
        return SpanTargets(positives, judged, self.word_counts, self.class_counts, self.max_width)


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


def make_targets(
    spans: Sequence[Sequence[tuple[int, int, int]]],
    judged: Sequence[Sequence[bool]],
    word_counts: Sequence[int],
    class_counts: Sequence[int],
    max_width: int,
) -> SpanTargets:
    """Lays out the gold spans of a batch.

    Args:
        spans: for each text its (first word, one past the last, type) of at most K words; distinct.
        judged: for each text which of its types are judged.
        word_counts: words of each text.
        class_counts: entity types of each text that the model reads: the tokenizer's limit may cut off the last ones,
            whose spans and judgements are then left out.
        max_width: K.
    """
    positives: list[int] = []
    flags: list[bool] = []
    first = 0
    for own, own_judged, words, classes in zip(spans, judged, word_counts, class_counts, strict=True):
        positives += [
            first + (start * max_width + end - start - 1) * classes + type_
            for start, end, type_ in own
            if type_ < classes
        ]
        flags += own_judged[:classes]
        first += words * max_width * classes
    return SpanTargets(
        torch.tensor(positives, dtype=torch.int64),
        None if all(flags) else torch.tensor(flags),
        list(word_counts),
        list(class_counts),
        max_width,
    )
