"""What token-level models find: marks of words against the plain rule, and against `gliner`'s own decoder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gliner_fast import _rust
from gliner_fast.decode import Selection, resolve
from gliner_fast.scoring import marked_spans
from gliner_fast.scoring.marked_spans import MarkedSpans, find_marked_spans
from gliner_fast.scoring.pending_scores import PendingScores
from tests.reference import marks
from tests.reference.examples import examples

# Few scores, so that many are equal; 0.3 in float32 is above the double 0.3, 0.7 below.
SCORES = st.one_of(
    st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.7, 0.75, 1.0, float("nan"), float("inf")]), st.floats(0, 1, width=32)
)
VECTORS = [
    vector
    for vector in json.loads((Path(__file__).parent.parent / "golden" / "decode_vectors.json").read_text("utf-8"))[
        "vectors"
    ]
    if vector["kind"] == "token"
]


def flat(arrays: Sequence[NDArray[Any]], dtype: type) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *(own.ravel() for own in arrays)])


@st.composite
def blocks(draw: st.DrawFn) -> NDArray[np.float32]:
    """Scores of a text, (words, classes, 3)."""
    shape = draw(st.integers(0, 8)), draw(st.integers(0, 3)), 3
    size = int(np.prod(shape))
    return np.array(draw(st.lists(SCORES, min_size=size, max_size=size)), np.float32).reshape(shape)


@examples
@given(st.lists(blocks(), max_size=4), st.data())
def test_marked_spans_are_those_of_the_loops(own: list[NDArray[np.float32]], data: st.DataObject):
    thresholds = [data.draw(st.lists(SCORES, min_size=len(b[0]), max_size=len(b[0]))) if len(b) else [] for b in own]
    own = [block if len(block) else block.reshape(0, 0, 3) for block in own]
    edges = [np.array(values, np.float32) for values in thresholds]
    insides = [np.array(values, np.float64) for values in thresholds]
    offsets, *columns = _rust.find_marked_spans(
        flat(own, np.float32),
        np.array([block.shape[0] for block in own], np.int64),
        np.array([block.shape[1] for block in own], np.int64),
        flat(edges, np.float32),
        flat(insides, np.float64),
    )
    expected = marks.find_marked_spans(own, edges, insides)
    assert offsets.tolist() == np.cumsum([0, *map(len, expected)]).tolist()
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == [span for e in expected for span in e]
    assert [column.dtype for column in columns] == [np.int64] * 3 + [np.float32] * 2


@pytest.mark.parametrize(("threshold", "count"), [(0.3, 1), (0.7, 0)])
def test_what_is_inside_is_compared_in_float64(threshold: float, count: int):
    scores, one, edge = np.array([1, 1, threshold], np.float32), np.ones(1, np.int64), np.zeros(1, np.float32)
    offsets, *_ = _rust.find_marked_spans(scores, one, one, edge, np.array([threshold]))
    assert offsets.tolist() == [0, count]


@pytest.mark.parametrize(
    ("scores", "words", "classes", "edges", "insides", "message"),
    [
        (5, [1], [2], 2, 2, r"scores has 5 values, but .* add up to 6"),
        (7, [1], [2], 2, 2, r"scores has 7 values, but .* add up to 6"),
        (6, [1], [2], 1, 2, "edges has 1 values, but class_counts add up to 2"),
        (6, [1], [2], 2, 3, "insides has 3 values, but class_counts add up to 2"),
        (6, [1, 1], [2], 2, 2, "word_counts has 2 values and class_counts has 1"),
        (0, [-1], [2], 2, 2, r"word_counts\[0\] is -1"),
        (0, [2**40], [2**40], 0, 0, "add up to 3626777458843887524118528"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    scores: int, words: list[int], classes: list[int], edges: int, insides: int, message: str
):
    with pytest.raises(ValueError, match=message):
        _rust.find_marked_spans(
            np.zeros(scores, np.float32),
            np.array(words, np.int64),
            np.array(classes, np.int64),
            np.zeros(edges, np.float32),
            np.zeros(insides, np.float64),
        )


# --- beside gliner's decoder ------------------------------------------------------------------------------------------


def decoded(
    logits: torch.Tensor, word_counts: list[int], label_counts: list[int], **options: Any
) -> list[list[tuple[int, int, int, float]]]:
    """(first word, last word, class, score) of the entities of each text, for logits (B, L, C, 3)."""
    texts, _, classes, _ = logits.shape

    def for_each(value: Any) -> list[Any]:
        return value if isinstance(value, list) else [value] * texts

    allowed = options.get("input_spans")
    selection = Selection(
        for_each(float(options["threshold"]) if isinstance(options["threshold"], int) else options["threshold"]),
        ~np.array(for_each(options["flat_ner"]), np.bool_),
        np.array(for_each(options["multi_label"]), np.bool_),
        label_counts,
        None if allowed is None else [{(first, last + 1) for first, last in own} for own in allowed],
    )
    packed = torch.cat([own[:words].reshape(-1) for own, words in zip(logits, word_counts, strict=True)])
    words = np.array(word_counts, np.int64)
    found = find_marked_spans(packed, words, np.full(texts, classes, np.int64), selection)
    best = resolve(found.candidates, words, selection.nested, selection.multi_label)
    entities: list[list[tuple[int, int, int, float]]] = [[] for _ in word_counts]
    for text, start, end, class_, score in zip(
        best.texts.tolist(), best.starts.tolist(), best.ends.tolist(), best.classes.tolist(), best.scores.tolist(),
        strict=True,
    ):  # fmt: skip
        entities[text].append((start, end - 1, class_, score))
    return entities


def labels_by_text(vector: dict[str, Any]) -> list[list[str]]:
    labels = vector["labels"]
    return labels if isinstance(labels[0], list) else [labels] * len(vector["ntokens"])


def logits_of(vector: dict[str, Any]) -> torch.Tensor:
    """(texts, longest, most labels, 3)."""
    shape = len(vector["ntokens"]), vector["L"], max(map(len, labels_by_text(vector))), 3
    logits = torch.full(shape, vector["fill"])
    for text, cells in enumerate(vector["cells"]):
        for word, label, mark, logit in cells:
            logits[text, word, label, mark] = float(logit)
    return logits


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_token_vectors_of_gliner_are_decoded_as_gliner_decodes_them(vector: dict[str, Any]):
    names = labels_by_text(vector)
    found = decoded(logits_of(vector), vector["ntokens"], [len(own) for own in names], **vector["options"])
    for own, labels, expected in zip(found, names, vector["expected"], strict=True):
        assert [(first, last, labels[class_], score) for first, last, class_, score in own] == [
            tuple(entity[:4]) for entity in expected
        ]


def answers_of_gliner(logits: torch.Tensor, word_counts: list[int], label_counts: list[int], **options: Any) -> Any:
    from gliner.decoding import TokenDecoder

    if "input_spans" in options:
        options["input_spans"] = [[tuple(span) for span in own] for own in options["input_spans"]]
    names = [{index + 1: index for index in range(count)} for count in label_counts]
    spans = TokenDecoder(None).decode([["word"] * words for words in word_counts], names, logits, **options)
    return [[(span.start, span.end, span.entity_type, span.score) for span in own] for own in spans]


@pytest.mark.gliner
@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_token_vectors_are_what_the_installed_gliner_answers(vector: dict[str, Any]):
    names = labels_by_text(vector)
    found = answers_of_gliner(logits_of(vector), vector["ntokens"], [len(own) for own in names], **vector["options"])
    assert [[(first, last, labels[c], score) for first, last, c, score in own] for own, labels in zip(
        found, names, strict=True
    )] == [[tuple(entity[:4]) for entity in own] for own in vector["expected"]]  # fmt: skip


LOGITS = st.one_of(st.sampled_from([-9.0, -1.0, 0.0, 0.5, 1.0, 20.0, 40.0]), st.floats(-4, 4, width=16))


@examples
@pytest.mark.gliner
@given(
    st.lists(st.tuples(st.integers(1, 7), st.integers(0, 3)), min_size=1, max_size=3),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    st.sampled_from([0.0, 0.3, 0.5, 0.7, 0.73, 0.7310585786300049, 1.0]),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_any_marks_are_decoded_as_gliner_decodes_them(
    shapes: list[tuple[int, int]],
    dtype: torch.dtype,
    threshold: float,
    flat_ner: bool,
    multi_label: bool,
    data: st.DataObject,
):
    word_counts, label_counts = [words for words, _ in shapes], [labels for _, labels in shapes]
    shape = len(shapes), max(word_counts), max(label_counts), 3
    size = int(np.prod(shape))
    drawn = data.draw(st.lists(LOGITS, min_size=size, max_size=size))
    logits = torch.tensor(drawn, dtype=dtype).reshape(shape)
    options: dict[str, Any] = {"threshold": threshold, "flat_ner": flat_ner, "multi_label": multi_label}
    if data.draw(st.booleans()):
        pairs = st.tuples(st.integers(0, 6), st.integers(0, 6))
        options["input_spans"] = [data.draw(st.lists(pairs, max_size=9)) for _ in shapes]
    with pytest.MonkeyPatch.context() as patch:  # or equal logits get sigmoids a rounding apart, and are no tie
        patch.setattr(torch, "sigmoid", rounded_sigmoid)
        patch.setattr(marked_spans, "probabilities", rounded_sigmoid)
        found = decoded(logits, word_counts, label_counts, **options)
        assert found == answers_of_gliner(logits, word_counts, label_counts, **options)


def rounded_sigmoid(logits: torch.Tensor) -> torch.Tensor:
    """The same of equal logits wherever they stand in a tensor."""
    return logits.double().sigmoid().to(logits.dtype)


def test_scores_on_their_way_are_waited_for_and_compared_in_their_own_precision():
    # 0.7 is 0.69921875 in bfloat16: what starts and ends must pass that, what is inside must reach 0.7 itself.
    below, above = (float(torch.tensor(value, dtype=torch.bfloat16)) for value in (0.7, 0.7031))
    found = found_in_bfloat16([[above, above, above], [above, above, below], [below, above, above]], 0.7)
    assert isinstance(found, MarkedSpans)
    assert list(zip(found.candidates.starts.tolist(), found.candidates.ends.tolist(), strict=True)) == [(0, 1)]
    assert found.candidates.scores.tolist() == [above]
    # 0.3 is 0.30078125: no edge passes its own threshold, which is above 0.3.
    assert len(found_in_bfloat16([[float(torch.tensor(0.3, dtype=torch.bfloat16))] * 3], 0.3).edges) == 0


def found_in_bfloat16(scores: list[list[float]], threshold: float) -> MarkedSpans:
    """Of one text and one type, (words, 3), whose scores are on their way."""
    coming, one = PendingScores(torch.bfloat16, torch.tensor(scores).reshape(-1), None), np.ones(1, np.bool_)
    return find_marked_spans(coming, np.array([len(scores)]), np.array([1]), Selection([threshold], ~one, ~one, [1]))
