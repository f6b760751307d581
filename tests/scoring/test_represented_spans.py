"""Models that score the spans that they mark: their candidates against plain loops, and against `gliner`'s own code."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gliner_fast.decode import Selection, resolve
from gliner_fast.scoring import marked_spans, represented_spans
from gliner_fast.scoring.pending_scores import PendingScores
from gliner_fast.scoring.represented_spans import RepresentedSpans, find_represented_spans
from tests.reference.examples import examples
from tests.reference.represented import find_represented_spans as find_by_loops
from tests.scoring.test_marked_spans import rounded_sigmoid

WIDTH = 3
# Few, so that many are equal and products are exact in every precision.
MARKS = st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.7, 0.75, 1.0, float("nan")])
NUMBERS = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0])
THRESHOLDS = st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.7, 0.7310585786300049, 1.0])
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])


class Ends(torch.nn.Module):
    """A layer of span vectors whose results are exact."""

    def forward(self, words: Tensor, starts: Tensor, last_words: Tensor) -> Tensor:
        return words[starts] + 2 * words[last_words]


def drawn(data: st.DataObject, numbers: st.SearchStrategy[float], *shape: int) -> Tensor:
    size = int(np.prod(shape))
    return torch.tensor(data.draw(st.lists(numbers, min_size=size, max_size=size)), dtype=torch.float64).reshape(shape)


def select(thresholds: list[Any], label_counts: list[int], **modes: Any) -> Selection:
    none = np.zeros(len(thresholds), np.bool_)
    return Selection(
        thresholds, modes.get("nested", none), modes.get("multi_label", none), label_counts, modes.get("allowed")
    )


def find(
    marks: list[Tensor], words: list[Tensor], prompts: list[Tensor], selection: Selection, dtype: torch.dtype
) -> RepresentedSpans:
    """Of texts with marks (W, C, 3), words (W, D) and prompts (C, D) each."""
    coming = PendingScores(dtype, torch.cat([own.reshape(-1) for own in marks]).float(), None)
    counts = [np.array([len(own) for own in parts], np.int64) for parts in (words, prompts)]
    packed = [torch.cat(parts).to(dtype) for parts in (words, prompts)]
    return find_represented_spans(coming, *packed, Ends(), *counts, selection)  # type: ignore[arg-type]


def listed(found: RepresentedSpans) -> list[list[tuple[int, int, int, float, float, int]]]:
    """(start, end, class, score, mark, marker) of each text's candidates."""
    columns = (found.candidates.starts, found.candidates.ends, found.candidates.classes, found.candidates.scores)
    rows = list(zip(*(column.tolist() for column in (*columns, found.marks, found.markers)), strict=True))
    offsets = found.candidates.offsets.tolist()
    return [rows[first:last] for first, last in pairwise(offsets)]


@examples
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=3), DTYPES, st.data())
def test_candidates_are_those_of_the_loops(shapes: list[tuple[int, int]], dtype: torch.dtype, data: st.DataObject):
    marks = [drawn(data, MARKS, words, classes, 3).to(dtype).double() for words, classes in shapes]
    words = [drawn(data, NUMBERS, count, WIDTH) for count, _ in shapes]
    prompts = [drawn(data, NUMBERS, classes, WIDTH) for _, classes in shapes]
    label_counts = [data.draw(st.integers(0, classes)) for _, classes in shapes]
    one_for_all = data.draw(st.booleans())
    thresholds: list[Any] = [
        data.draw(THRESHOLDS if one_for_all else st.lists(THRESHOLDS, min_size=labels, max_size=labels))
        for labels in label_counts
    ]
    found = listed(find(marks, words, prompts, select(thresholds, label_counts), dtype))
    for at, (own, labels, threshold) in enumerate(zip(marks, label_counts, thresholds, strict=True)):
        unlabelled = own.shape[1] - labels
        limits = [threshold] * labels if one_for_all else threshold
        edges = torch.tensor([*limits, *[threshold if one_for_all else np.inf] * unlabelled]).to(dtype).tolist()

        def rate(start: int, last: int, class_: int, at: int = at) -> float:
            vector = Ends()(words[at], torch.tensor([start]), torch.tensor([last]))
            return float(represented_spans.probabilities((vector @ prompts[at][class_]).to(dtype)).float())

        assert found[at] == find_by_loops(own.tolist(), edges, [*limits, *[np.inf] * unlabelled], rate)


