"""Token-level models, bi-encoders and other encoders beside gliner: texts -> entities, and what only some have."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benches.bench_end_to_end import THRESHOLD, Answers, race_texts, same_answers
from benches.compare import SCALE, Race, relative_error, words_of
from benches.conftest import DEVICES, LABELS, SIZES, Pair, texts_of
from gliner_fast.decode import Selection, resolve
from gliner_fast.scoring.marked_spans import find_marked_spans

TEXTS, CLASSES = 8, 10
TOLERANCE = 2e-5  # largest difference over the largest value, fp32: sums are taken in another order
# Levels that starts, ends and words inside are moved by: one start in seven, and long runs of words inside.
SHIFTS = {"realistic": [-2.7, -2.7, 1.7], "dense": [-0.5, -0.5, 1.7]}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["token-level", "bi-encoder", "bi-modernbert", "mt5"])
@pytest.mark.parametrize("label_count", [5, 25] if SCALE > 0.1 else [5])
@pytest.mark.parametrize("name", ["short", "mixed"])
@pytest.mark.timeout(1_800)
def bench_kind(
    race: Race, pair: Callable[..., Pair], name: str, label_count: int, kind: str, size: str, device: str
) -> None:
    race_texts(race, pair(size, device, kind), name, label_count, size, kind=kind)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["bi-modernbert", "mt5"])
@pytest.mark.parametrize("name", ["short", "mixed"])
@pytest.mark.timeout(1_800)
def bench_kind_single(race: Race, pair: Callable[..., Pair], name: str, kind: str, size: str, device: str) -> None:
    models, texts, labels = pair(size, device, kind), texts_of(name, 8), LABELS[:5]

    def one_by_one(model: Any) -> Callable[[], Answers]:
        return lambda: [model.predict_entities(text, labels, threshold=THRESHOLD) for text in texts]

    ours, shipped = one_by_one(models.ours), one_by_one(models.reference)
    report = same_answers(ours(), shipped(), models, texts, labels)
    race.run(
        ours,
        {"gliner": shipped},
        agreement=f"{report.equal:,} of {report.entities:,} entities equal, {report.explained} differ by rounding",
        **words_of(texts, corpus=name, labels=len(labels), size=size, threshold=THRESHOLD, dtype="float32", kind=kind),
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES[-1:])  # all but tiny and large have the same head
@pytest.mark.parametrize("classes", [5, 25, 100] if SCALE > 0.1 else [25])
@pytest.mark.parametrize("words", [20, 80])
def bench_token_head(race: Race, pair: Callable[..., Pair], words: int, classes: int, size: str, device: str) -> None:
    models = pair(size, device, "token-level")
    ours, theirs = models.ours.model.scorer, models.reference.model.scorer
    width = models.reference.config.hidden_size
    generator = torch.Generator().manual_seed(0)
    word_vectors = torch.randn(TEXTS, words, width, generator=generator).to(device)  # (B, W, D)
    labels = torch.randn(TEXTS, classes, width, generator=generator).to(device)  # (B, C, D)

    def run_ours() -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = ours(
                word_vectors.reshape(-1, width), labels.reshape(-1, width), [words] * TEXTS, [classes] * TEXTS
            )
        return logits

    def run_theirs() -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = theirs(word_vectors, labels)  # (B, W, C, 3)
        return logits

    expected = run_theirs()
    error = relative_error(run_ours().view(expected.shape), expected)
    assert error <= TOLERANCE
    race.run(
        run_ours,
        {"gliner": run_theirs},
        agreement=f"relative error {error:.1e}",
        amount=TEXTS * words,
        unit="words",
        texts=TEXTS,
        words=words,
        classes=classes,
        hidden_size=width,
        dtype="float32",
    )


@pytest.mark.parametrize("density", SHIFTS)
@pytest.mark.parametrize("words", [20, 80, 200] if SCALE > 0.1 else [20])  # gliner's time is cubic
@pytest.mark.timeout(900)
def bench_token_decode(race: Race, words: int, density: str) -> None:
    from gliner.decoding import TokenDecoder

    generator = torch.Generator().manual_seed(words)
    logits = torch.randn(TEXTS, words, CLASSES, 3, generator=generator) * 2.5 + torch.tensor(SHIFTS[density])
    decoder, tokens = TokenDecoder(SimpleNamespace()), [["word"] * words] * TEXTS
    names = {index + 1: label for index, label in enumerate(LABELS[:CLASSES])}
    word_counts, class_counts = np.full(TEXTS, words, np.int64), np.full(TEXTS, CLASSES, np.int64)
    neither = np.zeros(TEXTS, np.bool_)
    selection = Selection([0.5] * TEXTS, neither, neither, [CLASSES] * TEXTS)
    flat = logits.reshape(-1)

    def ours() -> list[list[tuple[int, int, str, float]]]:
        marked = find_marked_spans(flat, word_counts, class_counts, selection)
        found = resolve(marked.candidates, word_counts, neither, neither)
        labels = [LABELS[index] for index in found.classes.tolist()]
        rows = list(zip(found.starts.tolist(), (found.ends - 1).tolist(), labels, found.scores.tolist(), strict=True))
        offsets = found.offsets.tolist()
        return [rows[first:last] for first, last in itertools.pairwise(offsets)]

    def reference() -> list[list[Any]]:
        result: list[list[Any]] = decoder.decode(tokens, names, logits, flat_ner=True, threshold=0.5)
        return result

    expected = [(s.start, s.end, s.entity_type, s.score) for own in reference() for s in own]
    found = [entity for own in ours() for entity in own]
    assert [entity[:3] for entity in found] == [entity[:3] for entity in expected]
    largest = max(abs(one[3] - other[3]) for one, other in zip(found, expected, strict=True))
    assert largest <= 1e-6  # torch computes a sigmoid at a tensor's end another way than elsewhere
    race.run(
        ours,
        {"gliner": reference},
        agreement=f"all of {len(expected):,} entities equal, scores within {largest:.0e}",
        amount=TEXTS * words,
        unit="words",
        texts=TEXTS,
        words=words,
        classes=CLASSES,
        density=density,
    )
