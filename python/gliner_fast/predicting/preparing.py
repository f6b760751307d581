"""Texts -> subwords of their words and prompts: all that happens before the device is needed."""

from __future__ import annotations

import warnings
from bisect import bisect_left
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gliner_fast.batch import Batcher, EncodedPrompts
from gliner_fast.errors import LongTextError
from gliner_fast.label_encoder import LabelTexts
from gliner_fast.labels import LabelSet
from gliner_fast.predicting.long_texts import Rows, cut_rows, fit_rows, words_of_rows
from gliner_fast.predicting.request import Request
from gliner_fast.words import NO_LIMIT, WordTriples, split_words, word_span_finder

if TYPE_CHECKING:
    from gliner_fast import _rust

WordSpans = set[tuple[int, int]]


@dataclass(frozen=True)
class Prepared:
    """T distinct texts of a request, laid out in R rows of subwords.

    Attributes:
        request: what is asked.
        batcher: what made subwords of it, and makes batches of them, whatever the model has by then.
        places: (T,) where each text stands in the request, first if it came more than once.
        further_places: by a text's number among them, where else it stands, if it came more than once.
        texts: the texts that have words.
        words: of these texts.
        rows: what the network reads of them.
        subwords: of the rows' words.
        prompts: of the label sets.
        set_of_text: (T,), index into the label sets.
        lengths: (R,) subwords of each row, prompt and special subwords included.
        allowed_spans: for each row the word spans, counted in the row, that may be entities; None for all.
        warnings: what the user is to be told.
        seconds: what this took.
    """

    request: Request
    batcher: Batcher
    places: NDArray[np.int64]
    further_places: Mapping[int, Sequence[int]]
    texts: list[str]
    words: _rust.Words
    rows: Rows
    subwords: _rust.Subwords
    prompts: EncodedPrompts
    set_of_text: NDArray[np.int64]
    lengths: NDArray[np.int64]
    allowed_spans: list[WordSpans] | None
    warnings: list[str]
    seconds: float

    @property
    def label_sets(self) -> Sequence[LabelSet]:
        """The distinct label sets."""
        return self.request.labels.sets

    @property
    def scorable(self) -> NDArray[np.int64]:
        """Rows that have labels and words."""
        label_counts = np.array([len(labels.names) for labels in self.label_sets], np.int64)
        have_labels = label_counts[self.set_of_text[self.rows.texts]] > 0
        return np.flatnonzero(have_labels & (self.rows.lasts > self.rows.firsts))

    def label_sets_of(self, texts: NDArray[np.int64]) -> list[LabelSet]:
        """The label set of each of some texts."""
        return [self.label_sets[index] for index in self.set_of_text[texts].tolist()]

    def warn(self, *, stacklevel: int) -> None:
        """Tells the user; level 1 is the caller of this."""
        for message in self.warnings:
            warnings.warn(message, stacklevel=stacklevel + 1)