# --- beside gliner's own code -----------------------------------------------------------------------------------------


def answers_of_gliner(
    logits: Tensor, words: Tensor, prompts: Tensor, labels: int, **options: Any
) -> list[tuple[int, int, int, float]]:
    """What `gliner` makes of one text: as the end of its `UniEncoderTokenModel.forward`, and its decoder."""
    from gliner.decoding import TokenDecoder
    from gliner.modeling.utils import extract_spans_from_tokens

    spans, mask = extract_spans_from_tokens(logits[None], None, options["threshold"])
    spans = spans * mask.unsqueeze(-1).long()
    vectors = (words[spans[..., 0]] + 2 * words[spans[..., 1]]).to(words.dtype)  # (1, N, D)
    (found,) = TokenDecoder(None).decode(
        [["word"] * len(words)],
        {index + 1: index for index in range(labels)},
        logits[None],
        span_idx=spans,
        span_mask=mask,
        span_logits=torch.einsum("BND,BCD->BNC", vectors, prompts[None]),
        **options,
    )
    return [(span.start, span.end, span.entity_type, span.score) for span in found]


LOGITS = st.sampled_from([-9.0, 0.0, 0.5, 1.0, 1.0, 20.0])


@examples
@pytest.mark.gliner
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 3)), min_size=1, max_size=3),
    DTYPES,
    THRESHOLDS,
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_entities_are_gliner_s_of_each_text_alone(
    shapes: list[tuple[int, int]],
    dtype: torch.dtype,
    threshold: float,
    flat_ner: bool,
    multi_label: bool,
    data: st.DataObject,
):
    logits = [drawn(data, LOGITS, words, classes, 3).to(dtype) for words, classes in shapes]
    words = [drawn(data, NUMBERS, count, WIDTH).to(dtype) for count, _ in shapes]
    prompts = [drawn(data, NUMBERS, classes, WIDTH).to(dtype) for _, classes in shapes]
    labels = [data.draw(st.integers(0, classes)) for _, classes in shapes]  # some have an entity token inside
    pairs = st.tuples(st.integers(0, 5), st.integers(0, 5))
    allowed = [data.draw(st.lists(pairs, max_size=9)) for _ in shapes] if data.draw(st.booleans()) else None
    options = {"threshold": threshold, "flat_ner": flat_ner, "multi_label": multi_label}
    word_counts = np.array([count for count, _ in shapes])
    selection = select(
        [threshold] * len(shapes),
        labels,
        nested=np.full(len(shapes), not flat_ner),
        multi_label=np.full(len(shapes), multi_label),
        allowed=None if allowed is None else [{(first, last + 1) for first, last in own} for own in allowed],
    )
    with pytest.MonkeyPatch.context() as patch:  # or equal logits get sigmoids a rounding apart, and are no tie
        patch.setattr(torch, "sigmoid", rounded_sigmoid)
        for module in (marked_spans, represented_spans):
            patch.setattr(module, "probabilities", rounded_sigmoid)
        packed = torch.cat([own.reshape(-1) for own in logits]), torch.cat(words), torch.cat(prompts)
        class_counts = np.array([classes for _, classes in shapes])
        found = find_represented_spans(*packed, Ends(), word_counts, class_counts, selection)  # type: ignore[arg-type]
        best = resolve(found.candidates, word_counts, selection.nested, selection.multi_label)
        rows = list(
            zip(
                best.starts.tolist(), (best.ends - 1).tolist(), best.classes.tolist(), best.scores.tolist(), strict=True
            )
        )
        for at, own in enumerate(logits):
            spans = {} if allowed is None else {"input_spans": [allowed[at]]}
            expected = answers_of_gliner(own, words[at], prompts[at], labels[at], **options, **spans)
            assert rows[best.offsets[at] : best.offsets[at + 1]] == expected


# --- cases ------------------------------------------------------------------------------------------------------------


def one_text(marks: list[list[list[float]]], *, threshold: Any = 0.5, labels: int | None = None, **given: Any) -> Any:
    """Candidates of one text; words and prompts are ones, so that every score is the sigmoid of 9."""
    own = torch.tensor(marks)
    words = given.get("words", torch.ones(len(own), WIDTH))
    prompts = torch.ones(own.shape[1], WIDTH)
    selection = select([threshold], [own.shape[1] if labels is None else labels])
    return listed(find([own], [words], [prompts], selection, torch.float32))[0]


