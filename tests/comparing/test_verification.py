"""`verify.py`: what counts as the same answers, and what rounding explains."""

import math
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import gliner_fast
from gliner_fast.checkpoints.locating import INT8_ROWS
from gliner_fast.checkpoints.row_int8 import quantize_rows
from gliner_fast.checkpoints.weight_files import find_weights, read_weights
from gliner_fast.comparing.installed_gliner import require_reference
from gliner_fast.comparing.reference_candidates import Candidate, find_reference_candidates, labels_of_text
from gliner_fast.comparing.report import Cause
from gliner_fast.comparing.verification import compare, verify
from tests.reference.decoding import resolve
from tests.samples import CROSSNER, LABELS

TOLERANCE = 1e-4


def _entity(candidate):
    return {
        "start": candidate.start, "end": candidate.end, "text": "", "label": candidate.label, "score": candidate.score
    }  # fmt: skip


def _answer(candidates, *, threshold, flat_ner, multi_label):
    """The answer that a program with these scores gives."""
    passing = sorted(
        (c for c in candidates if c.lowest > threshold), key=lambda candidate: (candidate.start, candidate.end)
    )
    kept = resolve([(c.start, c.end, c.score) for c in passing], nested=not flat_ner, multi_label=multi_label)
    return [_entity(passing[index]) for index in kept]


def _compare(ours, reference, candidates=None, **options):
    """Compares the answers to one text; candidates of the reference are its entities if not given."""
    known = reference if candidates is None else candidates
    return compare([[_entity(c) for c in ours]], [[_entity(c) for c in reference]], lambda _: known, **options)


ADA = Candidate(0, 3, "person", 0.9)
PARIS = Candidate(10, 15, "city", 0.8)


def test_equal_answers():
    report = _compare([ADA, PARIS], [ADA, PARIS])
    assert report.ok
    assert (report.texts, report.entities, report.equal, report.moved, report.max_score_difference) == (1, 2, 2, 0, 0.0)
    assert str(report).endswith("The same answers.")


@pytest.mark.parametrize("times", [2, 3])
def test_an_entity_that_comes_again_is_another_answer(times):
    report = _compare([ADA] * times + [PARIS], [ADA, PARIS])
    assert [(d.found_by, d.cause, d.label) for d in report.differences] == [("ours", Cause.UNEXPLAINED, "person")]
    assert not report.ok
    assert not _compare([ADA, PARIS], [ADA, PARIS, PARIS]).ok


def test_near_the_threshold_too():
    near = replace(PARIS, score=0.5 + 5e-5)
    assert _compare([ADA, near], [ADA], [ADA, near]).ok
    assert not _compare([ADA, near, near], [ADA], [ADA, near]).ok


def test_an_entity_of_another_text_is_another_answer():
    report = compare([[{**_entity(ADA), "text": "Bob"}]], [[{**_entity(ADA), "text": "Ada"}]], lambda _: [ADA])
    assert [(d.found_by, d.cause) for d in report.differences] == [("both", Cause.UNEXPLAINED)]
    assert not report.ok


@pytest.mark.parametrize(("distance", "is_ok"), [(0.00009, True), (-0.00009, True), (0.00011, False), (-0.2, False)])
def test_a_score_may_move_by_the_tolerance(distance, is_ok):
    report = _compare([replace(ADA, score=0.9 + distance), PARIS], [ADA, PARIS])
    assert report.ok is is_ok
    assert (report.equal, report.moved) == ((2, 0) if is_ok else (1, 1))
    assert report.max_score_difference == pytest.approx(abs(distance))


@pytest.mark.parametrize(
    ("score", "cause"),
    [(0.5 + 5e-5, Cause.NEAR_THRESHOLD), (0.5 + 2e-4, Cause.UNEXPLAINED), (0.9, Cause.UNEXPLAINED)],
)
def test_an_entity_that_ours_lacks(score, cause):
    lost = replace(PARIS, score=score)
    report = _compare([ADA], [ADA, lost])
    assert [(d.found_by, d.cause) for d in report.differences] == [("reference", cause)]
    assert report.ok is (cause is not Cause.UNEXPLAINED)


@pytest.mark.parametrize(
    ("mark", "cause"), [(0.5 + 5e-5, Cause.NEAR_THRESHOLD), (0.5 + 2e-4, Cause.UNEXPLAINED), (0.9, Cause.UNEXPLAINED)]
)
def test_an_entity_whose_marks_ours_may_lack(mark, cause):
    lost = replace(PARIS, marks=(0.1, mark))
    report = _compare([ADA], [ADA, lost])
    assert [(d.found_by, d.cause) for d in report.differences] == [("reference", cause)]


