"""Options of the prediction methods mean what they mean in gliner."""

import itertools
import re

import pytest

from tests.parity.pairs import Pair, spans
from tests.samples import CROSSNER, LABELS

pytestmark = pytest.mark.gliner

TEXTS = CROSSNER[::15]  # 8


@pytest.fixture(params=["deberta", "token", "bi"])
def both(request, pair):
    """A pair that scores spans, one that marks words, and one that encodes labels by themselves."""
    return pair(request.param)


@pytest.mark.parametrize("threshold", [0, 0.3, 0.5, 0.9, 1, 0.0001, 0.9999])
@pytest.mark.parametrize(("flat_ner", "multi_label"), list(itertools.product([True, False], repeat=2)))
def test_threshold_and_overlap(threshold, flat_ner, multi_label, both):
    texts = TEXTS if threshold >= 0.3 else TEXTS[:2]  # below, every span of every text is a candidate
    found = both.check(texts, LABELS, threshold=threshold, flat_ner=flat_ner, multi_label=multi_label)
    assert any(found) == (threshold <= 0.9)


@pytest.mark.parametrize("threshold", [-1, -0.5, 1.5, 2])
def test_thresholds_that_no_score_or_every_score_passes(threshold, both):
    found = both.check(["Ada was born in London."], LABELS, threshold=threshold, flat_ner=False)
    assert bool(found[0]) == (threshold < 1)


def test_one_value_for_each_text(both):
    # The reference takes lists for one batch only (Q8); eight texts are one batch.
    both.check(
        TEXTS,
        LABELS,
        threshold=[0.1, 0.3, 0.5, 0.7, 0.9, 0.2, 0.4, 0.6],
        flat_ner=[True, False] * 4,
        multi_label=[False, False, True, True] * 2,
    )


def test_one_value_for_each_text_in_more_than_one_batch(both):
    ours = both.ours
    texts = [*TEXTS, "", *TEXTS]
    thresholds = [0.2 + 0.04 * number for number in range(17)]
    alone = [ours.predict_entities(text, LABELS, threshold=t) for text, t in zip(texts, thresholds, strict=True)]
    assert spans(ours.inference(texts, LABELS, threshold=thresholds, batch_size=2)) == spans(alone)


def _lower_case(text):
    return [(match.group().lower(), *match.span()) for match in re.finditer(r"\w+|\S", text)]


def _twice(text):
    """Each word twice, another time as a word that stands elsewhere."""
    words = [(match.group(), *match.span()) for match in re.finditer(r"\S+", text)]
    return [
        (other, start, end)
        for (word, start, end), (last, *_) in zip(words, words[::-1], strict=True)
        for other in (word, last)
    ]


@pytest.mark.parametrize("splitter", [_lower_case, _twice])
def test_the_model_reads_the_words_that_a_splitter_gives(splitter, both):
    texts = [text.title() for text in TEXTS]
    plain = both.check(texts, LABELS, threshold=0.3)
    before = both.ours.data_processor.words_splitter, both.reference.data_processor.words_splitter
    try:
        both.ours.data_processor.words_splitter = both.reference.data_processor.words_splitter = splitter
        found = both.reference.inference(texts, LABELS, threshold=0.3, flat_ner=False)
        mine = both.ours.inference(texts, LABELS, threshold=0.3, flat_ner=False)
    finally:
        both.ours.data_processor.words_splitter, both.reference.data_processor.words_splitter = before
    assert spans(found) != spans(plain)
    assert spans(mine) == spans(found)
    scores, own = ([e["score"] for answers in given for e in answers] for given in (found, mine))
    assert own == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 8, 100])
def test_batch_size_changes_nothing(batch_size, both):
    both.check(TEXTS, LABELS, batch_size=batch_size)


def _words_as_spans(text, *, width):
    words = [match.span() for match in re.finditer(r"\w+(?:[-_]\w+)*|\S", text)]
    return [{"start": words[i][0], "end": words[i + width - 1][1]} for i in range(len(words) - width + 1)]


@pytest.mark.parametrize("decoding", [{}, {"flat_ner": False}, {"multi_label": True}])
def test_input_spans_restrict_the_candidates(decoding, both):
    spans = [_words_as_spans(text, width=2)[::2] + _words_as_spans(text, width=1)[::3] for text in TEXTS]
    found = both.check(TEXTS, LABELS, threshold=0.05, input_spans=spans, **decoding)
    for entities, allowed in zip(found, spans, strict=True):
        assert all({"start": entity["start"], "end": entity["end"]} in allowed for entity in entities)
    assert sum(map(len, found)) > 5


def test_input_spans_that_fit_no_words_are_dropped(both):
    text = "Ada Lovelace was born in London."
    spans = [{"start": 1, "end": 12}, {"start": 0, "end": 11}, {"start": 5, "end": 3}, {"start": 0, "end": 1000},
             {"start": -3, "end": 3}, {"start": 4, "end": 12, "label": "kept"}]  # fmt: skip
    found = both.check([text], LABELS, threshold=0, input_spans=[spans])
    assert {(entity["start"], entity["end"]) for entity in found[0]} == {(4, 12)}


