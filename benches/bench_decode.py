"""Logits -> entities as word spans: ours beside gliner's SpanDecoder, on the same logits.

The logits are random with the spread that calibrated checkpoints show, so that about one span in fifty is a candidate.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benches.compare import Race
from benches.conftest import LABELS
from gliner_fast.decode import Decoded, Selection, find_candidates, resolve

TEXTS, MAX_WIDTH, CLASSES = 8, 12, 10
MODES = {"flat": (True, False), "nested": (False, False), "flat multi-label": (True, True)}


def make_logits(words: int) -> torch.Tensor:
    """(B, W, K, C), two percent of them above 0, spans past the end of the text included."""
    generator = torch.Generator().manual_seed(words)
    return torch.randn(TEXTS, words, MAX_WIDTH, CLASSES, generator=generator) * 2.5 - 5.13


def as_tuples(decoded: Decoded) -> list[list[tuple[int, int, str, float]]]:
    """Our arrays as (first word, last word, label, score), as the reference gives them."""
    rows = zip(
        decoded.starts.tolist(),
        (decoded.ends - 1).tolist(),
        [LABELS[index] for index in decoded.classes.tolist()],
        decoded.scores.tolist(),
        strict=True,
    )
    flat = list(rows)
    return [flat[first:last] for first, last in zip(decoded.offsets[:-1], decoded.offsets[1:], strict=True)]


def reference_tuples(spans: list[list[Any]]) -> list[list[tuple[int, int, str, float]]]:
    """The reference's spans in the same form."""
    return [[(span.start, span.end, span.entity_type, span.score) for span in text] for text in spans]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("words", [20, 80, 200, 500])
def bench_decode(race: Race, words: int, mode: str) -> None:
    from gliner.decoding import SpanDecoder

    is_flat, is_multi_label = MODES[mode]
    logits = make_logits(words)
    decoder = SpanDecoder(SimpleNamespace())
    tokens = [["word"] * words] * TEXTS
    names = {index + 1: label for index, label in enumerate(LABELS[:CLASSES])}
    word_counts = np.full(TEXTS, words, np.int64)
    class_counts = np.full(TEXTS, CLASSES, np.int64)
    selection = Selection(
        thresholds=[0.5] * TEXTS,
        nested=np.full(TEXTS, not is_flat),
        multi_label=np.full(TEXTS, is_multi_label),
        label_counts=[CLASSES] * TEXTS,
    )

    def ours() -> Decoded:
        found, _ = find_candidates(logits.reshape(-1), word_counts, class_counts, MAX_WIDTH, selection)
        return resolve(found, word_counts, selection.nested, selection.multi_label)

    def reference() -> list[list[Any]]:
        result: list[list[Any]] = decoder.decode(
            tokens, names, logits, flat_ner=is_flat, threshold=0.5, multi_label=is_multi_label
        )
        return result

    expected = reference_tuples(reference())
    assert as_tuples(ours()) == expected
    kept = sum(map(len, expected))
    race.run(
        ours,
        {"gliner": reference},
        agreement=f"identical: {kept:,} entities",
        amount=TEXTS * words,
        unit="words",
        texts=TEXTS,
        words=words,
        max_width=MAX_WIDTH,
        classes=CLASSES,
        candidates=int((logits > 0).sum()),
        mode=mode,
        dtype="float32",
    )
