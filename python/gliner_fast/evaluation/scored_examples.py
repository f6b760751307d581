"""A model and examples -> all candidates with their scores, once; then scores at any threshold, by decoding alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from gliner_fast import _rust
from gliner_fast.annotated.example import Example
from gliner_fast.batch import plan_batches
from gliner_fast.decode import Selection, flat_thresholds, resolve
from gliner_fast.evaluation.scores import Score
from gliner_fast.labels import LabelSet, label_thresholds
from gliner_fast.predicting.out_of_memory import halved_subwords, is_out_of_memory, lowered_budget
from gliner_fast.scoring.candidates import Candidates
from gliner_fast.scoring.marked_spans import find_marked_spans

if TYPE_CHECKING:
    from gliner_fast.batch import Batch, Batcher
    from gliner_fast.model import GLiNER
    from gliner_fast.network import BatchScores
    from gliner_fast.predicting.predictor import Predictor

_Ints: TypeAlias = NDArray[np.int64]
_Floats: TypeAlias = NDArray[np.float32]
_Doubles: TypeAlias = NDArray[np.float64]
# Texts, starts, ends, classes, scores, edges, markers and insides of candidates.
Columns = tuple[_Ints, _Ints, _Ints, _Ints, _Floats, _Floats, _Ints, _Doubles]
LabelThresholds = float | Mapping[str, float]
"""One threshold for all labels, or one for each label that is asked for."""


@dataclass(frozen=True)
class ScoredExamples:
    """Every span of E examples that scores above a floor, S in all.

    Attributes:
        labels: the C labels that are asked for or annotated.
        asked: (C,) whether a label is asked for anywhere; one that is not is missed wherever it is annotated.
        candidates: of the examples, in order; classes index `labels`.
        edges: (S,) what must pass a threshold, in the precision of the scores, for a candidate to be found there.
        markers: (S,) the label whose threshold that is: the candidate's own, but in a model that scores the spans that
            it marks the one that marks it; -1 for an entity token without a label, which has the threshold for all.
        insides: (S,) what must reach that of the candidate's own label, in float64 (`marked_spans`); infinite where the
            model scores all spans.
        are_gold: (S,) whether a candidate is annotated.
        gold: (E, C) annotated entities of each example, equal ones counted once.
        word_counts: (E,) words that the model read.
        cut: (E,) whether an example was longer than the model reads; what is annotated behind the cut is missed.
        floor: no threshold may lie below it.
        dtype: of the scores; thresholds are compared in it.
    """

    labels: tuple[str, ...]
    asked: NDArray[np.bool_]
    candidates: Candidates
    edges: NDArray[np.float32]
    markers: NDArray[np.int64]
    insides: NDArray[np.float64]
    are_gold: NDArray[np.bool_]
    gold: NDArray[np.int64]
    word_counts: NDArray[np.int64]
    cut: NDArray[np.bool_]
    floor: float
    dtype: torch.dtype

    def scores_at(self, threshold: LabelThresholds, *, flat_ner: bool, multi_label: bool) -> dict[str, Score]:
        """Decodes at a threshold and compares with the annotation.

        What is found at the threshold is a part of the candidates, in the same order, so the greedy search over it
        is the one that a prediction at this threshold makes.

        Args:
            threshold: for all labels, or for each.
            flat_ner: no two entities share a word.
            multi_label: one span may have several labels.

        Returns:
            The score of each label.

        Raises:
            ValueError: a threshold below the floor, or a label without one.
        """
        limits = self._limits(threshold)  # (C + 1,)
        found = self.candidates
        in_precision = torch.from_numpy(limits).to(self.dtype).float().numpy()
        passes = (self.edges > in_precision[self.markers]) & (self.insides >= limits[found.classes])  # (S,)
        passing = np.flatnonzero(passes)  # (P,)
        chosen = Candidates(
            np.searchsorted(passing, found.offsets).astype(np.int64),
            found.starts[passing],
            found.ends[passing],
            classes=passing,  # not read: this tells which ones are kept
            scores=found.scores[passing],
        )
        many = len(self.word_counts)
        kept = resolve(
            chosen, self.word_counts, np.full(many, not flat_ner), np.full(many, multi_label, np.bool_)
        ).classes
        if multi_label:
            kept = self._counted_once(kept)
        classes = found.classes[kept]
        predicted = np.bincount(classes, minlength=len(self.labels)).tolist()
        hits = np.bincount(classes[self.are_gold[kept]], minlength=len(self.labels)).tolist()
        gold = self.gold.sum(0).tolist()
        return {label: Score(gold[c], predicted[c], hits[c]) for c, label in enumerate(self.labels)}

    def part(self, chosen: NDArray[np.bool_]) -> ScoredExamples:
        """Some of the examples, chosen by a mask (E,)."""
        own = chosen[self.candidates.texts]  # (S,)
        counts = np.diff(self.candidates.offsets)[chosen]
        return ScoredExamples(
            self.labels,
            self.asked,
            Candidates(
                np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
                self.candidates.starts[own],
                self.candidates.ends[own],
                self.candidates.classes[own],
                self.candidates.scores[own],
            ),
            self.edges[own],
            self.markers[own],
            self.insides[own],
            self.are_gold[own],
            self.gold[chosen],
            self.word_counts[chosen],
            self.cut[chosen],
            self.floor,
            self.dtype,
        )

    def _counted_once(self, kept: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of equal entities, which come of a span that several labels mark, the first."""
        found, words = self.candidates, 1 + self.word_counts.max(initial=0)
        place = (found.texts[kept] * words + found.starts[kept]) * words + found.ends[kept]
        first: NDArray[np.int64]
        _, first = np.unique(place * len(self.labels) + found.classes[kept], return_index=True)
        return kept[first]

    def _limits(self, threshold: LabelThresholds) -> NDArray[np.float64]:
        """(C + 1,) the threshold of each label, and of what has none."""
        if isinstance(threshold, Mapping):
            asked = tuple(label for label, is_asked in zip(self.labels, self.asked.tolist(), strict=True) if is_asked)
            own = dict(zip(asked, label_thresholds(asked, threshold), strict=True))
            values = [*(own.get(label, np.inf) for label in self.labels), np.inf]
        else:
            values = [float(threshold)] * (len(self.labels) + 1)
        if min(values) < self.floor:
            raise ValueError(f"the threshold {min(values)} is below {self.floor}, from where on the spans were scored")
        return np.array(values, np.float64)


