"""`verify` of models that find relations, beside `gliner` itself."""

from functools import cache
from itertools import pairwise

import pytest

import gliner_fast
from gliner_fast.comparing.reference_candidates import find_reference_candidates
from gliner_fast.comparing.reference_relations import ask_for_relations, key_of
from gliner_fast.comparing.report import Cause
from gliner_fast.comparing.verification import verify
from tests.relation_checkpoints import RELATIONS
from tests.samples import CROSSNER, LABELS

TEXTS = CROSSNER[::12]
FEW = TEXTS[:6]
STRICT = {"threshold": 0.5, "relation_threshold": 0.3}
ASKED = RELATIONS[:4]
TOLERANCE = 1e-4
NEAR, FAR = 2e-5, 1e-3


@pytest.fixture(scope="module")
def loaded(checkpoint):
    """Gives both packages' model of a kind of checkpoint."""
    from gliner import GLiNER

    models = {}

    def load(kind):
        if kind not in models:
            folder = str(checkpoint(kind))
            models[kind] = gliner_fast.GLiNER.from_pretrained(folder), GLiNER.from_pretrained(folder)
        return models[kind]

    return load


@pytest.fixture
def planted(loaded, monkeypatch):
    """Runs `verify` of a kind with a defect in what ours answers, or in what it is asked."""

    def run(kind, texts, *, change=lambda entities, relations: (entities, relations), asked=None, **options):
        ours, reference = loaded(kind)
        inference = ours.inference

        def wrong(*arguments, **own):
            entities, relations = inference(*arguments, **{**own, **(asked or {})})
            return change(entities, relations)

        with monkeypatch.context() as patched:
            patched.setattr(ours, "inference", wrong)
            return verify(ours, texts, LABELS, relations=ASKED, reference=reference, **options)

    return run


@pytest.mark.gliner
@pytest.mark.parametrize("kind", ["relex", "relex-none", "relex-gcn", "token-relex"])
def test_the_answers_are_the_same(kind, loaded):
    ours, reference = loaded(kind)
    for options in ({"threshold": 0.3}, STRICT):
        report = verify(ours, FEW, LABELS, relations=ASKED, reference=reference, **options)
        assert report.ok, str(report)
        assert report.entities == report.equal > 5
        assert report.relations.found == report.relations.equal > 20
        assert report.relations.failed == ()


@pytest.mark.gliner
def test_labels_and_relations_of_each_text_s_own(loaded):
    ours, reference = loaded("token-relex")
    labels = [LABELS[: 1 + index] for index in range(4)]
    relations = [RELATIONS[: index % 3] for index in range(4)]
    report = verify(ours, TEXTS[:4], labels, relations=relations, threshold=0.3, reference=reference)
    assert report.ok, str(report)
    assert report.relations.found > 5
    alone = [
        reference.inference([TEXTS[index]], labels[index], relations[index], threshold=0.3)[1][0] for index in range(4)
    ]
    asked = ask_for_relations(reference, TEXTS[:4], labels, relations, print, threshold=0.3)
    assert [list(map(key_of, own)) for own in asked.relations] == [list(map(key_of, own)) for own in alone]
    # Why texts are asked one by one: beside the others this one's relations are not its own.
    together = reference.inference(TEXTS[:4], labels, relations, threshold=0.3)[1]
    assert list(map(len, together)) != list(map(len, alone))


@pytest.mark.gliner
@pytest.mark.parametrize("kind", ["relex-attention", "relex-gat"])
def test_texts_on_which_gliner_breaks_down_are_counted(kind, loaded):
    ours, reference = loaded(kind)
    texts = [TEXTS[0], "a", TEXTS[1], "", "a"]
    told = []
    report = verify(
        ours, texts, LABELS, relations=ASKED, threshold=0.9, adjacency_threshold=0.05, reference=reference,
        tell=told.append,
    )  # fmt: skip
    assert report.ok, str(report)
    assert {1, 4} <= set(report.relations.failed) < set(range(5)) - {3}
    assert told[0].startswith("gliner failed on text")
    assert len(told) == 1


