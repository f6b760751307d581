"""Our relations against the reference's.

Which spans may be ends, which of their pairs are looked at, and which relations are kept, are three thresholds, and
rounding may decide at each. A difference is explained where the reference's own scores allow it: for *some* choice
of the spans near the threshold, ours are among the relations that reach the thresholds of links and relations less the
tolerance, in the reference's order, and hold all that pass both by more than it, between entities that ours found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from gliner_fast.comparing.reference_candidates import Candidate
from gliner_fast.comparing.reference_relations import Ends, LinkedAnswers, RelationKey, ScoredRelation, ends_of, key_of
from gliner_fast.comparing.report import Cause, FoundBy, RelationDifference, RelationReport

if TYPE_CHECKING:
    from gliner_fast.entity import Entity
    from gliner_fast.relations.relation import Relation

_CHOICES = 8  # of spans near the threshold; each takes the reference two runs of the text

_Place = tuple[RelationKey, int]  # a relation that comes again, as token-level models give some, counts on
Scored = Callable[[float, float], list[ScoredRelation]]
"""Threshold, adjacency threshold -> what `find_reference_relations` gives of a text between entities of either side."""


@dataclass(frozen=True, kw_only=True)
class RelationThresholds:
    """What both sides were run with, and how far scores may lie apart."""

    threshold: float
    adjacency_threshold: float
    relation_threshold: float
    tolerance: float


def compare_relations(
    ours: LinkedAnswers,
    reference: LinkedAnswers,
    candidates: Callable[[int], list[Candidate]],
    scored: Callable[[int], Scored],
    thresholds: RelationThresholds,
    *,
    links_depend_on_all: bool = False,
    wrong_entities: Collection[int] = (),
) -> RelationReport:
    """Compares two lists of answers to the same texts.

    Args:
        ours: of each text.
        reference: of each text.
        candidates: gives all candidates of a text that the reference scored above the threshold less the tolerance.
        scored: gives what tells the reference's scores of a text. Both are called only for texts that differ.
        thresholds: of both sides.
        links_depend_on_all: whether a link between two entities depends on all spans that may be ends, so that one that
            rounding adds may change them all.
        wrong_entities: indices of texts whose entities differ without an explanation.
    """
    equal = moved = 0
    largest = 0.0
    differences: list[RelationDifference] = []
    for index, (entities, mine, theirs) in enumerate(
        zip(ours.entities, ours.relations, reference.relations, strict=True)
    ):
        places, their_places = _places(mine), _places(theirs)
        for place in places.keys() & their_places.keys():
            distance = abs(places[place] - their_places[place])
            largest = max(largest, distance)
            is_equal = distance <= thresholds.tolerance  # a NaN is not
            equal += is_equal
            moved += not is_equal
        badly_told = [key_of(relation) for relation in mine if not _tells_its_entities(relation, entities)]
        differences += [
            RelationDifference(
                index, *key, places[key, 0], "both" if (key, 0) in their_places else "ours", Cause.UNEXPLAINED
            )
            for key in badly_told
        ]
        ends, their_ends = ends_of(entities), ends_of(reference.entities[index])
        # An entity of ours alone is to have its relations, even where none is all that the reference found.
        if ends != their_ends or list(places) != list(their_places):
            judge = _Judge(ends, their_ends, places, their_places)
            if links_depend_on_all:
                choices = _choices(candidates(index), judge.entities, scored(index), thresholds)
            else:
                choices = _all_near(scored(index), thresholds)
            found = judge.differences(index, choices, thresholds, has_wrong_entities=index in wrong_entities)
            differences += [difference for difference in found if _key(difference) not in badly_told]
    unexplained = sum(difference.cause is Cause.UNEXPLAINED for difference in differences)
    return RelationReport(
        found=sum(map(len, reference.relations)),
        equal=equal,
        moved=moved,
        explained=len(differences) - unexplained,
        unexplained=unexplained,
        max_score_difference=largest,
        failed=reference.failed,
        differences=tuple(differences),
    )


@dataclass(frozen=True)
class _Choice:
    """The reference's relations of a text, for one choice of the spans that may be ends.

    Attributes:
        possible: those whose link and score reach the thresholds less the tolerance, in the reference's order.
        sure: how often each passes both by more than the tolerance.
        linked: those whose link does.
        scores: of all whose link reaches its threshold less the tolerance.
    """

    possible: list[RelationKey]
    sure: Counter[RelationKey]
    linked: set[RelationKey]
    scores: dict[RelationKey, float]


def _choices(
    candidates: Sequence[Candidate], entities: Collection[Ends], scored: Scored, thresholds: RelationThresholds
) -> Iterator[_Choice]:
    """Yields what the reference says where spans above some score may be ends, for scores around the threshold.

    Ours took its entities, so choices that leave one out are none.
    """
    low, high = thresholds.threshold - thresholds.tolerance, thresholds.threshold + thresholds.tolerance
    near = sorted({candidate.score for candidate in candidates if candidate.score <= high})
    between = [(first + second) / 2 for first, second in pairwise([*near, high])]
    best: dict[Ends, float] = {}
    for candidate in candidates:
        ends = candidate.start, candidate.end
        best[ends] = max(candidate.score, best.get(ends, 0.0))
    highest = min((best[ends] for ends in entities if ends in best), default=1.0)
    cuts = [low, *(cut for cut in between if cut < highest)]
    for cut in sorted(cuts, key=lambda cut: abs(cut - thresholds.threshold))[:_CHOICES]:
        yield _chosen(cut, scored, thresholds)


def _all_near(scored: Scored, thresholds: RelationThresholds) -> Iterator[_Choice]:
    """Yields the one choice that says all where links depend on their two ends alone: what is near comes or not."""
    choice = _chosen(thresholds.threshold - thresholds.tolerance, scored, thresholds)
    certain = _chosen(thresholds.threshold + thresholds.tolerance, scored, thresholds)
    # An entity is an end of its own at least once, and more often only as a span of several classes.
    once = Counter({key: 1 for key in choice.sure if key[0] != key[1]})
    yield replace(choice, sure=certain.sure | once)


def _chosen(cut: float, scored: Scored, thresholds: RelationThresholds) -> _Choice:
    tolerance, link, keep = thresholds.tolerance, thresholds.adjacency_threshold, thresholds.relation_threshold
    reached, passed = scored(cut, link - tolerance), scored(cut, link + tolerance)
    return _Choice(
        [relation.key for relation in reached if relation.score > keep - tolerance],
        Counter(relation.key for relation in passed if relation.score > keep + tolerance),
        {relation.key for relation in passed},
        {relation.key: relation.score for relation in reached},
    )


class _Judge:
    """Decides whether rounding explains the differences of one text.

    Attributes:
        entities: ends that ours has.
        their_entities: those that the reference has.
        places: our relations and their scores, in order.
        their_places: those of the reference.
    """

    def __init__(
        self,
        entities: Collection[Ends],
        their_entities: Collection[Ends],
        places: dict[_Place, float],
        their_places: dict[_Place, float],
    ) -> None:
        self.entities, self.their_entities = entities, their_entities
        self.places, self.their_places = places, their_places

    def differences(
        self, text: int, choices: Iterator[_Choice], thresholds: RelationThresholds, *, has_wrong_entities: bool
    ) -> Iterator[RelationDifference]:
        """Yields what differs, with its cause under the choice that explains most."""
        best: tuple[_Choice, set[RelationKey]] | None = None
        for choice in choices:
            wrong = self._impossible(choice)
            if best is None or len(wrong) < len(best[1]):
                best = choice, wrong
            if not wrong:
                break
        if best is None:
            raise AssertionError("there is always a choice: all spans near the threshold")
        choice, wrong = best
        told: set[RelationKey] = set()
        for place in dict.fromkeys([*self.places, *self.their_places]):
            key = place[0]
            is_ours, is_theirs = place in self.places, place in self.their_places
            if is_ours and is_theirs:
                continue
            told.add(key)
            cause = self._cause(key, choice, thresholds, has_wrong_entities=has_wrong_entities, has_wrong=bool(wrong))
            score = self.their_places.get(place, choice.scores.get(key, self.places.get(place, 0.0)))
            yield RelationDifference(
                text, *key, score, "ours" if is_ours else "reference", Cause.UNEXPLAINED if key in wrong else cause
            )
        for key in sorted(wrong - told, key=str):
            found_by: FoundBy = "both" if (key, 0) in self.places else "neither"
            yield RelationDifference(text, *key, choice.scores.get(key, 0.0), found_by, Cause.UNEXPLAINED)

    def _impossible(self, choice: _Choice) -> set[RelationKey]:
        """Returns what the choice rules out: what ours lacks, has beyond the possible, or has at a wrong place."""
        counts = Counter(key for key, _ in self.places)
        wrong = {
            key for key, count in choice.sure.items() if counts[key] < count and self._has_ends(key, self.entities)
        }
        place = 0
        for key in (key for key, _ in self.places if key not in wrong):
            found = next((at for at in range(place, len(choice.possible)) if choice.possible[at] == key), None)
            if found is None:
                wrong.add(key)
            else:
                place = found + 1
        return wrong

    def _cause(
        self,
        key: RelationKey,
        choice: _Choice,
        thresholds: RelationThresholds,
        *,
        has_wrong_entities: bool,
        has_wrong: bool,
    ) -> Cause:
        """Names the cause for a relation that one side lacks and that the choice allows."""
        if not (self._has_ends(key, self.entities) and self._has_ends(key, self.their_entities)):
            return Cause.UNEXPLAINED if has_wrong_entities else Cause.ENTITY_DIFFERS
        score = choice.scores.get(key)
        if score is not None and abs(score - thresholds.relation_threshold) <= thresholds.tolerance:
            return Cause.NEAR_THRESHOLD
        if score is not None and key not in choice.linked:
            return Cause.LINK_NEAR_THRESHOLD
        return Cause.UNEXPLAINED if has_wrong else Cause.KNOCK_ON

    @staticmethod
    def _has_ends(key: RelationKey, entities: Collection[Ends]) -> bool:
        return key[0] in entities and key[1] in entities


def _places(relations: Sequence[Relation]) -> dict[_Place, float]:
    """Scores of relations in order; one that comes again has a place of its own."""
    counts: Counter[RelationKey] = Counter()
    places = {}
    for relation in relations:
        key = key_of(relation)
        places[key, counts[key]] = relation["score"]
        counts[key] += 1
    return places


def _key(difference: RelationDifference) -> RelationKey:
    return difference.head, difference.tail, difference.relation


def _tells_its_entities(relation: Relation, entities: Sequence[Entity]) -> bool:
    """Whether both ends are the first of the entities that stand there, as they are in `gliner`."""
    for end in (relation["head"], relation["tail"]):
        there = ((entity["start"], entity["end"]) == (end["start"], end["end"]) for entity in entities)
        number = next((number for number, is_end in enumerate(there) if is_end), None)
        if number is None or number != end["entity_idx"]:
            return False
        if (end["text"], end["type"]) != (entities[number]["text"], entities[number]["label"]):
            return False
    return True