def test_an_entity_may_come_as_often_as_labels_mark_it():
    sure, near = (replace(PARIS, marks=marks) for marks in ((0.9, 0.9, 0.1), (0.9, 0.5 + 5e-5, 0.1)))
    assert not _compare([ADA, sure], [ADA, sure, sure], multi_label=True).ok
    report = _compare([ADA, near], [ADA, near, near], multi_label=True)
    assert [(d.found_by, d.cause) for d in report.differences] == [("reference", Cause.NEAR_THRESHOLD)]
    assert not _compare([ADA, *[near] * 3], [ADA, near], multi_label=True).ok


@pytest.mark.parametrize(
    ("score", "cause"), [(0.5 - 5e-5, Cause.NEAR_THRESHOLD), (0.4, Cause.UNEXPLAINED), (None, Cause.UNEXPLAINED)]
)
def test_an_entity_that_only_ours_has(score, cause):
    candidates = [ADA] if score is None else [ADA, replace(PARIS, score=score)]
    report = _compare([ADA, replace(PARIS, score=0.50001)], [ADA], [c for c in candidates if c.score > 0.5 - TOLERANCE])
    assert [(d.found_by, d.cause) for d in report.differences] == [("ours", cause)]


@pytest.mark.parametrize(("gap", "is_ok"), [(5e-5, True), (2e-4, False)])
def test_a_rival_near_a_tie_may_win(gap, is_ok):
    long = Candidate(0, 12, "person", 0.9 - gap)
    report = _compare([long], [ADA], [ADA, long])
    assert report.ok is is_ok
    assert {d.cause for d in report.differences} == {Cause.NEAR_TIE if is_ok else Cause.UNEXPLAINED}


def test_what_a_tie_sets_free_or_rules_out_is_explained_too():
    long = Candidate(0, 12, "person", 0.9 - 5e-5)
    report = _compare([long], [ADA, PARIS], [ADA, long, PARIS])
    assert {(d.found_by, d.start): d.cause for d in report.differences} == {
        ("ours", 0): Cause.NEAR_TIE,
        ("reference", 0): Cause.NEAR_TIE,
        ("reference", 10): Cause.KNOCK_ON,
    }


def test_an_entity_that_a_tie_should_have_set_free_is_missed():
    long = Candidate(0, 12, "person", 0.9)
    report = _compare([replace(ADA, score=0.9)], [long], [long, ADA, PARIS])
    assert ("neither", Cause.UNEXPLAINED) in {(d.found_by, d.cause) for d in report.differences}


def test_the_same_entity_with_another_label_is_a_difference():
    other = replace(ADA, label="robot", score=0.3)
    assert not _compare([replace(other, score=0.9)], [ADA], [ADA]).ok
    assert _compare(
        [replace(ADA, label="robot", score=0.89995)], [ADA], [ADA, replace(ADA, label="robot", score=0.89995)]
    ).ok


def test_overlapping_entities_are_a_difference_whatever_the_scores():
    inner = Candidate(1, 2, "letter", 0.9)
    assert not _compare([ADA, inner], [ADA], [ADA, inner]).ok
    assert _compare([ADA, inner], [ADA, inner], flat_ner=False).ok
    crossing = Candidate(2, 5, "letter", 0.9)
    assert not _compare([ADA, crossing], [ADA], [ADA, crossing], flat_ner=False).ok


def test_another_order_is_a_difference_but_for_near_ties_at_one_start():
    outer = Candidate(0, 12, "person", 0.9 - 5e-5)
    assert _compare([outer, ADA], [ADA, outer], flat_ner=False).ok
    far = replace(outer, score=0.8)
    assert not _compare([far, ADA], [ADA, far], flat_ner=False).ok
    assert not _compare([PARIS, ADA], [ADA, PARIS]).ok


def test_a_score_that_is_no_number_is_a_difference():
    assert not _compare([replace(ADA, score=float("nan"))], [ADA]).ok


def test_answers_to_other_texts_are_refused():
    with pytest.raises(ValueError, match="ours has answers to 1 texts, the reference to 2"):
        compare([[]], [[], []], lambda _: [])


_SPANS = st.tuples(st.integers(0, 12), st.integers(1, 5), st.sampled_from("AB"))


@st.composite
def _scored_spans(draw):
    """Candidates on a coarse grid, so that many tie, each moved a little; and moved again, as another program would."""
    spans = draw(st.lists(_SPANS, unique=True, max_size=14))
    nudges = st.floats(-TOLERANCE / 2, TOLERANCE / 2)
    first, second = [], []
    for start, width, label in spans:
        score = draw(st.sampled_from([0.5, 0.6, 0.7])) + draw(nudges)
        mark = draw(st.sampled_from([math.inf, 0.5, 0.6])) + draw(nudges)
        first.append(Candidate(start, start + width, label, score, (mark,)))
        second.append(Candidate(start, start + width, label, score + draw(nudges), (mark + draw(nudges),)))
    return first, second