@pytest.mark.gliner
def test_what_ours_finds_where_gliner_breaks_down_is_a_difference(loaded, planted):
    def invented(entities, relations):
        return [[*entities[0], {"start": 0, "end": 1, "text": "a", "label": "person", "score": 0.95}]], relations

    report = planted("relex-gat", ["a"], change=invented, threshold=0.9)
    assert report.relations.failed == (0,)
    assert [d.cause for d in report.differences] == [Cause.UNEXPLAINED]
    assert planted("relex-gat", ["a"], threshold=0.9).ok


@pytest.mark.gliner
def test_other_errors_of_gliner_are_no_break_down(loaded, monkeypatch):
    import torch

    for error in (torch.OutOfMemoryError("full"), ValueError("odd")):
        ours, reference = loaded("relex")

        def fail(*_, error=error, **__):
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(reference, "run_batch", fail)
            with pytest.raises(type(error)):
                verify(ours, TEXTS[:1], LABELS, relations=ASKED, reference=reference)


@pytest.fixture(scope="module")
def text_of(loaded):
    """Gives a text with some relations by a kind's reference, and no more than needed: random models find thousands."""

    @cache
    def found(kind):
        asked = ask_for_relations(loaded(kind)[1], TEXTS, LABELS, ASKED, print, threshold=0.5)
        return min((len(own), text) for text, own in zip(TEXTS, asked.relations, strict=True) if len(own) > 7)[1]

    return found


LINKS = {"threshold": 0.5, "relation_threshold": 0.1}


@pytest.fixture(scope="module")
def link_of(loaded, text_of):
    """Gives a threshold that a link of that text passes by less than 1e-6."""

    @cache
    def found(kind):
        (_, reference), text = loaded(kind), text_of(kind)

        def count(threshold):
            return len(reference.inference([text], LABELS, ASKED, adjacency_threshold=threshold, **LINKS)[1][0])

        low, high = 0.2, 0.9
        most, least = count(low), count(high)
        assert most > least
        while high - low > 1e-6:
            middle = (low + high) / 2
            here = count(middle)
            low, high, least = (middle, high, least) if here > least else (low, middle, here)
        return low

    return found


def _first(change):
    """Changes the relations of the first text that has three."""

    def changed(entities, relations):
        at = next(index for index, own in enumerate(relations) if len(own) > 2)
        return entities, [*relations[:at], change(relations[at]), *relations[at + 1 :]]

    return changed


@pytest.mark.gliner
@pytest.mark.parametrize("kind", ["relex", "relex-gcn", "relex-none", "token-relex"])
@pytest.mark.parametrize(
    ("change", "found_by"),
    [
        (lambda own: [one for one in own if one is not max(own, key=lambda one: one["score"])], {"reference"}),
        (lambda own: [{**own[0], "relation": own[0]["relation"] + "?"}, *own[1:]], {"ours", "reference"}),
        (lambda own: own[::-1], {"both"}),
    ],
    ids=["lost", "another name", "another order"],
)
def test_a_planted_defect_is_never_explained(kind, change, found_by, planted):
    report = planted(kind, FEW, change=_first(change), **STRICT)  # right without: see above
    assert report.unexplained == 0
    assert report.relations.unexplained > 0
    assert not report.ok
    assert {d.found_by for d in report.relations.differences} == found_by


@pytest.mark.gliner
def test_a_wrong_score_has_moved(planted):
    report = planted("relex", TEXTS, change=_first(lambda own: [{**own[0], "score": 0.5}, *own[1:]]), threshold=0.3)
    assert (report.moved, report.relations.moved, report.ok) == (0, 1, False)


