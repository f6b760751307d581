"""`relations.py`: what counts as the same relations, and what rounding explains."""

import json
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliner_fast.comparing.reference_candidates import Candidate
from gliner_fast.comparing.reference_relations import LinkedAnswers, ScoredRelation
from gliner_fast.comparing.relations import RelationThresholds, compare_relations
from gliner_fast.comparing.report import Cause, VerificationReport

TOLERANCE = 1e-4
NEAR, FAR = 5e-5, 3e-4
AT = RelationThresholds(threshold=0.5, adjacency_threshold=0.4, relation_threshold=0.6, tolerance=TOLERANCE)
ADA, BYRON, LONDON = (0, 3), (10, 15), (20, 26)


@dataclass(frozen=True)
class Scores:
    """What a program computes of one text: of spans, of links between them, of relations."""

    spans: dict
    links: dict
    relations: dict
    alone: frozenset = frozenset()
    """Spans whose presence breaks all links but their own, as where each depends on all."""

    def scored(self, cut, link):
        """In the order of spans and names."""
        ends = [span for span, score in self.spans.items() if score > cut]
        return [
            ScoredRelation((head, tail, name), score)
            for head in ends
            for tail in ends
            if head != tail and self._link(head, tail, ends) > link
            for (first, second, name), score in self.relations.items()
            if (first, second) == (head, tail)
        ]

    def _link(self, head, tail, ends):
        broken = self.alone & set(ends) and not self.alone & {head, tail}
        return 0.0 if broken else self.links[head, tail]

    def answer(self):
        """Entities and relations."""
        kept = [span for span, score in self.spans.items() if score > AT.threshold]
        entities = [
            {"start": start, "end": end, "text": f"{start}", "label": "x", "score": self.spans[start, end]}
            for start, end in kept
        ]
        relations = [
            _relation(*relation.key, relation.score, kept)
            for relation in self.scored(AT.threshold, AT.adjacency_threshold)
            if relation.score > AT.relation_threshold
        ]
        return entities, relations

    def candidates(self):
        """Spans above the threshold less the tolerance."""
        return [Candidate(*span, "x", score) for span, score in self.spans.items() if score > 0.5 - TOLERANCE]

    def moved(self, **changed):
        """The same with other scores."""
        return replace(self, **{name: {**getattr(self, name), **scores} for name, scores in changed.items()})


def _relation(head, tail, name, score, entities):
    first, second = (
        {"start": start, "end": end, "text": f"{start}", "type": "x", "entity_idx": entities.index((start, end))}
        for start, end in (head, tail)
    )
    return {"head": first, "tail": second, "relation": name, "score": score}


def _compare(ours, reference, scores, **options):
    return compare_relations(
        LinkedAnswers(*([part] for part in ours)),
        LinkedAnswers(*([part] for part in reference)),
        lambda _: scores.candidates(),
        lambda _: scores.scored,
        AT,
        **options,
    )


def _of(report):
    return [(d.found_by, d.cause, d.relation) for d in report.differences]


TEXT = Scores(
    spans={ADA: 0.9, BYRON: 0.8, LONDON: 0.7},
    links={(ADA, BYRON): 0.9, (BYRON, ADA): 0.8, (ADA, LONDON): 0.9, (LONDON, ADA): 0.1, (BYRON, LONDON): 0.1,
           (LONDON, BYRON): 0.1},
    relations={(ADA, BYRON, "child of"): 0.9, (ADA, BYRON, "born in"): 0.2, (BYRON, ADA, "child of"): 0.1,
               (ADA, LONDON, "born in"): 0.8, (ADA, LONDON, "lives in"): 0.7, (LONDON, ADA, "born in"): 0.9,
               (BYRON, LONDON, "born in"): 0.9},
)  # fmt: skip


def test_equal_answers():
    report = _compare(TEXT.answer(), TEXT.answer(), TEXT)
    assert report.ok
    assert (report.found, report.equal, report.moved, report.max_score_difference) == (3, 3, 0, 0.0)


@pytest.mark.parametrize(("distance", "is_ok"), [(9e-5, True), (-9e-5, True), (1.1e-4, False), (-0.1, False)])
def test_a_score_may_move_by_the_tolerance(distance, is_ok):
    ours = TEXT.moved(relations={(ADA, BYRON, "child of"): 0.9 + distance})
    report = _compare(ours.answer(), TEXT.answer(), TEXT)
    assert (report.ok, report.equal, report.moved) == (is_ok, 3 if is_ok else 2, 0 if is_ok else 1)
    assert report.max_score_difference == pytest.approx(abs(distance))
    assert report.differences == ()


