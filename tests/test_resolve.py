"""`resolve` of gliner_fast._rust against the quadratic rule, and against vectors made by gliner itself."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gliner_fast import _rust
from tests.reference.decoding import Candidate, clash, resolve
from tests.reference.examples import examples

MODES = [(nested, multi_label) for nested in (False, True) for multi_label in (False, True)]


def decode(
    candidates: list[list[Candidate]], modes: list[tuple[bool, bool]], word_counts: list[int]
) -> list[list[int]]:
    """Indices of the kept candidates of each text, counted within the text."""
    flat = [candidate for own in candidates for candidate in own]
    offsets = np.cumsum([0, *map(len, candidates)])
    kept, kept_offsets = _rust.resolve(
        offsets,
        np.array([start for start, _, _ in flat], np.int64),
        np.array([end for _, end, _ in flat], np.int64),
        np.array([score for _, _, score in flat], np.float32),
        np.array(word_counts, np.int64),
        np.array([nested for nested, _ in modes], np.bool_),
        np.array([multi_label for _, multi_label in modes], np.bool_),
    )
    assert (kept.dtype, kept_offsets.dtype) == (np.int64, np.int64)
    parts = np.split(kept, kept_offsets[1:-1]) if len(candidates) else []
    return [(part - first).tolist() for part, first in zip(parts, offsets, strict=False)]


# Few scores, so that many are equal.
SCORES = st.one_of(
    st.sampled_from([0.5, 0.75, 1.0, 0.0, -0.0, float("nan"), float("inf"), float("-inf")]),
    st.floats(width=32),
)


@st.composite
def texts(draw: st.DrawFn) -> tuple[list[Candidate], int]:
    """Candidates and the number of words: few, so that many spans are the same, nest or cross, or any."""
    words = draw(st.one_of(st.integers(1, 12), st.integers(1, 300), st.sampled_from([63, 64, 65, 4095, 4096, 4097])))
    starts, widths = st.integers(0, words - 1), st.one_of(st.integers(1, 12), st.integers(1, words))
    spans = st.tuples(starts, widths).map(lambda span: (span[0], min(span[0] + span[1], words)))
    at_the_end = starts.map(lambda back: (words - 1 - back, words))
    either = st.one_of(spans, spans, at_the_end)
    return draw(st.lists(st.builds(lambda span, score: (*span, score), either, SCORES), max_size=40)), words


@examples
@given(st.lists(st.tuples(texts(), st.sampled_from(MODES)), max_size=4))
def test_what_is_kept_is_what_the_rule_keeps(batch: list[tuple[tuple[list[Candidate], int], tuple[bool, bool]]]):
    expected = [resolve(own, nested=nested, multi_label=multi) for (own, _), (nested, multi) in batch]
    kept = decode([own for (own, _), _ in batch], [mode for _, mode in batch], [words for (_, words), _ in batch])
    assert kept == expected


@examples
@given(texts(), st.sampled_from(MODES), st.sampled_from([1000, 10**6]))
def test_long_texts_with_few_candidates_are_no_different(
    text: tuple[list[Candidate], int], mode: tuple[bool, bool], stretch: int
):
    candidates, words = text
    far = [(start * stretch, end * stretch, score) for start, end, score in candidates]
    assert decode([far], [mode], [words * stretch]) == decode([candidates], [mode], [words])


@examples
@given(texts(), st.sampled_from(MODES))
def test_kept_candidates_never_clash(text: tuple[list[Candidate], int], mode: tuple[bool, bool]):
    (candidates, words), (nested, multi_label) = text, mode
    (kept,) = decode([candidates], [mode], [words])
    for place, one in enumerate(kept):
        for other in kept[:place]:
            assert not clash(candidates[one], candidates[other], nested=nested, multi_label=multi_label)


@examples
@given(texts(), st.sampled_from(MODES))
def test_a_dropped_candidate_clashes_with_a_kept_one_that_scores_at_least_as_high(
    text: tuple[list[Candidate], int], mode: tuple[bool, bool]
):
    (candidates, words), (nested, multi_label) = text, mode
    (kept,) = decode([candidates], [mode], [words])
    for index, candidate in enumerate(candidates):
        if index not in kept and not math.isnan(candidate[2]):
            assert any(
                clash(candidate, candidates[other], nested=nested, multi_label=multi_label)
                and (candidates[other][2], -other) >= (candidate[2], -index)
                for other in kept
            )


@pytest.mark.parametrize(("nested", "multi_label"), MODES)
@pytest.mark.parametrize("words", [40, 700, 20_000])
def test_thousands_of_candidates_are_no_different(nested: bool, multi_label: bool, words: int):
    # Enough for several buckets of the queue and levels of the trees; the reference is quadratic in what is kept.
    generator = np.random.default_rng(words)
    starts = generator.integers(0, words, 3000)
    ends = np.minimum(starts + generator.integers(1, 13, 3000), words)
    scores = generator.integers(0, 500, 3000).astype(np.float32) / 500
    candidates = list(zip(starts.tolist(), ends.tolist(), scores.tolist(), strict=True))
    expected = resolve(candidates, nested=nested, multi_label=multi_label)
    assert decode([candidates], [(nested, multi_label)], [words]) == [expected]


# --- golden vectors ---------------------------------------------------------------------------------------------------

VECTORS = json.loads((Path(__file__).parent / "golden" / "decode_vectors.json").read_text(encoding="utf-8"))["vectors"]
SPAN_VECTORS = [vector for vector in VECTORS if vector["kind"] == "span"]


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    import torch

    return torch.sigmoid(torch.from_numpy(logits)).numpy()  # its float32 rounding is part of the vectors


def per_text(value: Any, texts: int) -> list[Any]:
    return value if isinstance(value, list) else [value] * texts


def labels_by_text(vector: dict[str, Any]) -> list[list[str]]:
    labels = vector["labels"]
    return labels if isinstance(labels[0], list) else [labels] * len(vector["ntokens"])


def logits_of(vector: dict[str, Any]) -> NDArray[np.float32]:
    """(texts, longest, max_width, most labels)."""
    shape = (vector["L"], vector["K"], max(map(len, labels_by_text(vector))))
    logits = np.full((len(vector["ntokens"]), *shape), vector["fill"], np.float32)
    for text, cells in enumerate(vector["cells"]):
        for start, width, label, logit in cells:
            logits[text, start, width, label] = float(logit)
    return logits


def blocks_of(vector: dict[str, Any]) -> list[NDArray[np.float32]]:
    """Probabilities of each text, (words, max_width, labels), without those that its options rule out."""
    scores = sigmoid(logits_of(vector))
    for text, spans in enumerate(vector["options"].get("input_spans", [])):
        wanted = np.zeros(scores.shape[1:3], np.bool_)
        for first, last in spans:
            if last - first < wanted.shape[1] and first < wanted.shape[0]:
                wanted[first, last - first] = True
        scores[text][~wanted] = 0
    sizes = zip(vector["ntokens"], map(len, labels_by_text(vector)), strict=True)
    return [own[:words, :, :labels] for own, (words, labels) in zip(scores, sizes, strict=True)]


@pytest.mark.parametrize("vector", SPAN_VECTORS, ids=[vector["name"] for vector in SPAN_VECTORS])
def test_span_vectors_of_gliner_are_decoded_as_gliner_decodes_them(vector: dict[str, Any]):
    blocks, options, texts = blocks_of(vector), vector["options"], len(vector["ntokens"])
    word_counts = np.array([len(block) for block in blocks], np.int64)
    class_counts = np.array([block.shape[2] for block in blocks], np.int64)
    offsets, starts, ends, classes, scores = _rust.find_candidates(
        np.concatenate([block.ravel() for block in blocks]),
        word_counts,
        class_counts,
        vector["K"],
        np.repeat(np.array(per_text(options["threshold"], texts), np.float32), class_counts),
    )
    kept, kept_offsets = _rust.resolve(
        offsets,
        starts,
        ends,
        scores,
        word_counts,
        ~np.array(per_text(options["flat_ner"], texts), np.bool_),
        np.array(per_text(options["multi_label"], texts), np.bool_),
    )
    for text, (labels, expected) in enumerate(zip(labels_by_text(vector), vector["expected"], strict=True)):
        own = kept[kept_offsets[text] : kept_offsets[text + 1]]
        found = [(int(starts[i]), int(ends[i]) - 1, labels[classes[i]], float(scores[i])) for i in own]
        assert found == [tuple(entity[:4]) for entity in expected]


@pytest.mark.gliner
@pytest.mark.parametrize("vector", SPAN_VECTORS, ids=[vector["name"] for vector in SPAN_VECTORS])
def test_span_vectors_are_what_the_installed_gliner_answers(vector: dict[str, Any]):
    import torch
    from gliner.decoding import SpanDecoder

    tokens = [["word"] * words for words in vector["ntokens"]]
    names = [dict(enumerate(labels, start=1)) for labels in labels_by_text(vector)]
    decoded = SpanDecoder(None).decode(tokens, names, torch.from_numpy(logits_of(vector)), **vector["options"])
    found = [[(span.start, span.end, span.entity_type, span.score) for span in spans] for spans in decoded]
    assert found == [[tuple(entity[:4]) for entity in expected] for expected in vector["expected"]]


def test_all_golden_vectors_are_there():
    kinds = [vector["kind"] for vector in VECTORS]
    assert (kinds.count("span"), kinds.count("token")) == (26, 12)


# --- bad input --------------------------------------------------------------------------------------------------------


def test_no_text_and_texts_without_candidates_keep_nothing():
    assert decode([], [], []) == []
    assert decode([[], []], [(False, False), (True, True)], [0, 5]) == [[], []]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ends": [1, 6]}, r"candidate 1 is the span 2\.\.6, which is not within text 0 of 5 words"),
        ({"starts": [-1, 2]}, r"candidate 0 is the span -1\.\.1"),
        ({"starts": [-(2**63), 2]}, r"candidate 0 is the span -9223372036854775808\.\.1"),
        ({"ends": [1, 2**63 - 1]}, r"candidate 1 is the span 2\.\.9223372036854775807"),
        ({"starts": [1, 2]}, r"candidate 0 of text 0 is the empty span 1\.\.1"),
        ({"starts": [3, 2]}, r"candidate 0 of text 0 is the empty span 3\.\.1"),
        ({"ends": [1]}, "starts has 2 values, ends 1 and scores 2"),
        ({"text_offsets": [0, 1]}, "text_offsets ends at 1, but 2 values were given"),
        ({"text_offsets": [0, 3, 2]}, r"text_offsets\[2\] is 2, below 3"),
        ({"text_offsets": []}, "text_offsets is empty"),
        ({"word_counts": [5, 5]}, "word_counts has 2 values for 1 texts"),
        ({"word_counts": [-1]}, r"word_counts\[0\] is -1"),
        ({"word_counts": [2**32]}, r"word_counts\[0\] is 4294967296"),
        ({"nested": [True, False]}, "nested has 2 values and multi_label has 1"),
        ({"multi_label": [True, False]}, "nested has 1 values and multi_label has 2"),
        ({"nested": [], "multi_label": []}, "nested and multi_label has 0 values for 1 texts"),
    ],
)
def test_candidates_that_do_not_fit_are_refused(changes: dict[str, list[Any]], message: str):
    arguments: dict[str, tuple[list[Any], type]] = {
        "text_offsets": ([0, 2], np.int64),
        "starts": ([0, 2], np.int64),
        "ends": ([1, 4], np.int64),
        "scores": ([0.5, 0.6], np.float32),
        "word_counts": ([5], np.int64),
        "nested": ([False], np.bool_),
        "multi_label": ([False], np.bool_),
    }
    arrays = {name: np.array(changes.get(name, values), dtype) for name, (values, dtype) in arguments.items()}
    with pytest.raises(ValueError, match=message):
        _rust.resolve(**arrays)
