"""What a data set consists of: counts that tell whether it is what one thinks it is."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gliner_fast.annotated.example import Example


@dataclass(frozen=True)
class Summary:
    """Counts of a data set.

    Attributes:
        examples: sentences.
        empty_examples: those without a span.
        duplicate_examples: those whose words were met before.
        words: of all sentences.
        words_per_example: quantiles: least, median, 95 %, most.
        spans: annotated spans, repeated ones included.
        repeated_spans: equal to another one of their sentence, label included.
        overlapping_examples: sentences with spans that share a word.
        span_widths: quantiles in words, as above.
        wide_spans: wider than `max_width`: a span model of that width never learns or finds them.
        max_width: K, words.
        labels: how many spans each label has, the commonest first.
        relations: how many pairs of spans each relation has, likewise.
    """

    examples: int
    empty_examples: int
    duplicate_examples: int
    words: int
    words_per_example: tuple[int, int, int, int]
    spans: int
    repeated_spans: int
    overlapping_examples: int
    span_widths: tuple[int, int, int, int]
    wide_spans: int
    max_width: int
    labels: dict[str, int]
    relations: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """The counts by name, ready for JSON."""
        return dataclasses.asdict(self)


def summarise(examples: Sequence[Example], max_width: int = 12) -> Summary:
    """Counts what a data set consists of."""
    lengths = [len(example.words) for example in examples]
    widths = [end - start for example in examples for start, end, _ in example.spans]
    labels = Counter(label for example in examples for _, _, label in example.spans)
    relations = Counter(relation for example in examples for _, _, relation in example.relations)
    return Summary(
        examples=len(examples),
        empty_examples=sum(not example.spans for example in examples),
        duplicate_examples=len(examples) - len({example.words for example in examples}),
        words=sum(lengths),
        words_per_example=_quantiles(lengths),
        spans=len(widths),
        repeated_spans=len(widths) - sum(len(set(example.spans)) for example in examples),
        overlapping_examples=sum(map(_overlaps, examples)),
        span_widths=_quantiles(widths),
        wide_spans=sum(width > max_width for width in widths),
        max_width=max_width,
        labels=dict(labels.most_common()),
        relations=dict(relations.most_common()),
    )


def _overlaps(example: Example) -> bool:
    reached = 0
    for start, end, _ in sorted(set(example.spans)):
        if start < reached:
            return True
        reached = end
    return False


def _quantiles(values: Sequence[int]) -> tuple[int, int, int, int]:
    if not values:
        return (0, 0, 0, 0)
    least, median, high, most = np.quantile(values, [0, 0.5, 0.95, 1], method="inverted_cdf").tolist()
    return int(least), int(median), int(high), int(most)