def prepare(
    request: Request, batcher: Batcher, *, max_words: int, max_width: int, splitter: WordTriples | None
) -> Prepared:
    """Makes subwords of texts and labels; touches no device and may run in any thread.

    Args:
        request: the texts and what is asked of them.
        batcher: knows the tokenizer.
        max_words: longest row in words.
        max_width: K, words of the widest span.
        splitter: the user's own word splitter, or None.

    Raises:
        LongTextError: a text is too long, with `on_long="error"`.
        ValueError: one has words that no window has room for, with `must_read_all`.
        TypeError: input spans of another form.
    """
    began = perf_counter()
    on_long = request.options.on_long
    firsts, further_places = _distinct_texts(request)
    texts = [request.texts[place] for place in firsts]
    places = np.array(firsts, np.int64)
    split = split_words(texts, NO_LIMIT if on_long == "window" else max_words, splitter)
    words, total_counts = split.words, split.total_counts
    given = request.options.label_vectors
    if given is None:
        prompts = batcher.encode_prompts(request.labels.sets)
    else:
        prompts = batcher.with_labels(LabelTexts((), 0, given), request.labels.sets)
    set_of_text = request.labels.set_of_text[places]
    rooms = _subword_rooms(batcher, prompts, set_of_text)
    if on_long == "window":
        # So many words a window has even where not all of them are read: labels may leave room for a few alone.
        least = 1 if request.options.must_read_all else min(max_words, 2 * max_width)
        rows, subwords = _cut_to_fit(split.read_texts, split.read, rooms, batcher, max_words, max_width, least=least)
        are_overfull = subwords.subword_counts > rooms[rows.texts]
        if request.options.must_read_all:
            _refuse_overfull(request, firsts, rows.texts[are_overfull], batcher)
        told = _tell_overfull(are_overfull, batcher)
    else:
        word_counts = np.diff(words.text_offsets)
        rows = cut_rows(word_counts, np.maximum(word_counts, 1), max_width)
        subwords = batcher.encode_words(split.read)
        if on_long == "error":
            _refuse_long(request, firsts, total_counts, max_words, subwords.subword_counts, rooms)
        told = _tell_truncated(further_places, total_counts, max_words)
    lengths = batcher.row_lengths(subwords, prompts, set_of_text[rows.texts])
    spans = request.options.input_spans
    allowed = None if spans is None else _spans_of_rows(_word_spans([spans[place] for place in firsts], words), rows)
    return Prepared(
        request,
        batcher,
        places,
        further_places,
        texts,
        words,
        rows,
        subwords,
        prompts,
        set_of_text,
        lengths,
        allowed,
        told,
        perf_counter() - began,
    )


def can_read_whole(request: Request, batcher: Batcher, splitter: WordTriples | None) -> bool:
    """Whether `must_read_all` finds nothing to refuse: every word of every text has room beside the text's labels."""
    if batcher.tokenizer.max_subwords is None:
        return True
    split = split_words(request.texts, splitter=splitter)
    rooms = _subword_rooms(batcher, batcher.encode_prompts(request.labels.sets), request.labels.set_of_text)
    lengths = batcher.encode_words(split.read).word_lengths
    return not bool((lengths > np.repeat(rooms, np.diff(split.read.text_offsets))).any())


def _distinct_texts(request: Request) -> tuple[list[int], dict[int, list[int]]]:
    """The first place of each text that has words, and the further ones of equal texts, which are computed once.

    Nothing that Python's garbage collector looks through is kept for a text: in a thorough collection no thread goes
    on, and how often one comes depends on how many such objects are kept.
    """
    options, sets = request.options, request.labels.set_of_text.tolist()
    all_values = (
        *(options.threshold, options.flat_ner, options.multi_label),
        *(options.adjacency_threshold, options.relation_threshold),
    )
    own_values = [values for values in all_values if isinstance(values, Sequence)]
    are_plain = options.input_spans is None and not own_values and len(request.labels.sets) == 1
    numbers: dict[Hashable, int] = {}
    firsts: list[int] = []
    further_places: dict[int, list[int]] = {}
    for place, text in enumerate(request.texts):
        if not isinstance(text, str) or not text or text.isspace():
            continue
        key: Hashable = text
        if not are_plain:
            values = [place] if options.input_spans is not None else [value[place] for value in own_values]
            key = (text, sets[place], *values)
        number = numbers.setdefault(key, len(firsts))
        if number == len(firsts):
            firsts.append(place)
        else:
            further_places.setdefault(number, []).append(place)
    return firsts, further_places


def _subword_rooms(batcher: Batcher, prompts: EncodedPrompts, set_of_text: NDArray[np.int64]) -> NDArray[np.int64]:
    """Subwords that the tokenizer's limit leaves for the words of each text, (T,); may be negative."""
    tokenizer = batcher.tokenizer
    limit = NO_LIMIT if tokenizer.max_subwords is None else tokenizer.max_subwords
    return limit - len(tokenizer.prefix) - len(tokenizer.suffix) - prompts.lengths[set_of_text]