def test_a_score_that_is_no_number_has_moved():
    entities, relations = TEXT.answer()
    assert _compare((entities, [{**relations[0], "score": float("nan")}, *relations[1:]]), TEXT.answer(), TEXT).moved


@pytest.mark.parametrize(
    ("of", "at", "cause"),
    [("relations", 0.6, Cause.NEAR_THRESHOLD), ("links", 0.4, Cause.LINK_NEAR_THRESHOLD)],
)
@pytest.mark.parametrize("found_by", ["ours", "reference"])
@pytest.mark.parametrize(("distance", "is_near"), [(NEAR, True), (FAR, False)])
def test_what_a_score_or_a_link_near_its_threshold_decides(of, at, cause, found_by, distance, is_near):
    key = (ADA, LONDON, "born in") if of == "relations" else (ADA, LONDON)
    above, below = (TEXT.moved(**{of: {key: at + sign * distance / 2}}) for sign in (1, -1))
    if not is_near:  # the reference's is clear, and ours is on the other side
        above, below = (TEXT.moved(**{of: {key: at + sign * distance}}) for sign in (1, -1))
    ours, reference = (above, below) if found_by == "ours" else (below, above)
    report = _compare(ours.answer(), reference.answer(), reference)
    assert report.ok is is_near
    assert {(d.found_by, d.cause) for d in report.differences} == {(found_by, cause if is_near else Cause.UNEXPLAINED)}
    assert len(report.differences) == (1 if of == "relations" else 2)


def test_a_relation_that_ours_lacks():
    entities, relations = TEXT.answer()
    report = _compare((entities, relations[1:]), TEXT.answer(), TEXT)
    assert _of(report) == [("reference", Cause.UNEXPLAINED, "child of")]
    assert (report.differences[0].head, report.differences[0].tail, report.differences[0].score) == (ADA, BYRON, 0.9)


@pytest.mark.parametrize(
    "key",
    [
        (LONDON, ADA, "born in"),  # scores high, and is not linked
        (ADA, BYRON, "born in"),  # is linked, and scores low
        (LONDON, BYRON, "born in"),  # scores nothing
    ],
)
def test_a_relation_that_ours_makes_up(key):
    entities, relations = TEXT.answer()
    made_up = _relation(*key, 0.9, list(TEXT.spans))
    report = _compare((entities, [*relations, made_up]), TEXT.answer(), TEXT)
    assert _of(report) == [("ours", Cause.UNEXPLAINED, "born in")]


def test_swapped_ends_are_another_relation():
    entities, relations = TEXT.answer()
    swapped = {**relations[0], "head": relations[0]["tail"], "tail": relations[0]["head"]}
    report = _compare((entities, [swapped, *relations[1:]]), TEXT.answer(), TEXT)
    assert sorted(_of(report)) == [
        ("ours", Cause.UNEXPLAINED, "child of"), ("reference", Cause.UNEXPLAINED, "child of")
    ]  # fmt: skip


def test_another_order_is_a_difference():
    entities, relations = TEXT.answer()
    report = _compare((entities, relations[::-1]), TEXT.answer(), TEXT)
    assert not report.ok
    assert {(d.found_by, d.cause) for d in report.differences} == {("both", Cause.UNEXPLAINED)}


def test_a_relation_near_the_threshold_at_a_wrong_place_is_a_difference():
    above = TEXT.moved(relations={(ADA, BYRON, "child of"): 0.6 + NEAR / 2})
    below = TEXT.moved(relations={(ADA, BYRON, "child of"): 0.6 - NEAR / 2})
    entities, relations = above.answer()
    assert _compare((entities, relations), below.answer(), below).ok
    assert not _compare((entities, [*relations[1:], relations[0]]), below.answer(), below).ok