def test_input_spans_of_empty_texts_are_skipped(both):
    spans = [[{"start": 0, "end": 3}], [], [{"start": 0, "end": 6}], []]
    both.check(["Ada", "", "London", "Paris"], LABELS, threshold=0, input_spans=spans)


def test_input_spans_wider_than_the_model_s_widest_span(both):
    text = TEXTS[0]
    wide = [{"start": 0, "end": len(text.rstrip())}, *_words_as_spans(text, width=13), *_words_as_spans(text, width=12)]
    both.check([text], LABELS, threshold=0, input_spans=[wide])


@pytest.mark.parametrize("kind", ["deberta", "deberta-marker", "bert-same-width", "token", "token-same-width", "bi"])
@pytest.mark.parametrize("decoding", [{}, {"flat_ner": False, "multi_label": True}])
@pytest.mark.parametrize("labels", [LABELS, LABELS[:2]], ids=["six labels", "two labels"])
def test_class_probs_and_vectors(kind, decoding, labels, pair):
    found = pair(kind).check(
        TEXTS,
        labels,
        threshold=0.2,
        return_class_probs=True,
        return_vectors=True,
        return_label_vectors=True,
        **decoding,
    )
    entity = next(entity for entities in found for entity in entities)
    class_probs = [] if kind.startswith("token") else ["class_probs"]  # token-level models give none
    assert list(entity) == ["start", "end", "text", "label", "score", *class_probs, "vector", "label_vector"]


@pytest.mark.parametrize("option", ["return_class_probs", "return_vectors", "return_label_vectors"])
def test_each_extra_value_alone(option, both):
    both.check(TEXTS[:3], LABELS, threshold=0.2, **{option: True})


def test_vectors_of_labels_of_each_text_s_own(both):
    labels = [["person"], ["location", "event"], [], ["a", "b", "c"]]
    both.check(TEXTS[:4], labels, threshold=0.1, return_vectors=True, return_label_vectors=True)


def test_predict_entities_answers_for_one_text(both):
    for options in ({}, {"flat_ner": False}, {"threshold": 0.2, "multi_label": True}, {"return_class_probs": True}):
        for text in (*TEXTS[:3], "", " "):
            ours = both.ours.predict_entities(text, LABELS, **options)
            assert spans([ours]) == spans([both.reference.predict_entities(text, LABELS, **options)])
            assert spans([ours]) == spans(both.check([text], LABELS, **options))


def test_positional_arguments_stand_in_the_reference_s_order(both):
    for predictor in (both.ours, both.reference):
        by_place = predictor.predict_entities(TEXTS[0], LABELS, False, 0.2, True, True)
        assert by_place == predictor.predict_entities(
            TEXTS[0], LABELS, flat_ner=False, threshold=0.2, multi_label=True, return_class_probs=True
        )
        spans = [_words_as_spans(TEXTS[0], width=1)]
        by_place = predictor.inference(TEXTS[:1], LABELS, False, 0.2, True, 4, None, spans, True)
        assert by_place == predictor.inference(
            TEXTS[:1], LABELS, flat_ner=False, threshold=0.2, multi_label=True, batch_size=4, packing_config=None,
            input_spans=spans, return_class_probs=True,
        )  # fmt: skip


def test_batch_predict_entities_says_what_to_use_instead(both):
    messages = []
    for predictor in (both.ours, both.reference):
        with pytest.warns(FutureWarning) as caught:
            found = predictor.batch_predict_entities(TEXTS, LABELS, False, 0.4, True, batch_size=3)
        wanted = predictor.inference(TEXTS, LABELS, flat_ner=False, threshold=0.4, multi_label=True, batch_size=3)
        assert spans(found) == spans(wanted)
        messages.append(str(caught[0].message))
        assert caught[0].filename == __file__
    assert messages[0] == messages[1]


@pytest.mark.filterwarnings("ignore")
def test_unknown_options_are_swallowed(both):
    ours = both.ours.inference(TEXTS[:2], LABELS, num_workers=2)
    assert spans(ours) == spans(both.reference.inference(TEXTS[:2], LABELS, num_workers=2))


@pytest.mark.parametrize("options", [{"threshold": [0.5, 0.5]}, {"flat_ner": [True]}, {"multi_label": [True] * 9}])
def test_lists_of_another_length_than_the_texts_are_refused(options, both):
    for predictor in (both.ours, both.reference):
        with pytest.raises(ValueError, match="must have length 8"):
            predictor.inference(TEXTS, LABELS, **options)


@pytest.mark.parametrize("override", [{"max_length": 10}, {"max_width": 4}])
def test_overrides_at_loading(override, checkpoint):
    both = Pair.load(checkpoint("deberta"), **override)
    assert sum(map(len, both.check(TEXTS, LABELS, threshold=0.3))) > 0