def score_examples(
    model: GLiNER, examples: Sequence[Example], label_sets: Sequence[LabelSet], *, floor: float
) -> ScoredExamples:
    """Scores the words of some examples as they stand: no splitter comes in (compat section 7.5).

    Args:
        model: the model; it is left in evaluation mode.
        examples: E examples.
        label_sets: (E,) what each is asked for.
        floor: spans that do not score above it are forgotten.
    """
    predictor = model.predictor()
    words = [list(example.words[: predictor.max_words]) for example in examples]
    names = [name for own in dict.fromkeys(label_sets) for name in own.names]
    asked = set(names)
    labels = tuple(dict.fromkeys([*names, *(label for example in examples for _, _, label in example.spans)]))
    candidates, edges, markers, insides, over_limit = _find_all(predictor, words, label_sets, labels, floor)
    class_of = {label: number for number, label in enumerate(labels)}
    wanted = [{(start, end, class_of[label]) for start, end, label in example.spans} for example in examples]
    gold = np.zeros((len(examples), len(labels)), np.int64)
    for row, own in zip(gold, wanted, strict=True):
        for _, _, number in own:
            row[number] += 1
    found = zip(
        candidates.texts.tolist(),
        candidates.starts.tolist(),
        candidates.ends.tolist(),
        candidates.classes.tolist(),
        strict=True,
    )
    return ScoredExamples(
        labels,
        np.array([label in asked for label in labels], np.bool_),
        candidates,
        edges,
        markers,
        insides,
        np.array([(start, end, number) in wanted[text] for text, start, end, number in found], np.bool_),
        gold,
        np.array([len(own) for own in words], np.int64),
        cut=over_limit | np.array([len(example.words) > predictor.max_words for example in examples], np.bool_),
        floor=floor,
        dtype=model.dtype,
    )