def test_a_relation_that_comes_again_is_a_difference():
    entities, relations = TEXT.answer()
    assert not _compare((entities, [relations[0], *relations]), TEXT.answer(), TEXT).ok
    twice = lambda cut, link: [one for one in TEXT.scored(cut, link) for _ in range(2)]  # noqa: E731
    both = [relation for relation in relations for _ in range(2)]
    options = {"candidates": lambda _: TEXT.candidates(), "scored": lambda _: twice, "thresholds": AT}
    answers = [LinkedAnswers([entities], [own]) for own in (both, relations)]
    assert compare_relations(answers[0], answers[0], **options).equal == 6
    assert not compare_relations(answers[1], answers[0], **options).ok


@pytest.mark.parametrize(
    ("end", "changed"), [("head", {"text": "Eve"}), ("tail", {"type": "y"}), ("head", {"entity_idx": 2})]
)
def test_an_end_is_the_entity_that_stands_there(end, changed):
    entities, relations = TEXT.answer()
    told = [{**relations[0], end: {**relations[0][end], **changed}}, *relations[1:]]
    report = _compare((entities, told), TEXT.answer(), TEXT)
    assert _of(report) == [("both", Cause.UNEXPLAINED, "child of")]


def test_an_end_that_is_no_entity_is_a_difference():
    entities, relations = TEXT.answer()
    report = _compare((entities[:2], relations), (entities[:2], relations[:1]), TEXT)
    assert {d.cause for d in report.differences} == {Cause.UNEXPLAINED}
    assert len(report.differences) == 2


# --- entities that one side lacks -------------------------------------------------------------------------------------

WITH_LONDON = TEXT.moved(spans={LONDON: 0.5 + NEAR / 2})
WITHOUT_LONDON = TEXT.moved(spans={LONDON: 0.5 - NEAR / 2})


@pytest.mark.parametrize(("ours", "reference"), [(WITH_LONDON, WITHOUT_LONDON), (WITHOUT_LONDON, WITH_LONDON)])
@pytest.mark.parametrize("links_depend_on_all", [False, True])
def test_relations_of_an_entity_that_differs(ours, reference, links_depend_on_all):
    report = _compare(ours.answer(), reference.answer(), reference, links_depend_on_all=links_depend_on_all)
    assert report.ok
    assert {d.cause for d in report.differences} == {Cause.ENTITY_DIFFERS}
    assert (report.equal, report.explained) == (1, 2)
    wrong = _compare(ours.answer(), reference.answer(), reference, wrong_entities=[0])
    assert (wrong.ok, wrong.explained, wrong.unexplained) == (False, 0, 2)


@pytest.mark.parametrize("links_depend_on_all", [False, True])
def test_an_entity_of_ours_alone_needs_its_relations(links_depend_on_all):
    entities, relations = WITH_LONDON.answer()
    for missing in (1, 2):
        report = _compare(
            (entities, relations[:-missing]), WITHOUT_LONDON.answer(), WITHOUT_LONDON,
            links_depend_on_all=links_depend_on_all,
        )  # fmt: skip
        assert ("neither", Cause.UNEXPLAINED, "lives in") in _of(report)
        assert report.unexplained == missing


@pytest.mark.parametrize("links_depend_on_all", [False, True])
def test_an_entity_that_differs_excuses_no_other_relation(links_depend_on_all):
    entities, relations = WITH_LONDON.answer()
    report = _compare(
        (entities, relations[1:]), WITHOUT_LONDON.answer(), WITHOUT_LONDON, links_depend_on_all=links_depend_on_all
    )
    assert ("reference", Cause.UNEXPLAINED, "child of") in _of(report)


@pytest.mark.parametrize("in_ours", [False, True])
def test_a_span_near_the_threshold_may_change_all_links_where_they_depend_on_it(in_ours):
    hidden = (40, 44)  # a candidate, which clashes with an entity and so becomes none
    text = replace(TEXT, alone=frozenset({hidden}), links={**TEXT.links, **_pairs(hidden)})
    above, below = (text.moved(spans={hidden: 0.5 + sign * NEAR / 2}) for sign in (1, -1))
    ours, reference = (above, below) if in_ours else (below, above)
    answers = [
        ([entity for entity in one.answer()[0] if entity["start"] != 40], one.answer()[1]) for one in (ours, reference)
    ]
    report = _compare(*answers, reference, links_depend_on_all=True)
    assert report.ok, report.differences
    assert {d.cause for d in report.differences} == {Cause.KNOCK_ON}
    assert len(report.differences) == 3
    entities, relations = TEXT.answer()
    partly = _compare((entities, relations[:2]), answers[1], reference, links_depend_on_all=True)
    assert {d.cause for d in partly.differences} == {Cause.UNEXPLAINED}
    far = reference.moved(spans={hidden: 0.5 + FAR * (-1 if in_ours else 1)})
    assert not _compare(*answers, far, links_depend_on_all=True).ok


