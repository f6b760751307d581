"""Relations of long texts: of each pair that some window sees one window tells, and the text keeps what it may."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliner_fast.labels import LabelSet
from gliner_fast.predicting.describing import Findings
from gliner_fast.predicting.linking import FoundRelations
from gliner_fast.predicting.long_texts import Rows, cut_rows, fit_rows
from gliner_fast.predicting.window_relations import WindowRelations, link_windows, of_windows
from gliner_fast.scoring.candidates import Candidates
from tests.reference.examples import examples

Span = tuple[int, int]
# Of each text its words' subwords, and spans in it.
TEXTS = st.lists(
    st.tuples(
        st.lists(st.sampled_from([1, 1, 1, 2, 5, 9]), max_size=60),
        st.sets(st.tuples(st.integers(0, 59), st.integers(1, 4)), max_size=8),
    ),
    min_size=1,
    max_size=3,
)


def rows_of(lengths: list[list[int]], *, room: int | None, most: int, width: int) -> Rows:
    """Windows of texts: by words alone, or also by subwords."""
    counts = np.array([len(own) for own in lengths], np.int64)
    rows = cut_rows(counts, np.full(len(lengths), most), width)
    if room is None:
        return rows
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    flat = np.array([length for own in lengths for length in own], np.int64)
    chosen = counts > 0
    return fit_rows(rows, chosen, flat, offsets, np.full(len(lengths), room), most, width, least=1)


def seen_by(rows: Rows, row: int, spans: list[Span]) -> list[Span]:
    """The spans that lie whole in a row."""
    return [span for span in spans if rows.firsts[row] <= span[0] and span[1] <= rows.lasts[row]]


def told_by_batch(rows: Rows, batch: list[int], spans: list[list[Span]]) -> WindowRelations:
    """What a batch tells whose windows find one relation from each span to each other one that they see."""
    entities: list[list[Span]] = []
    heads, tails, places = [], [], []
    at = 0
    for place, row in enumerate(batch):
        own = seen_by(rows, row, spans[rows.texts[row]])
        pairs = [(head, tail) for head in range(len(own)) for tail in range(len(own)) if head != tail]
        heads += [at + head for head, _ in pairs]
        tails += [at + tail for _, tail in pairs]
        places += [place] * len(pairs)
        entities.append([(start - rows.firsts[row], end - rows.firsts[row]) for start, end in own])
        at += len(own)
    flat = np.array([span for own in entities for span in own], np.int64).reshape(-1, 2)
    offsets = np.concatenate([[0], np.cumsum([len(own) for own in entities])]).astype(np.int64)
    zeros = np.zeros(len(flat), np.int64)
    count = len(places)
    found = FoundRelations(
        np.array(places, np.int64),
        np.array(heads, np.int64),
        np.array(tails, np.int64),
        np.zeros(count, np.int64),
        np.arange(count, dtype=np.float32),
        {"vector": np.arange(2 * count, dtype=np.float32).reshape(count, 2)},
    )
    candidates = Candidates(offsets, flat[:, 0], flat[:, 1], zeros, zeros.astype(np.float32))
    return of_windows(SimpleNamespace(rows=rows), np.array(batch, np.int64), found, candidates)


@examples
@given(
    texts=TEXTS,
    room=st.sampled_from([None, 12, 30]),
    most=st.sampled_from([5, 12, 24]),
    width=st.integers(1, 5),
    batch_size=st.integers(1, 4),
    data=st.data(),
)
def test_of_two_spans_that_some_window_sees_one_window_tells(texts, room, most, width, batch_size, data):
    rows = rows_of([lengths for lengths, _ in texts], room=room, most=most, width=width)
    spans = [
        sorted((start, start + words) for start, words in own if start + words <= len(lengths))
        for lengths, own in texts
    ]
    order = data.draw(st.permutations(range(len(rows.texts))))
    batches = [list(order[first : first + batch_size]) for first in range(0, len(order), batch_size)]
    told = []
    for batch in batches:
        part = told_by_batch(rows, batch, spans)
        told += [(text, *ends) for text, ends in zip(part.texts.tolist(), part.ends.tolist(), strict=True)]
        assert len(part.found.scores) == len(part.found.vectors["vector"]) == len(part.texts)
    seen = {
        (int(text), *head, *tail)
        for row, text in enumerate(rows.texts)
        for head in seen_by(rows, row, spans[text])
        for tail in seen_by(rows, row, spans[text])
        if head != tail
    }
    assert len(told) == len(set(told))
    assert set(told) == seen


# Windows of 12 words that share 6; the first owns words 0 to 8, the next 9 to 14, the last the others.
ROWS = cut_rows(np.array([24]), np.array([12]), 1)


@pytest.mark.parametrize(
    ("head", "tail", "teller"),
    [
        ((2, 3), (4, 5), 0),  # both are the first's
        ((8, 9), (10, 11), 0),  # the head is the first's, and it sees the tail
        ((10, 11), (8, 9), 1),  # the head is the second's, and it sees the tail
        ((9, 10), (8, 9), 1),  # its first word
        ((10, 11), (2, 3), 0),  # the second, whose the head is, does not see the tail
        ((2, 3), (11, 12), 0),
        ((17, 18), (13, 14), 2),
        ((13, 14), (17, 18), 1),
        ((14, 15), (22, 23), 2),
        ((7, 8), (17, 18), 1),  # neither owner sees both; the second sees them up to its last word
    ],
)
def test_the_owner_of_the_head_tells_where_it_sees_both(head: Span, tail: Span, teller: int):
    assert ROWS.owned_lasts.tolist() == [9, 15, 24]
    tellers = [
        row
        for row in range(3)
        for ends in told_by_batch(ROWS, [row], [[head, tail]]).ends.tolist()
        if ends == [*head, *tail]
    ]
    assert tellers == [teller]


def test_spans_that_no_window_sees_together_are_not_related():
    parts = [told_by_batch(ROWS, [row], [[(2, 3), (13, 14)]]) for row in range(3)]
    assert sum(len(part.texts) for part in parts) == 0


# --- what the text keeps ----------------------------------------------------------------------------------------------


def findings(*spans: tuple[int, int, int]) -> tuple[Findings, list[dict[str, Any]]]:
    """Entities of texts, (text, first word, end), as they are and as they are described."""
    columns = np.array(spans, np.int64).reshape(-1, 3).T
    zeros = np.zeros(len(spans), np.int64)
    described = [
        {"start": start, "end": end, "text": f"{text}:{start}-{end}", "label": f"label {number}", "score": 0.5}
        for number, (text, start, end) in enumerate(spans)
    ]
    return Findings(*columns, zeros, zeros.astype(np.float32), {}), described


def window_relations(*relations: tuple[int, int, int, int, int, int, float], width: int = 0) -> WindowRelations:
    """(text, head's first word and end, tail's, class, score) of each."""
    texts, ends, classes = (
        np.array([relation[part] for relation in relations], np.int64) for part in (0, slice(1, 5), 5)
    )
    scores = np.array([relation[6] for relation in relations], np.float32)
    none = np.zeros(len(relations), np.int64)
    vectors = {"vector": np.repeat(scores[:, None], width, axis=1)} if width else {}
    found = FoundRelations(none, none, none, classes, scores, vectors)
    return WindowRelations(texts, ends.reshape(-1, 4), found)


def linked(parts: list[WindowRelations], *spans: tuple[int, int, int]) -> tuple[list[int], list[Any]]:
    relations = LabelSet.read(["knows", "likes"])
    plain, related = LabelSet.read(["person"]), LabelSet(("person",), ("person",), relations)
    prepared = SimpleNamespace(label_sets_of=lambda texts: [related if text else plain for text in texts.tolist()])
    texts, found = link_windows(prepared, parts, *findings(*spans))
    return texts.tolist(), found


def test_relations_are_of_what_became_entities_and_by_text_head_tail_and_class():
    parts = [
        window_relations((4, 7, 9, 0, 1, 1, 0.1), (4, 0, 1, 7, 9, 1, 0.2), (4, 0, 1, 7, 8, 0, 0.9)),
        window_relations((4, 0, 1, 3, 4, 0, 0.3), (1, 5, 6, 7, 8, 0, 0.4), (4, 0, 1, 7, 9, 0, 0.5)),
        window_relations((4, 5, 6, 0, 1, 1, 0.9)),
    ]
    spans = [(1, 5, 6), (1, 7, 8), (4, 0, 1), (4, 3, 4), (4, 7, 9)]
    texts, found = linked(parts, *spans)
    assert texts == [1, 4, 4, 4, 4]
    assert [(r["head"]["entity_idx"], r["tail"]["entity_idx"], r["relation"], round(r["score"], 2)) for r in found] == [
        (0, 1, "knows", 0.4),
        (0, 1, "knows", 0.3),
        (0, 2, "knows", 0.5),
        (0, 2, "likes", 0.2),
        (2, 0, "likes", 0.1),
    ]
    assert found[0]["head"] == {"start": 5, "end": 6, "text": "1:5-6", "type": "label 0", "entity_idx": 0}


def test_a_span_of_several_labels_is_related_once_as_the_first_of_them():
    parts = [window_relations((1, 0, 1, 3, 4, 0, 0.3))]
    _, (relation,) = linked(parts, (1, 0, 1), (1, 0, 1), (1, 3, 4), (1, 3, 4))
    assert (relation["head"]["entity_idx"], relation["tail"]["entity_idx"]) == (0, 2)
    assert (relation["head"]["type"], relation["tail"]["type"]) == ("label 0", "label 2")


def test_vectors_stay_with_their_relations():
    parts = [
        window_relations(),  # of windows that found none: without vectors
        window_relations((1, 3, 4, 0, 1, 0, 0.75), (1, 0, 1, 9, 10, 0, 0.625), width=2),
        window_relations((1, 0, 1, 3, 4, 0, 0.5), width=2),
    ]
    _, found = linked(parts, (1, 0, 1), (1, 3, 4))
    assert [relation["score"] for relation in found] == [0.5, 0.75]
    assert [relation["vector"].tolist() for relation in found] == [[0.5, 0.5], [0.75, 0.75]]


@pytest.mark.parametrize("parts", [[], [window_relations()], [window_relations((1, 5, 6, 7, 8, 0, 0.5))]])
def test_nothing_between_entities_is_no_relation(parts: list[WindowRelations]):
    assert linked(parts, (1, 0, 1), (1, 3, 4)) == ([], [])