@pytest.mark.gliner
@pytest.mark.parametrize("kind", ["relex", "relex-gat", "token-relex"])
@pytest.mark.parametrize(("distance", "is_near"), [(NEAR, True), (FAR, False)])
def test_rounding_at_the_threshold_of_relations(kind, distance, is_near, loaded, text_of, planted):
    _, reference = loaded(kind)
    text = text_of(kind)
    found = reference.inference([text], LABELS, ASKED, threshold=0.5, relation_threshold=0.1)[1][0]
    scores = sorted({relation["score"] for relation in found})
    at = next(low + distance for low, high in pairwise(scores) if low > 0.3 and high - low > 2 * FAR)
    options = {"threshold": 0.5}
    report = planted(kind, [text], asked={"relation_threshold": at - 2 * distance}, relation_threshold=at, **options)
    assert {d.found_by for d in report.relations.differences} <= {"ours"}
    causes = {d.cause for d in report.relations.differences}
    assert causes <= {Cause.NEAR_THRESHOLD if is_near else Cause.UNEXPLAINED}
    assert report.ok is (is_near or not causes)


@pytest.mark.gliner
@pytest.mark.parametrize("kind", ["relex", "relex-gat", "token-relex"])
@pytest.mark.parametrize(("distance", "is_near"), [(NEAR, True), (FAR, False)])
def test_rounding_at_the_threshold_of_links(kind, distance, is_near, text_of, link_of, planted):
    low = link_of(kind)
    report = planted(
        kind,
        [text_of(kind)],
        asked={"adjacency_threshold": low - distance},
        adjacency_threshold=low + distance,
        **LINKS,
    )
    causes = {d.cause for d in report.relations.differences if d.found_by == "ours"}
    assert causes
    assert causes <= {Cause.LINK_NEAR_THRESHOLD, Cause.NEAR_THRESHOLD} if is_near else Cause.UNEXPLAINED in causes
    assert report.ok is is_near


@pytest.mark.gliner
@pytest.mark.parametrize("kind", ["relex", "relex-gat", "relex-gcn", "token-relex", "token-relex-gat"])
def test_rounding_at_the_threshold_of_entities(kind, loaded, text_of, planted):
    _, reference = loaded(kind)
    text = text_of(kind)
    differing = 0
    for entity in reference.inference([text], LABELS, ASKED, threshold=0.5)[0][0]:
        report = planted(
            kind,
            [text],
            asked={"threshold": entity["score"] - NEAR},
            threshold=entity["score"] + NEAR,
            adjacency_threshold=0.2,
            relation_threshold=0.2,
        )
        assert report.ok, str(report)
        differing += bool(report.relations.differences)
    assert differing > 0


@pytest.mark.gliner
def test_relations_are_asked_of_models_that_find_some(checkpoint):
    with pytest.raises(ValueError, match="this model finds entities alone"):
        verify(checkpoint("deberta"), ["Ada"], ["person"], relations=["born in"])


@pytest.mark.gliner
@pytest.mark.parametrize("name", ["adjacency_threshold", "relation_threshold"])
def test_thresholds_of_relations_belong_to_relations(name):
    with pytest.raises(ValueError, match=f"{name} is given without relations"):
        verify(None, ["Ada"], ["person"], **{name: 0.5})


@pytest.mark.gliner
def test_without_relations_entities_alone_are_compared(loaded):
    ours, reference = loaded("relex")
    report = verify(ours, TEXTS[:4], LABELS, threshold=0.3, reference=reference)
    assert report.ok
    assert report.relations is None
    assert "relations" not in str(report)
    assert "relations" not in report.to_dict()


@pytest.mark.gliner
def test_candidates_where_no_span_passes_gliner_s_own_threshold(loaded):
    _, reference = loaded("relex-attention")
    text = next(text for text in (*CROSSNER, "a") if not find_above(reference, text, 0.5))
    assert find_above(reference, text, 0.001)
    assert find_above(reference, text, 0.999) == []


def find_above(reference, text, floor):
    return find_reference_candidates(reference, text, LABELS, floor=floor, relations=ASKED)