@given(both=_scored_spans(), flat_ner=st.booleans(), multi_label=st.booleans())
def test_rounding_is_always_explained(both, flat_ner, multi_label):
    reference, ours = both
    options = {"threshold": 0.5, "flat_ner": flat_ner, "multi_label": multi_label}
    report = compare(
        [_answer(ours, **options)],
        [_answer(reference, **options)],
        lambda _: [c for c in reference if c.lowest > 0.5 - TOLERANCE],
        **options,
    )
    assert report.ok, str(report)


@given(
    spans=st.lists(_SPANS, unique=True, min_size=1, max_size=14),
    flat_ner=st.booleans(),
    multi_label=st.booleans(),
    data=st.data(),
)
def test_a_lost_or_an_invented_entity_is_never_explained(spans, flat_ner, multi_label, data):
    # Scores far apart and far from the threshold: no rounding can excuse anything.
    order = data.draw(st.permutations(range(len(spans))))
    reference = [
        Candidate(start, start + width, label, 0.55 + 0.02 * rank)
        for (start, width, label), rank in zip(spans, order, strict=True)
    ]
    options = {"threshold": 0.5, "flat_ner": flat_ner, "multi_label": multi_label}
    answer = _answer(reference, **options)
    lost = data.draw(st.integers(0, len(answer) - 1))
    ours = [*answer[:lost], *answer[lost + 1 :]]
    assert not compare([ours], [answer], lambda _: reference, **options).ok
    dropped = [_entity(c) for c in reference if _entity(c) not in answer]
    if dropped:
        invented = sorted([*answer, data.draw(st.sampled_from(dropped))], key=lambda entity: entity["start"])
        assert not compare([invented], [answer], lambda _: reference, **options).ok


def test_the_report_as_text_and_as_json():
    import json

    report = _compare([ADA], [ADA, PARIS])
    text = str(report)
    assert "differing, unexplained         1" in text
    assert "text 0: 'city' at 10..15, score 0.800000, only gliner: unexplained" in text
    assert text.endswith("NOT the same answers.")
    values = json.loads(json.dumps(report.to_dict()))
    assert values["ok"] is False
    assert values["differences"][0]["cause"] == "unexplained"


def test_a_report_shows_twenty_differences_and_counts_the_rest():
    lost = [Candidate(4 * n, 4 * n + 3, "x", 0.9) for n in range(30)]
    assert "    and 10 more" in str(_compare([], lost))


def test_labels_of_one_text():
    assert labels_of_text(["a", "b"], 1) == ["a", "b"]
    assert labels_of_text([["a"], ["b"]], 1) == ["b"]
    assert labels_of_text([{"a": "x"}, ["b"]], 0) == {"a": "x"}
    assert labels_of_text({"a": "x"}, 3) == {"a": "x"}


def test_verify_without_gliner_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gliner", None)
    with pytest.raises(ImportError, match=r"pip install gliner==0\.2\.29"):
        verify(None, ["Ada"], ["person"])


def test_the_package_has_the_function_whatever_was_imported_before():
    import gliner_fast.comparing.verification

    assert gliner_fast.verify is verify


@pytest.mark.gliner
def test_verify_loads_the_reference_itself(checkpoint):
    report = gliner_fast.verify(checkpoint("deberta"), CROSSNER[:8], LABELS, threshold=0.3, flat_ner=False)
    assert report.ok, str(report)
    assert report.texts == 8
    assert report.entities == report.equal > 5


@pytest.mark.gliner
@pytest.mark.parametrize("modes", [{}, {"flat_ner": False, "multi_label": True}])
def test_verify_asks_a_model_that_marks_padding_for_one_text_at_a_time(checkpoint, modes):
    from gliner import GLiNER

    folder = checkpoint("token-spans-bert")
    with pytest.raises(IndexError):
        GLiNER.from_pretrained(str(folder)).inference(CROSSNER[:40], LABELS, threshold=0.3)
    report = verify(folder, CROSSNER[:40], LABELS, threshold=0.3, **modes)
    assert report.ok, str(report)
    assert report.entities > 100


@pytest.mark.gliner
def test_verify_compares_a_checkpoint_that_gliner_cannot_read(checkpoint, tmp_path):
    source = checkpoint("deberta")
    for path in source.glob("*.json"):
        shutil.copy(path, tmp_path)
    save_file(quantize_rows(read_weights(find_weights(source))), tmp_path / INT8_ROWS)
    report = verify(tmp_path, CROSSNER[:8], LABELS, threshold=0.3)
    assert report.ok, str(report)
    assert report.entities > 5


