"""Logits -> entities as word spans: ours beside gliner's SpanDecoder, on the same logits.

The logits are random with the spread that calibrated checkpoints show, so that about one span in fifty is a candidate;
"dense" ones are shifted until one in ten is.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benches.compare import SCALE, Race
from benches.conftest import LABELS
from gliner_fast.decode import Selection, find_candidates, resolve
from gliner_fast.scoring.candidates import Candidates

MAX_WIDTH, CLASSES = 12, 10
SHIFTS = {"realistic": -5.13, "dense": -3.2}
MODES = {"flat": (True, False), "nested": (False, False), "flat multi-label": (True, True)}


def make_logits(texts: int, words: int, density: str) -> torch.Tensor:
    """(B, W, K, C), two or ten percent of them above 0, spans past the end of the text included."""
    generator = torch.Generator().manual_seed(words)
    return torch.randn(texts, words, MAX_WIDTH, CLASSES, generator=generator) * 2.5 + SHIFTS[density]


def as_tuples(decoded: Candidates) -> list[list[tuple[int, int, str, float]]]:
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


@pytest.mark.parametrize("density", SHIFTS)
@pytest.mark.parametrize("texts", [1, 8, 16, 32] if SCALE > 0.1 else [1, 8])
@pytest.mark.parametrize("words", [20, 80, 200, 500] if SCALE > 0.1 else [20, 80])  # gliner's time is quadratic
@pytest.mark.timeout(900)
def bench_decode(race: Race, words: int, texts: int, density: str) -> None:
    decode(race, words, texts, density, "flat")


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "flat"])
@pytest.mark.parametrize("words", [20, 200])
def bench_decode_mode(race: Race, words: int, mode: str) -> None:
    decode(race, words, 8, "realistic", mode)


def decode(race: Race, words: int, texts: int, density: str, mode: str) -> None:
    from gliner.decoding import SpanDecoder

    is_flat, is_multi_label = MODES[mode]
    logits = make_logits(texts, words, density)
    decoder = SpanDecoder(SimpleNamespace())
    tokens = [["word"] * words] * texts
    names = {index + 1: label for index, label in enumerate(LABELS[:CLASSES])}
    word_counts = np.full(texts, words, np.int64)
    class_counts = np.full(texts, CLASSES, np.int64)
    selection = Selection(
        thresholds=[0.5] * texts,
        nested=np.full(texts, not is_flat),
        multi_label=np.full(texts, is_multi_label),
        label_counts=[CLASSES] * texts,
    )

    flat = logits.reshape(-1)  # as the network lays them out

    def ours() -> Candidates:
        found = find_candidates(flat, word_counts, class_counts, MAX_WIDTH, selection)
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
        amount=texts * words,
        unit="words",
        texts=texts,
        words=words,
        max_width=MAX_WIDTH,
        classes=CLASSES,
        candidates=int((logits > 0).sum()),
        mode=mode,
        density=density,
        dtype="float32",
    )