def _cut_to_fit(
    texts: Sequence[str],
    words: _rust.Words,
    rooms: NDArray[np.int64],
    batcher: Batcher,
    max_words: int,
    max_width: int,
    *,
    least: int,
) -> tuple[Rows, _rust.Subwords]:
    """Rows of at most `max_words` words, and of fewer, but `least`, where their subwords would pass the text's room."""
    rows = cut_rows(np.diff(words.text_offsets), np.full(len(texts), max_words), max_width)
    subwords = batcher.encode_words(words_of_rows(texts, words, rows))
    overfull = np.zeros(len(texts), np.bool_)
    overfull[rows.texts[subwords.subword_counts > rooms[rows.texts]]] = True
    overfull &= rooms > 0
    if not overfull.any():
        return rows, subwords
    whole = batcher.encode_words(words) if rows.are_windows.any() else subwords
    rows = fit_rows(rows, overfull, whole.word_lengths, words.text_offsets, rooms, max_words, max_width, least=least)
    return rows, batcher.encode_words(words_of_rows(texts, words, rows))


def _refuse_long(
    request: Request,
    places: list[int],
    total_counts: NDArray[np.int64],
    max_words: int,
    subword_counts: NDArray[np.int64],
    rooms: NDArray[np.int64],
) -> None:
    """Raises LongTextError for the first text that the model would not read whole."""
    for place, words, subwords, room in zip(
        places, total_counts.tolist(), subword_counts.tolist(), rooms.tolist(), strict=True
    ):
        number = request.first_text + place
        if words > max_words:
            raise LongTextError(number, f"has {words:,} words, and the model reads {max_words:,}")
        if subwords > room:
            raise LongTextError(
                number,
                f"has {subwords:,} subwords in its {words:,} words, and the tokenizer's limit leaves room for "
                f"{max(0, room):,} beside the labels",
            )


def _tell_truncated(
    further_places: Mapping[int, Sequence[int]], total_counts: NDArray[np.int64], max_words: int
) -> list[str]:
    """The package's warning for each text of the request that was cut off."""
    return [
        f"Sentence of length {total_counts[text]} has been truncated to {max_words}"
        for text in np.flatnonzero(total_counts > max_words).tolist()
        for _ in range(1 + len(further_places.get(text, ())))
    ]


def _refuse_overfull(request: Request, places: list[int], overfull: NDArray[np.int64], batcher: Batcher) -> None:
    """Raises ValueError for the first text of which some words are not read."""
    if len(overfull):
        raise ValueError(
            f"text {request.first_text + places[overfull[0]]} has words that are not read, since a window of it and "
            f"the labels pass the tokenizer's limit of {batcher.tokenizer.max_subwords} subwords: ask for fewer "
            "labels, or leave the text out"
        )


def _tell_overfull(are_overfull: NDArray[np.bool_], batcher: Batcher) -> list[str]:
    """One warning, always the same: Python then shows it once, whatever the number of texts."""
    if not are_overfull.any():
        return []
    message = (
        f"windows of a long text and the labels pass the tokenizer's limit of {batcher.tokenizer.max_subwords} "
        "subwords; the words beyond are not read: ask for fewer labels"
    )
    return [message]


def _word_spans(input_spans: Sequence[Sequence[Mapping[str, int]]], words: _rust.Words) -> list[WordSpans]:
    """Character spans -> word spans; one that does not begin and end with a word is dropped (compat section 1.3)."""
    allowed = []
    offsets, starts, ends = words.text_offsets.tolist(), words.starts.tolist(), words.ends.tolist()
    for text, spans in enumerate(input_spans):
        own = slice(offsets[text], offsets[text + 1])
        find_words = word_span_finder(starts[own], ends[own])
        try:
            found = [find_words(span["start"], span["end"]) for span in spans]
        except (TypeError, KeyError) as error:
            raise TypeError(
                f"input_spans holds {spans!r} for a text: expected a list of mappings such as {{'start': 0, 'end': 12}}"
            ) from error
        allowed.append({span for span in found if span is not None})
    return allowed


def _spans_of_rows(spans: list[WordSpans], rows: Rows) -> list[WordSpans]:
    """The spans that each row sees whole, counted in the row: what it does not own may be related to what it owns."""
    ordered = [sorted(own) for own in spans]
    of_rows = []
    for text, first, last in zip(rows.texts.tolist(), rows.firsts.tolist(), rows.lasts.tolist(), strict=True):
        own = ordered[text]
        chosen = own[bisect_left(own, (first,)) : bisect_left(own, (last,))]
        of_rows.append({(start - first, end - first) for start, end in chosen if end <= last})
    return of_rows