def _pairs(span):
    return {pair: 0.0 for other in TEXT.spans for pair in ((span, other), (other, span))}


# --- properties -------------------------------------------------------------------------------------------------------

SPANS = [(0, 3), (4, 8), (9, 12), (13, 17)]
NAMES = ["a", "b"]


@st.composite
def _programs(draw):
    """Scores on coarse grids, so that many are at a threshold, and the same moved a little, as another program's."""
    nudges = st.floats(-TOLERANCE / 2, TOLERANCE / 2)
    pairs = [(head, tail) for head in SPANS for tail in SPANS if head != tail]
    grids = {
        "spans": dict.fromkeys(SPANS, AT.threshold),
        "links": dict.fromkeys(pairs, AT.adjacency_threshold),
        "relations": dict.fromkeys([(*pair, name) for pair in pairs for name in NAMES], AT.relation_threshold),
    }
    first, second = {}, {}
    for name, grid in grids.items():
        at = {key: draw(st.sampled_from([threshold, 0.3, 0.9])) + draw(nudges) for key, threshold in grid.items()}
        first[name], second[name] = at, {key: score + draw(nudges) for key, score in at.items()}
    return Scores(**first), Scores(**second)


@given(programs=_programs())
def test_rounding_is_always_explained(programs):
    reference, ours = programs
    report = _compare(ours.answer(), reference.answer(), reference)
    assert report.ok, report.differences


@given(programs=_programs(), data=st.data())
def test_a_relation_lost_far_from_all_thresholds_is_never_explained(programs, data):
    reference, ours = programs
    entities, relations = ours.answer()
    kept = {(entity["start"], entity["end"]) for entity in entities}
    clear = [
        number
        for number, relation in enumerate(relations)
        for key in [tuple((relation[end]["start"], relation[end]["end"]) for end in ("head", "tail"))]
        if reference.links[key] > 0.8 and relation["score"] > 0.8 and set(key) <= kept
    ]
    if clear:
        lost = data.draw(st.sampled_from(clear))
        report = _compare((entities, [*relations[:lost], *relations[lost + 1 :]]), reference.answer(), reference)
        assert not report.ok


# --- the report -------------------------------------------------------------------------------------------------------


def _report(relations):
    return VerificationReport(3, 4, 4, 0, 0, 0, 0.0, 1e-4, (), "0.2.29", relations)


def test_the_report_as_text_and_as_json():
    entities, relations = TEXT.answer()
    linked = replace(_compare((entities, relations[1:]), TEXT.answer(), TEXT), failed=(1, 2))
    text = str(_report(linked))
    assert "\n3 relations found by gliner\n" in text
    assert "text 0: 'child of' from 0..3 to 10..15, score 0.900000, only gliner: unexplained" in text
    assert "gliner failed on 2 texts, compared as if it had found nothing there: 1, 2\n" in text
    assert text.endswith("NOT the same answers.")
    values = json.loads(json.dumps(_report(linked).to_dict()))
    assert values["ok"] is False
    assert values["relations"]["unexplained"] == 1
    assert values["relations"]["failed"] == [1, 2]
    assert values["relations"]["differences"][0]["cause"] == "unexplained"
    assert _report(replace(linked, differences=(), unexplained=0)).ok
    assert "1, 2, 3" in str(_report(replace(linked, failed=tuple(range(30)))))
    assert "19, ...\n" in str(_report(replace(linked, failed=tuple(range(30)))))


def test_without_relations_the_report_is_as_it_was():
    report = _report(None)
    assert str(report) == (
        "3 texts, 4 entities found by gliner 0.2.29\n"
        "  equal                          4  within 0.0001\n"
        "  moved score                    0  largest difference 0\n"
        "  differing, explained           0\n"
        "  differing, unexplained         0\n"
        "The same answers."
    )
    assert json.dumps(report.to_dict()) == (
        '{"ok": true, "texts": 3, "entities": 4, "equal": 4, "moved": 0, "explained": 0, "unexplained": 0, '
        '"max_score_difference": 0.0, "tolerance": 0.0001, "reference_version": "0.2.29", "differences": []}'
    )