@pytest.mark.gliner
def test_verify_reads_the_reference_as_ours_was_read(checkpoint):
    ours = gliner_fast.GLiNER.from_pretrained(checkpoint("deberta"), max_width=3, max_length=384)
    report = verify(ours, CROSSNER[:8], [["person"], LABELS] * 4)
    assert report.ok, str(report)


@pytest.mark.gliner
def test_verify_finds_a_wrong_model(checkpoint):
    from gliner import GLiNER

    ours = gliner_fast.GLiNER.from_pretrained(checkpoint("deberta"))
    report = verify(ours, CROSSNER[:8], LABELS, reference=GLiNER.from_pretrained(str(checkpoint("deberta-last"))))
    assert not report.ok
    assert report.unexplained > 5


@pytest.mark.gliner
def test_verify_warns_where_the_reference_makes_weights_up(checkpoint):
    with pytest.warns(UserWarning, match="puts a random one there"):
        report = verify(checkpoint("era-has-rnn-false"), CROSSNER[:4], LABELS)
    assert not report.ok


@pytest.mark.gliner
def test_a_model_without_a_folder_needs_a_reference(checkpoint):
    import json

    settings = json.loads((checkpoint("era-v1") / "gliner_config.json").read_text())
    made = gliner_fast.GLiNER.from_config(settings, backbone_from_pretrained=False)
    with pytest.raises(ValueError, match="was not loaded from a folder"):
        verify(made, ["Ada"], ["person"])


@pytest.mark.gliner
def test_a_model_with_other_weights_than_its_folder_needs_a_reference(checkpoint):
    model = gliner_fast.GLiNER.from_pretrained(checkpoint("deberta"))
    with torch.no_grad():
        model.model.scorer.out.bias.add_(1)
    with pytest.raises(ValueError, match="the model's weights are not those of .*, where it was loaded from"):
        verify(model, ["Ada"], ["person"])


def test_a_report_names_the_gliner_that_is_installed(monkeypatch):
    monkeypatch.setattr(
        "gliner_fast.comparing.installed_gliner.metadata.version", lambda package: {"gliner": "0.3.1"}[package]
    )
    report = _compare([], [])
    assert report.to_dict()["reference_version"] == "0.3.1"
    assert "found by gliner 0.3.1" in str(report)


@pytest.mark.gliner
def test_another_gliner_than_the_reference_is_told(monkeypatch):
    monkeypatch.setattr(
        "gliner_fast.comparing.installed_gliner.metadata.version", lambda package: {"gliner": "0.3.1"}[package]
    )
    with pytest.warns(UserWarning, match="gliner 0.3.1 is installed, and ours answers as 0.2.29 does"):
        require_reference()


@pytest.mark.gliner
def test_candidates_of_a_model_that_scores_the_spans_that_it_marks_have_their_marks(checkpoint):
    from gliner import GLiNER

    reference = GLiNER.from_pretrained(str(checkpoint("token-spans")))
    labels = ["person", "city <<ENT>> name"]  # what the third entity token marks counts, too
    found = {c.key: c for c in find_reference_candidates(reference, CROSSNER[0], labels, floor=0.05)}
    assert {candidate.label for candidate in found.values()} == set(labels)
    for threshold in (0.05, 0.2, 0.4):
        options = {"threshold": threshold, "flat_ner": False, "multi_label": True}
        survivors = {
            (e["start"], e["end"], e["label"]) for e in reference.predict_entities(CROSSNER[0], labels, **options)
        }
        passing = {key for key, candidate in found.items() if candidate.lowest > threshold}
        assert survivors <= passing
        # Crossing spans are dropped: the best of all is not.
        assert max(passing, key=lambda key: found[key].score) in survivors
    assert {len(candidate.marks) for candidate in found.values()} == {3}
    assert {max(candidate.marks) < candidate.score for candidate in found.values()} == {False, True}


@pytest.mark.gliner
def test_candidates_are_all_that_the_reference_scores(checkpoint):
    from gliner import GLiNER

    reference = GLiNER.from_pretrained(str(checkpoint("deberta-narrow")))
    found = find_reference_candidates(reference, "Ada was in Rome", ["person", "city"], floor=0.0)
    assert {(c.start, c.end) for c in found} == {
        (0, 3), (0, 7), (0, 10), (4, 7), (4, 10), (4, 15), (8, 10), (8, 15), (11, 15)
    }  # fmt: skip
    assert len(found) == 18
    survivors = reference.predict_entities("Ada was in Rome", ["person", "city"], threshold=0.0)
    scores = {candidate.key: candidate.score for candidate in found}
    assert all(scores[e["start"], e["end"], e["label"]] == pytest.approx(e["score"], abs=1e-6) for e in survivors)
    assert find_reference_candidates(reference, " ", ["person"], floor=0.0) == []
    assert find_reference_candidates(reference, "Ada", [], floor=0.0) == []
