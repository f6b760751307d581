"""Halves of words and entity types -> candidates, on a CPU: the Rust kernel beside torch.

torch makes all scores, takes their sigmoids and hands them to the filter, as an executor of its own would do it
(`GLINER_FAST_SPAN_EXECUTOR=torch`). Only a few spans pass, as with a trained model.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benches.compare import Race
from benches.floor import SpanCounts
from gliner_fast.cpu.native_candidates import native_candidates
from gliner_fast.kernels.pending_candidates import SpanCandidates
from gliner_fast.kernels.span_reference import span_candidates_reference
from gliner_fast.scoring.candidates import Candidates

MAX_WIDTH = 12
TEXTS = {"short": (20,) * 16, "mixed": (12, 21, 33, 8, 60, 128, 17, 250)}  # words of each
WIDTHS = {"minilm": 384, "base": 768}
TYPES = (5, 25, 100)


@pytest.mark.parametrize("classes", TYPES)
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("texts", TEXTS)
def bench_span_candidates(race: Race, texts: str, width: int, classes: int) -> None:
    torch.manual_seed(0)
    word_counts, class_counts = TEXTS[texts], [classes] * len(TEXTS[texts])
    words, types, hidden = sum(word_counts), sum(class_counts), 4 * width
    u, v = torch.randn(2, words, hidden)
    g, c = torch.randn(types, hidden) / hidden**0.5, torch.full((types,), -3.0)
    thresholds = torch.full((types,), 0.5)
    shape: SpanCounts = {"word_counts": word_counts, "class_counts": class_counts, "max_width": MAX_WIDTH}

    def run_rust() -> Candidates:
        return native_candidates(u, v, g, c, thresholds=thresholds, **shape)

    def run_torch() -> SpanCandidates:
        return span_candidates_reference(u, v, g, c, thresholds=thresholds, **shape)

    found, expected = run_rust(), run_torch()
    ours = places(found.texts, found.starts, found.ends - found.starts - 1, found.classes)
    theirs = places(expected.texts, expected.starts, expected.widths, expected.types)
    assert theirs
    assert len(ours ^ theirs) <= 0.001 * len(theirs) + 1  # scores within rounding of the threshold
    race.run(
        run_rust,
        {"torch": run_torch},
        agreement=f"{len(ours & theirs)} of {len(theirs)} candidates",
        amount=words,
        unit="words",
        texts=texts,
        classes=classes,
        hidden=hidden,
        candidates=len(theirs),
        threads=torch.get_num_threads(),
    )


def places(*columns: torch.Tensor | NDArray[np.int64]) -> set[tuple[int, ...]]:
    return set(zip(*(column.tolist() for column in columns), strict=True))