ALL, NONE = [0.9, 0.9, 0.9], [0.1, 0.1, 0.1]


def places(found: Any) -> list[tuple[int, int, int, int]]:
    return [(start, end, class_, marker) for start, end, class_, _, _, marker in found]


def test_every_type_rates_what_any_type_marks_once_for_each_that_does():
    assert places(one_text([[ALL, NONE]])) == [(0, 1, 0, 0), (0, 1, 1, 0)]
    assert places(one_text([[ALL, ALL]])) == [(0, 1, 0, 0), (0, 1, 1, 0), (0, 1, 0, 1), (0, 1, 1, 1)]


def test_marks_must_pass_the_threshold_inside_too():
    assert places(one_text([[[0.9, 0.9, 0.5]]])) == []  # where those of other token-level models need but reach it
    assert places(one_text([[[0.9, 0.9, float(np.nextafter(np.float32(0.5), np.float32(1)))]]])) == [(0, 1, 0, 0)]


def test_nothing_passes_one_and_all_that_is_marked_passes_zero():
    assert one_text([[[1.0, 1.0, 1.0]]], threshold=1.0) == []
    assert places(one_text([[[1e-9, 1e-9, 1e-9]]], threshold=0.0)) == [(0, 1, 0, 0)]
    assert one_text([[[1e-9, 1e-9, 0.0]]], threshold=0.0) == []


def test_scores_are_compared_in_float64():
    words = torch.tensor([[1.0, 0.0, 0.0]])  # a logit of 3, whose sigmoid in float32 is the next number above
    ((*_, score, _, _),) = one_text([[[1.0, 1.0, 1.0]]], words=words, threshold=0.9525741268224334)
    assert score == float(np.float32(0.9525741268224334))
    assert one_text([[[1.0, 1.0, 1.0]]], words=words, threshold=score) == []


def test_an_entity_token_without_a_label_marks_and_rates_nothing():
    assert places(one_text([[NONE, ALL]], labels=1)) == [(0, 1, 0, 1)]
    assert one_text([[NONE, ALL]], labels=1, threshold=[0.5]) == []  # it has no threshold of its own


def test_each_label_s_threshold_is_that_of_its_marks_and_of_its_scores():
    assert places(one_text([[ALL, NONE]], threshold=[0.95, 0.05])) == [(0, 1, 0, 1), (0, 1, 1, 1)]
    assert places(one_text([[ALL, NONE]], threshold=[0.5, 1.0])) == [(0, 1, 0, 0)]


def test_scores_that_are_no_numbers_pass_nothing():
    assert one_text([[ALL]], words=torch.full((1, WIDTH), torch.nan), threshold=0.0) == []


def test_texts_without_words_labels_or_marks_have_no_candidates():
    marks = [torch.zeros(0, 2, 3), torch.zeros(2, 0, 3), torch.zeros(1, 1, 3), torch.ones(1, 1, 3)]
    words = [torch.ones(len(own), WIDTH) for own in marks]
    prompts = [torch.ones(own.shape[1], WIDTH) for own in marks]
    found = listed(find(marks, words, prompts, select([0.5] * 4, [2, 0, 1, 1]), torch.float32))
    assert [places(own) for own in found] == [[], [], [], [(0, 1, 0, 0)]]
    assert listed(find(marks[:3], words[:3], prompts[:3], select([0.5] * 3, [2, 0, 1]), torch.float32)) == [[], [], []]


@pytest.mark.parametrize("most", [1, WIDTH * 7, WIDTH * 40])
def test_blocks_change_nothing(most: int, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    marks = [torch.rand(8, 3, 3), torch.rand(1, 1, 3), torch.rand(9, 6, 3)]
    words = [torch.randn(len(own), WIDTH) for own in marks]
    prompts = [torch.randn(own.shape[1], WIDTH) for own in marks]
    asked = marks, words, prompts, select([0.2, 0.1, 0.3], [3, 1, 5]), torch.float32
    whole = listed(find(*asked))
    assert sum(map(len, whole)) > 30
    monkeypatch.setattr(represented_spans, "_CPU_BLOCK", most)
    assert listed(find(*asked)) == whole
