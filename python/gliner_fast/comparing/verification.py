"""Ours against the installed reference, on the user's own texts.

Scores of two correct programs differ by rounding, about 1e-6 in fp32. Where a score lies that close to the threshold or
to the score of a conflicting candidate, rounding alone may decide which entity is kept. Such a difference is explained;
any other is a bug. Explained here means proven: *some* set of scores, each within the tolerance of the reference's, has
exactly our entities as its greedy result (compat section 6.2).
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gliner_fast.comparing.installed_gliner import load_reference, require_reference
from gliner_fast.comparing.placed_words import words_have_places
from gliner_fast.comparing.reference_candidates import (
    Candidate,
    Key,
    are_per_text,
    find_reference_candidates,
    labels_of_text,
    represents_spans,
)
from gliner_fast.comparing.reference_relations import (
    LinkedAnswers,
    ask_for_relations,
    ends_of,
    find_reference_relations,
)
from gliner_fast.comparing.relations import RelationThresholds, Scored, compare_relations
from gliner_fast.comparing.report import Cause, Difference, FoundBy, VerificationReport
from gliner_fast.entity import Entity
from gliner_fast.labels import Relations, expect_relations

if TYPE_CHECKING:
    from gliner_fast.model import GLiNER

TOLERANCE = 1e-4
# Rounding amplifies to about this in a trained model; bf16 has 8 bits.
_TOLERANCES = {"float32": TOLERANCE, "float64": TOLERANCE, "bfloat16": 0.05, "int8": 0.1, "partly int8": 0.1}
_OTHERWISE = 0.01
_REFERENCE_TEXTS = 32  # handed to the reference at a time: four of its own batches
_SECONDS_OF_SILENCE = 5


def verify(
    model: GLiNER | str | Path | None,
    texts: Sequence[str],
    labels: Any,
    *,
    threshold: float = 0.5,
    flat_ner: bool = True,
    multi_label: bool = False,
    relations: Relations = (),
    adjacency_threshold: float | None = None,
    relation_threshold: float | None = None,
    reference: Any = None,
    tolerance: float | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> VerificationReport:
    """Runs ours and the installed `gliner` on the same texts and compares the answers.

    With `relations` both are asked for entities and relations, `gliner` one text at a time: beside others its relations
    may depend on their labels, and some models of relations break down where a text has no candidate for an entity. So
    it is where the model scores the spans that it marks.

    Words that a checkpoint's splitter changes have no place in the text there: they are given ours.

    Args:
        model: a loaded `gliner_fast.GLiNER`, or what its `from_pretrained` takes: folder, Hub id, None (built in).
        texts: texts to compare on.
        labels: as for `GLiNER.inference`, per-text labels included.
        threshold: one threshold for all.
        flat_ner: as for `GLiNER.inference`.
        multi_label: as for `GLiNER.inference`.
        relations: of a relation extraction model: as for `RelexGLiNER.inference`. Of none the entities alone are
            compared.
        adjacency_threshold: one for all; None for `threshold`.
        relation_threshold: one for all; None for `threshold`.
        reference: a loaded `gliner` model; None: loaded from the same folder, onto the same device.
        tolerance: how far scores may lie apart; None for what suits the model's `precision`: 1e-4 in float32, 0.05 in
            bf16, 0.1 in int8, else 0.01.
        tell: takes lines of progress, every few seconds.

    Raises:
        ImportError: `gliner` is not installed, and no `reference` was given.
        ValueError: the model was not loaded from a folder, and no `reference` was given; relations are asked of a
            model that finds none, or their thresholds are given without them.
    """
    from gliner_fast.model import GLiNER

    if not relations:
        expect_relations(None, adjacency_threshold, relation_threshold)

    if reference is None:
        require_reference()
    ours = GLiNER.from_pretrained(model) if model is None or isinstance(model, (str, Path)) else model
    if relations:
        ours.config.expect_relex()
    if reference is None:
        reference = load_reference(ours)
    if tolerance is None:
        tolerance = _TOLERANCES.get(ours.precision, _OTHERWISE)
    _warn_of_a_random_lstm(ours, reference)
    texts = [texts] if isinstance(texts, str) else list(texts)
    options = {"threshold": threshold, "flat_ner": flat_ner, "multi_label": multi_label}

    def candidates(index: int) -> list[Candidate]:
        return find_reference_candidates(
            reference,
            texts[index],
            labels_of_text(labels, index),
            floor=threshold - tolerance,
            relations=labels_of_text(relations, index),
        )

    with words_have_places(reference, ours):
        if not relations:
            return compare(
                ours.inference(texts, labels, **options, **entities_alone(ours)),  # type: ignore[arg-type]
                _answers_of_reference(reference, texts, labels, tell, **options, **entities_alone(ours)),
                candidates,
                tolerance=tolerance,
                **options,  # type: ignore[arg-type]
            )
        of_relations = {
            "adjacency_threshold": threshold if adjacency_threshold is None else adjacency_threshold,
            "relation_threshold": threshold if relation_threshold is None else relation_threshold,
        }
        found: Any = ours.inference(texts, labels, relations, **options, **of_relations)  # type: ignore[arg-type]
        mine = LinkedAnswers(*found)
        theirs = ask_for_relations(reference, texts, labels, relations, tell, **options, **of_relations)

        def scored(index: int) -> Scored:
            asked = texts[index], labels_of_text(labels, index), labels_of_text(relations, index)
            between = ends_of(mine.entities[index]) | ends_of(theirs.entities[index])
            return lambda threshold, adjacency_threshold: find_reference_relations(
                reference, *asked, threshold=threshold, adjacency_threshold=adjacency_threshold, between=between
            )

        report = compare(mine.entities, theirs.entities, candidates, tolerance=tolerance, **options)  # type: ignore[arg-type]
        linked = compare_relations(
            mine,
            theirs,
            candidates,
            scored,
            RelationThresholds(threshold=threshold, tolerance=tolerance, **of_relations),
            links_depend_on_all=ours.model.relations is not None and ours.model.relations.reads_all_spans,
            wrong_entities={d.text for d in report.differences if d.cause is Cause.UNEXPLAINED},
        )
        return replace(report, relations=linked)


def entities_alone(model: GLiNER) -> dict[str, bool]:
    """What has `inference` of a model, and of the same in `gliner`, give entities, whatever else it finds."""
    return {"return_relations": False} if model.config.is_relex else {}


def _answers_of_reference(
    reference: Any, texts: Sequence[str], labels: Any, tell: Callable[[str], None], **options: Any
) -> list[list[Entity]]:
    """What `gliner` finds, some of its batches at a time."""
    if represents_spans(reference):
        options["batch_size"] = 1
    answers: list[list[Entity]] = []
    told = time.monotonic()
    for first in range(0, len(texts), _REFERENCE_TEXTS):
        chosen = slice(first, first + _REFERENCE_TEXTS)
        answers += reference.inference(texts[chosen], labels[chosen] if are_per_text(labels) else labels, **options)
        if time.monotonic() - told > _SECONDS_OF_SILENCE:
            told = time.monotonic()
            tell(f"gliner: {len(answers):,} of {len(texts):,} texts")
    return answers


def compare(
    ours: Sequence[Sequence[Entity]],
    reference: Sequence[Sequence[Entity]],
    candidates: Callable[[int], list[Candidate]],
    *,
    threshold: float = 0.5,
    flat_ner: bool = True,
    multi_label: bool = False,
    tolerance: float = TOLERANCE,
) -> VerificationReport:
    """Compares two lists of answers to the same texts.

    Args:
        ours: entities of each text.
        reference: entities of each text, in the reference's order.
        candidates: gives all candidates of a text that the reference scored above ``threshold - tolerance``. Called
            only for texts that differ.
        threshold: that both were run with.
        flat_ner: that both were run with.
        multi_label: that both were run with.
        tolerance: how far scores may lie apart.
    """
    if len(ours) != len(reference):
        raise ValueError(f"ours has answers to {len(ours)} texts, the reference to {len(reference)}: expected as many")
    equal = moved = 0
    largest = 0.0
    differences: list[Difference] = []
    for index, (mine, theirs) in enumerate(zip(ours, reference, strict=True)):
        by_key = {_key(entity): entity for entity in mine}
        for entity in theirs:
            own = by_key.get(_key(entity))
            if own is not None:
                distance = abs(own["score"] - entity["score"])
                largest = max(largest, distance)
                is_equal = distance <= tolerance  # a NaN is not
                equal += is_equal
                moved += not is_equal
                if own["text"] != entity["text"]:
                    differences.append(Difference(index, *_key(entity), entity["score"], "both", Cause.UNEXPLAINED))
        if [_key(entity) for entity in mine] != [_key(entity) for entity in theirs]:
            judge = _Judge(candidates(index), threshold, flat_ner, multi_label, tolerance)
            differences.extend(judge.differences(index, mine, theirs))
    unexplained = sum(difference.cause is Cause.UNEXPLAINED for difference in differences)
    return VerificationReport(
        texts=len(reference),
        entities=sum(map(len, reference)),
        equal=equal,
        moved=moved,
        explained=len(differences) - unexplained,
        unexplained=unexplained,
        max_score_difference=largest,
        tolerance=tolerance,
        differences=tuple(differences),
    )


class _Judge:
    """Decides whether rounding explains the differences of one text.

    Our entities are a possible greedy result iff, with their scores raised and all others lowered as far as the
    tolerance allows, (a) each is above the threshold, (b) no two clash, and (c) every other candidate above the
    threshold clashes with one of ours that scores at least as high. Raising and lowering only ever helps each of the
    three, so trying this one set of scores is enough.
    """

    def __init__(
        self, candidates: list[Candidate], threshold: float, flat_ner: bool, multi_label: bool, tolerance: float
    ) -> None:
        self.by_key = {candidate.key: candidate for candidate in candidates}
        self.candidates = list(self.by_key.values())
        self.threshold, self.tolerance = threshold, tolerance
        self.flat_ner, self.multi_label = flat_ner, multi_label
        self.starts = np.array([c.start for c in self.candidates], np.int64)  # each (N,)
        self.ends = np.array([c.end for c in self.candidates], np.int64)
        self.scores = np.array([c.score for c in self.candidates], np.float64)
        self.lowest = np.array([c.lowest for c in self.candidates], np.float64)

    def differences(self, text: int, ours: Sequence[Entity], theirs: Sequence[Entity]) -> Iterator[Difference]:
        """Yields what differs, with its cause."""
        our_keys = {_key(entity) for entity in ours}
        their_keys = {_key(entity) for entity in theirs}
        unexplained = self._impossible(ours)
        for key in sorted(unexplained - our_keys - their_keys, key=str):
            yield self._difference(text, key, "neither", Cause.UNEXPLAINED, self.by_key[key].score)
        counts, their_counts = Counter(map(_key, ours)), Counter(map(_key, theirs))
        scores = {_key(entity): entity["score"] for entity in (*ours, *theirs)}
        for key, score in scores.items():  # one that comes again is no rounding, unless the marks of another label are
            if counts[key] != their_counts[key] and max(counts[key], their_counts[key]) > 1:
                found_by: FoundBy = "ours" if counts[key] > their_counts[key] else "reference"
                is_near = abs(counts[key] - their_counts[key]) <= self._near_marks(key)
                yield self._difference(
                    text, key, found_by, Cause.NEAR_THRESHOLD if is_near else Cause.UNEXPLAINED, score
                )
        for entity in ours:
            if _key(entity) not in their_keys:
                cause = self._cause(_key(entity), theirs, unexplained)
                yield self._difference(text, _key(entity), "ours", cause, entity["score"])
        for entity in theirs:
            if _key(entity) not in our_keys:
                cause = self._cause(_key(entity), ours, unexplained)
                yield self._difference(text, _key(entity), "reference", cause, entity["score"])
        yield from self._order_differences(text, ours, theirs)

    def _near_marks(self, key: Key) -> int:
        """How many labels' marks of a candidate may pass the threshold or not."""
        marks = self.by_key[key].marks if key in self.by_key else ()
        return sum(abs(mark - self.threshold) <= self.tolerance for mark in marks)

    def _impossible(self, ours: Sequence[Entity]) -> set[Key]:
        """Returns what no scores within the tolerance can bring about: entities of ours, and candidates ours lacks."""
        our_keys = {_key(entity) for entity in ours}
        is_ours = np.array([candidate.key in our_keys for candidate in self.candidates], bool)
        wrong = our_keys - self.by_key.keys()  # (a): below the threshold by more than the tolerance
        blocked = is_ours.copy()
        for entity in ours:
            clashing = self._clashing(entity)
            score = self.by_key[_key(entity)].score if _key(entity) in self.by_key else -np.inf
            # Each of the two scores takes half of the tolerance, so that together they close a gap of all of it.
            blocked |= clashing & (score + self.tolerance >= self.scores)
            wrong |= {self.candidates[i].key for i in np.flatnonzero(clashing & is_ours)} - {_key(entity)}  # (b)
        must_stay = (self.lowest > self.threshold + self.tolerance) & ~blocked  # (c)
        return wrong | {self.candidates[i].key for i in np.flatnonzero(must_stay)}

    def _clashing(self, entity: Entity) -> NDArray[np.bool_]:
        """Returns which candidates may not stand beside an entity (compat section 6.2), (N,) bool; itself included."""
        start, end = entity["start"], entity["end"]
        same = (self.starts == start) & (self.ends == end)
        overlapping = (self.starts < end) & (start < self.ends) & ~same
        if not self.flat_ner:
            within = (self.starts >= start) & (self.ends <= end)
            around = (self.starts <= start) & (self.ends >= end)
            overlapping &= ~within & ~around
        clashing: NDArray[np.bool_] = overlapping if self.multi_label else overlapping | same
        return clashing

    def _cause(self, key: Key, others: Sequence[Entity], unexplained: set[Key]) -> Cause:
        """Names the cause for an entity that the other side lacks, given what the other side found."""
        if key in unexplained or key not in self.by_key:
            return Cause.UNEXPLAINED
        score = self.by_key[key].score
        if abs(self.by_key[key].lowest - self.threshold) <= self.tolerance:
            return Cause.NEAR_THRESHOLD
        mine = self.candidates.index(self.by_key[key])
        for other in others:
            rival = self.by_key.get(_key(other))
            if rival is not None and abs(rival.score - score) <= self.tolerance and self._clashing(other)[mine]:
                return Cause.NEAR_TIE
        return Cause.UNEXPLAINED if unexplained else Cause.KNOCK_ON

    def _order_differences(self, text: int, ours: Sequence[Entity], theirs: Sequence[Entity]) -> Iterator[Difference]:
        """Yields entities of both that stand in another order: explained only at one start with scores near a tie."""
        common = {_key(entity) for entity in ours} & {_key(entity) for entity in theirs}
        mine = [entity for entity in ours if _key(entity) in common]
        scores = {_key(entity): entity["score"] for entity in theirs}
        place = {key: number for number, key in enumerate(key for key in scores if key in common)}
        for first, second in pairwise(mine):
            if place[_key(first)] > place[_key(second)]:
                gap = scores[_key(second)] - scores[_key(first)]
                is_near = first["start"] == second["start"] and gap <= self.tolerance
                cause = Cause.NEAR_TIE if is_near else Cause.UNEXPLAINED
                yield self._difference(text, _key(first), "both", cause, scores[_key(first)])

    def _difference(
        self,
        text: int,
        key: Key,
        found_by: FoundBy,
        cause: Cause,
        score: float,
    ) -> Difference:
        known = self.by_key.get(key)
        return Difference(text, *key, known.score if known else score, found_by, cause)


def _key(entity: Entity) -> Key:
    return entity["start"], entity["end"], entity["label"]


def _warn_of_a_random_lstm(ours: GLiNER, reference: Any) -> None:
    if ours.config.num_rnn_layers == 0 and getattr(reference.config, "num_rnn_layers", 0) > 0:
        warnings.warn(
            "the checkpoint has no LSTM, but gliner puts a random one there (its has_rnn is not read any more): "
            "expect other answers from it every time it is loaded",
            stacklevel=3,
        )