def _find_all(
    predictor: Predictor,
    words: Sequence[Sequence[str]],
    label_sets: Sequence[LabelSet],
    labels: Sequence[str],
    floor: float,
) -> tuple[Candidates, _Floats, _Ints, _Doubles, NDArray[np.bool_]]:
    """The candidates of all texts, classes indexing `labels`; edges; markers; insides; which texts were cut."""
    batcher: Batcher = predictor.batcher
    subwords = batcher.encode_words(_rust.Words.from_lists(words))
    place = {own: number for number, own in enumerate(dict.fromkeys(label_sets))}
    sets = list(place)
    prompts = batcher.encode_prompts(sets)
    set_of_text = np.array([place[own] for own in label_sets], np.int64)
    label_counts = np.array([len(own.names) for own in sets], np.int64)
    class_table = _class_table(sets, labels)
    lengths = batcher.row_lengths(subwords, prompts, set_of_text)
    over_limit = batcher.find_cut_rows(subwords, prompts, set_of_text)
    padded = not predictor.network.reads_packed

    def find_in(rows: NDArray[np.int64]) -> Columns:
        batch = batcher.assemble(subwords, rows, prompts, set_of_text[rows], padded=padded)
        class_counts = batch.class_counts.numpy()
        unread = np.zeros(len(rows), np.bool_)  # nothing is resolved yet
        selection = Selection(
            [floor] * len(rows), unread, unread, label_counts=label_counts[set_of_text[rows]].tolist()
        )
        thresholds = torch.from_numpy(flat_thresholds(selection, class_counts))
        scores = predictor.network(batch.to(predictor.device), thresholds)
        found, edges, markers, insides = _find(predictor, batch, scores, selection)
        texts = rows[found.texts]  # (S,)
        sets = set_of_text[texts]
        columns = found.starts, found.ends, class_table[sets, found.classes], found.scores
        return texts, *columns, edges, class_table[sets, np.minimum(markers, class_table.shape[1] - 1)], insides

    scorable = np.flatnonzero(label_counts[set_of_text] > 0)
    none, no_scores = np.zeros(0, np.int64), np.zeros(0, np.float32)
    parts: list[Columns] = [(none, none, none, none, no_scores, no_scores, none, np.zeros(0, np.float64))]
    parts += _in_batches(predictor, scorable, lengths, find_in, padded=padded)
    texts, starts, ends, classes, score, edges, markers, insides = (
        np.concatenate(own) for own in zip(*parts, strict=True)
    )
    order = np.argsort(texts, kind="stable")  # within a text the order in which they were found, which decides ties
    offsets = np.searchsorted(texts[order], np.arange(len(words) + 1)).astype(np.int64)
    found = Candidates(offsets, starts[order], ends[order], classes[order], score[order])
    return found, edges[order], markers[order], insides[order], over_limit


def _find(
    predictor: Predictor, batch: Batch, scores: BatchScores, selection: Selection
) -> tuple[Candidates, _Floats, _Ints, _Doubles]:
    """The candidates of a batch; edges; markers, as classes; insides."""
    if predictor.network.spans is not None:
        found, marks, markers = predictor.represented_spans(batch, scores, selection)
        # Their scores must pass the threshold, where others' marks must reach it: the next lower number must.
        return found, marks, markers, np.nextafter(found.scores.astype(np.float64), -np.inf)
    if predictor.is_token_level:
        counts = batch.word_counts.numpy(), batch.class_counts.numpy()
        found, edges, insides = find_marked_spans(scores.logits, *counts, selection)
        return found, edges, found.classes, insides.astype(np.float64)
    found = predictor.candidates(batch, scores, selection)
    return found, found.scores, found.classes, np.full(len(found.scores), np.inf)


@torch.inference_mode()
def _in_batches(
    predictor: Predictor,
    rows: NDArray[np.int64],
    lengths: NDArray[np.int64],
    find_in: Callable[[NDArray[np.int64]], Columns],
    *,
    padded: bool,
) -> list[Columns]:
    """What is found in each batch of rows; where memory is short, they are made smaller.

    Raises:
        MemoryError: a single text does not fit.
    """
    budget, found = predictor.budget, list[Columns]()

    def plan(rows: NDArray[np.int64], budget: int) -> deque[NDArray[np.int64]]:
        return deque(rows[chosen] for chosen in plan_batches(lengths[rows], budget, None, padded=padded))

    waiting = plan(rows, budget)
    while waiting:
        try:
            found.append(find_in(waiting[0]))
            waiting.popleft()
            budget = predictor.recover_budget(budget)
        except Exception as error:  # noqa: PERF203  # batches are few
            if not is_out_of_memory(error):
                raise
            failed, *others = waiting
            halved = halved_subwords(lengths[failed], error, padded=padded)
            budget = lowered_budget(budget, halved)
            predictor.lower_budget(budget)
            waiting = plan(failed, halved)
            if others:
                waiting += plan(np.concatenate(others), budget)
    return found


def _class_table(sets: Sequence[LabelSet], labels: Sequence[str]) -> NDArray[np.int64]:
    """(sets, most labels of one + 1) the place in `labels` of each label of each set; -1 where it has fewer."""
    class_of = {label: number for number, label in enumerate(labels)}
    table = np.full((len(sets), 1 + max((len(own.names) for own in sets), default=0)), -1, np.int64)
    for row, own in zip(table, sets, strict=True):
        row[: len(own.names)] = [class_of[name] for name in own.names]
    return table
