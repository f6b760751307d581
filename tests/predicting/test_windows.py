"""Long texts read in windows: the entities are those of all windows, resolved over the whole text."""

import contextlib
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gliner_fast import GLiNER
from gliner_fast.comparing.reference_candidates import Candidate
from gliner_fast.comparing.verification import compare
from gliner_fast.predicting.request import Options, Request
from gliner_fast.stats import Stats
from tests.reference import decoding
from tests.reference.examples import examples
from tests.reference.marks import find_marked_spans
from tests.samples import BOOKS, CROSSNER, LABELS

WORD = re.compile(r"\w+(?:[-_]\w+)*|\S")
LONG = " ".join(BOOKS)[:4000]


@pytest.fixture(scope="session")
def narrow(checkpoint):
    """Reads 24 words, spans of up to 3; so windows share 12 words, of which the first 6 belong to the left one."""
    return GLiNER.from_pretrained(checkpoint("deberta-narrow"))


def windows_of(text, *, size=24, overlap=12):
    """(first word, text of the window, its first character, owned words) of each window, one after another."""
    words = [match.span() for match in WORD.finditer(text)]
    first = owned_first = 0
    while True:
        last = min(first + size, len(words))
        owned_last = len(words) if last == len(words) else first + size - overlap + overlap // 2
        begin, end = words[first][0], words[last - 1][1]
        yield first, text[begin:end], begin, range(owned_first, owned_last)
        if last == len(words):
            return
        first, owned_first = first + size - overlap, owned_last


def scores_alone(model, text, labels):
    """(W, K, C) scores of a text by itself, straight from the network; (W, C, 3) of a token-level model."""
    predictor = model.predictor()
    prepared = predictor.prepare(Request.read([text], labels, Options()))
    batch = predictor.batcher.assemble(prepared.subwords, np.array([0]), prepared.prompts, prepared.set_of_text)
    with torch.inference_mode():
        logits = model.model(batch).logits
    shape = (len(labels), 3) if model.config.is_token_level else (model.config.max_width, len(labels))
    return torch.sigmoid(logits).reshape(-1, *shape).numpy()


def expected_candidates(model, text, labels, floor):
    """What each window, scored as a text by itself, says of the spans that it owns."""
    candidates = []
    for first, part, begin, owned in windows_of(text):
        words = [match.span() for match in WORD.finditer(part)]
        for start, last, label, score in spans_alone(model, scores_alone(model, part, labels), floor):
            if first + start in owned and last < len(words):
                ends = begin + words[start][0], begin + words[last][1]
                candidates.append(Candidate(*ends, labels[label], score))
    return candidates


def expected_represented(model, text, labels, threshold):
    """What each window, read as a text by itself, finds of the spans that it owns: each once for each marker."""
    candidates = []
    for first, part, begin, owned in windows_of(text):
        words = [match.span() for match in WORD.finditer(part)]
        predictor = model.predictor()
        prepared = predictor.prepare(Request.read([part], labels, Options(threshold=threshold)))
        laid_out = predictor.lay_out(prepared, np.array([0]))
        scored = predictor.score(laid_out, Stats(), timed=False)
        with torch.inference_mode():
            found, marks, _ = predictor.represented_spans(laid_out.batch, scored.scores, laid_out.selection)
        for *place, score, mark in zip(
            found.starts.tolist(), found.ends.tolist(), found.classes.tolist(), found.scores.tolist(), marks.tolist(),
            strict=True,
        ):  # fmt: skip
            start, end, label = place
            if first + start in owned:
                ends = begin + words[start][0], begin + words[end - 1][1]
                candidates.append(Candidate(*ends, labels[label], score, (mark,)))
    return candidates


def spans_alone(model, scores, floor):
    """(first word, last word, class, score) of what scores of a text by itself say."""
    if model.config.is_token_level:
        floors = np.full(scores.shape[1], floor)
        (marked,) = find_marked_spans([scores], [floors.astype(np.float32)], [floors])
        for start, end, label, edge, inside in marked:
            yield start, end - 1, label, min(edge, inside)
    else:
        for start, width, label in zip(*np.nonzero(scores > floor), strict=True):
            yield start, start + width, label, float(scores[start, width, label])


def resolved(text, candidates, *, nested=False, multi_label=False):
    """The entities that the reference's own search makes of candidates."""
    spans = [(candidate.start, candidate.end, candidate.score) for candidate in candidates]
    kept = decoding.resolve(spans, nested=nested, multi_label=multi_label)
    return [
        {"start": c.start, "end": c.end, "text": text[c.start : c.end], "label": c.label, "score": c.score}
        for c in (candidates[i] for i in kept)
    ]


def check(model, text, labels, found, *, threshold, flat_ner=True, multi_label=False):
    """Asserts that the entities are those of all windows, each scored alone, resolved over the whole text."""
    candidates = expected_candidates(model, text, labels, threshold - 1e-4)
    above = [candidate for candidate in candidates if candidate.score > threshold]
    expected = resolved(text, above, nested=not flat_ner, multi_label=multi_label)
    report = compare(
        [found], [expected], lambda _: candidates, threshold=threshold, flat_ner=flat_ner, multi_label=multi_label
    )
    assert report.ok, str(report)
    assert all(text[entity["start"] : entity["end"]] == entity["text"] for entity in found)
    return len(expected)


@pytest.fixture(scope="session")
def narrow_marks(checkpoint):
    """Reads 24 words and marks them; windows are those of `narrow`."""
    return GLiNER.from_pretrained(checkpoint("token-same-width"), max_length=24)


TEXTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["Ada", "Lovelace", "in", "London", ",", "state-of-the-art", "日本語", "\ud800", "👩\u200d🚀", "e\u0301"]
        ),
        st.sampled_from([" ", "  ", "\n", "\u3000"]),
    ),
    min_size=1,
    max_size=120,
).map(lambda pairs: "".join(word + space for word, space in pairs))


@examples
@given(text=TEXTS, flat_ner=st.booleans(), multi_label=st.booleans())
@pytest.mark.gliner
def test_entities_are_those_of_the_windows_alone_resolved_together(narrow, text, flat_ner, multi_label):
    options = {"threshold": 0.4, "flat_ner": flat_ner, "multi_label": multi_label}
    check(narrow, text, LABELS, narrow.predict_entities(text, LABELS, on_long="window", **options), **options)


@pytest.mark.parametrize("options", [{}, {"flat_ner": False}, {"flat_ner": False, "multi_label": True}])
@pytest.mark.gliner
def test_entities_of_a_document(narrow, options):
    found = narrow.predict_entities(LONG, LABELS, threshold=0.4, on_long="window", **options)
    assert check(narrow, LONG, LABELS, found, threshold=0.4, **options) > 50
    starts = [entity["start"] for entity in found]
    assert starts == sorted(starts)
    if not options:
        assert all(one["end"] <= other["start"] for one, other in pairwise(found))


@pytest.mark.parametrize("options", [{}, {"flat_ner": False, "multi_label": True}])
@pytest.mark.gliner
def test_a_token_level_model_s_entities_of_a_document(options, narrow_marks):
    found = narrow_marks.predict_entities(LONG, LABELS, threshold=0.4, on_long="window", **options)
    assert check(narrow_marks, LONG, LABELS, found, threshold=0.4, **options) > 50
    assert max(len(WORD.findall(entity["text"])) for entity in found) > narrow_marks.config.max_width


@pytest.mark.parametrize("options", [{}, {"flat_ner": False}, {"flat_ner": False, "multi_label": True}])
@pytest.mark.gliner
def test_a_document_s_entities_of_a_model_that_scores_the_spans_that_it_marks(options, checkpoint):
    model = GLiNER.from_pretrained(checkpoint("token-spans"), max_length=24, max_width=3)
    found = model.predict_entities(LONG, LABELS, threshold=0.4, on_long="window", **options)
    near = expected_represented(model, LONG, LABELS, 0.4 - 1e-4)
    modes = {"nested": not options.get("flat_ner", True), "multi_label": options.get("multi_label", False)}
    expected = resolved(LONG, [candidate for candidate in near if candidate.lowest > 0.4], **modes)
    report = compare([found], [expected], lambda _: near, threshold=0.4, **options)
    assert report.ok, str(report)
    assert len(expected) > 50
    keys = [(entity["start"], entity["end"], entity["label"]) for entity in found]
    assert (len(set(keys)) < len(keys)) == ("multi_label" in options)


@pytest.mark.parametrize("on_long", ["truncate", "window", "error"])
@pytest.mark.gliner
def test_a_text_that_fits_is_read_as_ever(on_long, narrow):
    fitting = " ".join(LONG.split()[:12])
    assert len(WORD.findall(fitting)) <= 24
    texts = [fitting, "", "Ada", None]
    assert narrow.inference(texts, LABELS, threshold=0.3, on_long=on_long) == narrow.inference(
        texts, LABELS, threshold=0.3
    )


@pytest.mark.gliner
def test_a_text_of_one_word_too_many(narrow):
    words = [f"word{number}" for number in range(25)]
    fits, long = " ".join(words[:24]), " ".join(words)
    everything = {"threshold": -1, "flat_ner": False, "multi_label": True}
    assert narrow.predict_entities(fits, LABELS, on_long="error", **everything)
    with pytest.raises(ValueError, match="text 0 has 25 words, and the model reads 24: on_long='window' reads all"):
        narrow.predict_entities(long, LABELS, on_long="error")
    with pytest.warns(UserWarning, match="Sentence of length 25 has been truncated to 24"):
        cut = narrow.predict_entities(long, LABELS, **everything)
    assert max(entity["end"] for entity in cut) == len(fits)
    ends = [match.span() for match in WORD.finditer(long)]
    spans = [
        {"start": ends[first][0], "end": ends[last][1]}
        for first in range(25)
        for last in range(first, min(first + 3, 25))
    ]
    found = narrow.inference(
        [long] * len(spans), ["city"], threshold=-1, input_spans=[[span] for span in spans], on_long="window"
    )
    assert [[(entity["start"], entity["end"]) for entity in own] for own in found] == [
        [(span["start"], span["end"])] for span in spans
    ]


@pytest.mark.gliner
def test_a_span_that_lies_across_the_end_of_a_window_is_found_whole(narrow):
    words = [match.span() for match in WORD.finditer(LONG)]
    for border in (24, 12, 18, 36, 30):  # ends and starts of windows, and where ownership changes
        for first, last in ((border - 1, border + 1), (border - 2, border + 1), (border - 1, border + 2)):
            span = {"start": words[first][0], "end": words[last - 1][1]}
            (entity,) = narrow.predict_entities(LONG, ["person"], threshold=-1, input_spans=[[span]], on_long="window")
            assert (entity["start"], entity["end"]) == (span["start"], span["end"])
            start, part = next((start, part) for start, part, _, owned in windows_of(LONG) if first in owned)
            alone = scores_alone(narrow, part, ["person"])[first - start, last - first - 1, 0]
            assert entity["score"] == pytest.approx(alone, abs=1e-4)


@pytest.mark.gliner
def test_input_spans_that_fit_no_span_of_the_model_are_dropped(narrow):
    words = [match.span() for match in WORD.finditer(LONG)]
    spans = [{"start": words[20][0], "end": words[28][1]}, {"start": 1, "end": words[3][1]}]
    assert narrow.predict_entities(LONG, LABELS, threshold=-1, input_spans=[spans], on_long="window") == []


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
@pytest.mark.gliner
def test_results_depend_neither_on_batch_size_nor_on_neighbours(batch_size, narrow):
    texts = [LONG[:1500], CROSSNER[0], LONG[1500:3000], "", CROSSNER[1], LONG[:1500]]
    alone = [narrow.predict_entities(text, LABELS, threshold=0.4, on_long="window") for text in texts]
    found = narrow.inference(texts, LABELS, threshold=0.4, on_long="window", batch_size=batch_size)
    candidates = [expected_candidates(narrow, text, LABELS, 0.39) if text else [] for text in texts]
    report = compare(found, alone, candidates.__getitem__, threshold=0.4)
    assert report.ok, str(report)
    assert report.entities > 30


@pytest.mark.gliner
def test_every_text_may_have_options_of_its_own(narrow):
    # The first two are cut into no windows, and what is no text has no words either.
    texts = [None, "Ada met Grace.", LONG[:1200], LONG[1200:2400], LONG[2400:3600]]
    labels = [["city"], ["person"], ["person", "location"], {"event": "something that happens"}, ["organization"]]
    per_text = {
        "threshold": [0.3, -1, 0.3, 0.5, 0.4],
        "flat_ner": [False, False, True, False, False],
        "multi_label": [True, True, False, True, False],
    }
    found = narrow.inference(texts, labels, on_long="window", **per_text)
    for index, (text, own, entities) in enumerate(zip(texts, labels, found, strict=True)):
        options = {name: values[index] for name, values in per_text.items()}
        alone = narrow.predict_entities(text, own, on_long="window", **options)
        assert [entity["label"] for entity in entities] == [entity["label"] for entity in alone]
        assert {entity["label"] for entity in entities} <= set(own)
    assert all(found[1:])


@pytest.mark.gliner
def test_every_label_may_have_a_threshold_of_its_own(narrow):
    thresholds = {"person": 0.3, "location": 0.7}
    found = narrow.predict_entities(
        LONG, list(thresholds), threshold=thresholds, flat_ner=False, multi_label=True, on_long="window"
    )
    for label, threshold in thresholds.items():
        scores = [entity["score"] for entity in found if entity["label"] == label]
        assert len(scores) > 5
        assert min(scores) > threshold
        assert min(scores) < threshold + 0.1


@pytest.mark.gliner
def test_class_probs_and_vectors_come_from_the_window_that_owns_the_span(narrow):
    text = LONG[:1000]
    extras = {"return_class_probs": True, "return_vectors": True, "return_label_vectors": True}
    found = narrow.predict_entities(text, LABELS, threshold=0.5, on_long="window", batch_size=2, **extras)
    words = {match.start(): number for number, match in enumerate(WORD.finditer(text))}
    windows = list(windows_of(text))
    assert len(windows) > 5
    assert len(found) > 10
    for entity in found:
        _, part, begin, _ = next(window for window in windows if words[entity["start"]] in window[3])
        span = {"start": entity["start"] - begin, "end": entity["end"] - begin}
        ours = narrow.predict_entities(part, LABELS, threshold=-1, multi_label=True, input_spans=[[span]], **extras)
        alone = next(other for other in ours if other["label"] == entity["label"])
        assert list(entity) == list(alone)
        assert entity["class_probs"] == pytest.approx(alone["class_probs"], abs=1e-4)
        assert np.allclose(entity["vector"], alone["vector"], atol=1e-4)
        assert np.allclose(entity["label_vector"], alone["label_vector"], atol=1e-4)


def _by_blanks(text):
    return [(match.group(), match.start(), match.end()) for match in re.finditer(r"\S+", text)]


@pytest.mark.gliner
def test_a_splitter_of_the_user_s_own_sees_whole_texts(checkpoint):
    model = GLiNER.from_pretrained(checkpoint("deberta-narrow"))
    seen = []

    def splitter(text):
        seen.append(text)
        return _by_blanks(text)

    model.data_processor.words_splitter = splitter
    found = model.predict_entities(LONG, LABELS, threshold=0.4, on_long="window")
    assert seen == [LONG]
    borders = {end for _, *ends in _by_blanks(LONG) for end in ends}
    assert len(found) > 30
    assert all({entity["start"], entity["end"]} <= borders for entity in found)
    assert max(entity["end"] for entity in found) > len(LONG) * 0.9


@pytest.mark.gliner
def test_windows_are_of_the_words_that_a_splitter_gives(checkpoint):
    model = GLiNER.from_pretrained(checkpoint("deberta-narrow"))
    model.data_processor.words_splitter = _by_blanks
    expected = model.predict_entities(LONG.lower(), LABELS, threshold=0.4, on_long="window")
    model.data_processor.words_splitter = lambda text: [(word.lower(), *ends) for word, *ends in _by_blanks(text)]
    found = model.predict_entities(LONG, LABELS, threshold=0.4, on_long="window")
    assert [{**entity, "text": entity["text"].lower()} for entity in found] == expected
    assert any(entity["text"] != entity["text"].lower() for entity in found)


@pytest.mark.gliner
def test_windows_are_smaller_where_the_tokenizer_s_limit_asks_for_it(checkpoint):
    model = GLiNER.from_pretrained(checkpoint("bert-cut-first"))  # 96 subwords, labels included, and 384 words
    predictor = model.predictor()
    prepared = predictor.prepare(Request.read([LONG], LABELS[:3], Options(on_long="window")))
    assert prepared.warnings == []
    assert prepared.rows.are_windows.all()
    assert (prepared.subwords.subword_counts + prepared.prompts.lengths[0] + 2 <= 96).all()
    assert (prepared.rows.lasts - prepared.rows.firsts).max() >= 24
    # A text of fewer words than the model's longest is cut into windows too, where its subwords are too many.
    short = " ".join(LONG.split()[:200])
    found = model.predict_entities(short, LABELS[:3], threshold=0.3, on_long="window")
    assert max(entity["end"] for entity in found) > 0.9 * len(short)
    with pytest.raises(ValueError, match="text 0 has .* subwords in its .* words, and the tokenizer's limit leaves"):
        model.predict_entities(short, LABELS[:3], on_long="error")


@pytest.mark.gliner
@pytest.mark.parametrize("must_read_all", [False, True])
def test_dense_lines_make_small_windows_of_themselves_alone(must_read_all, checkpoint):
    predictor = GLiNER.from_pretrained(checkpoint("bert-cut-first")).predictor()  # 96 subwords
    options = Options(on_long="window", must_read_all=must_read_all)
    dense = "qxzj" * 9  # of which a window has room for two
    alone, beside, both = (
        predictor.prepare(Request.read([text], LABELS[:3], options))
        for text in (LONG, " ".join([dense] * 30), f"{LONG} {' '.join([dense] * 30)}")
    )
    assert len(both.rows.texts) <= len(alone.rows.texts) + len(beside.rows.texts) + 5  # where one passes into the other
    same = len(alone.rows.texts) - 1
    assert both.rows.owned_lasts[:same].tolist() == alone.rows.owned_lasts[:same].tolist()
    assert bool(both.warnings) is not must_read_all


@pytest.mark.gliner
def test_windows_by_subwords_are_the_same_beside_a_short_text(checkpoint):
    predictor = GLiNER.from_pretrained(checkpoint("bert-cut-first")).predictor()
    dense = f"{LONG} {'qxzj ' * 30} {LONG}"
    alone, beside = (
        predictor.prepare(Request.read(texts, LABELS[:3], Options(on_long="window"))).rows
        for texts in ([dense], ["Paris", dense])
    )
    assert beside.firsts.tolist() == [0, *alone.firsts.tolist()]
    assert beside.lasts.tolist() == [1, *alone.lasts.tolist()]


@pytest.mark.gliner
def test_windows_by_subwords_have_no_more_words_than_are_read_however_wide_spans_may_be(checkpoint):
    predictor = replace(GLiNER.from_pretrained(checkpoint("bert-cut-first")).predictor(), max_words=10, max_width=12)
    prepared = predictor.prepare(Request.read([" ".join(["qxzj" * 9] * 30)], LABELS[:3], Options(on_long="window")))
    assert (prepared.rows.lasts - prepared.rows.firsts).max() == 10


@pytest.mark.gliner
def test_a_text_that_must_be_read_and_cannot_is_named_by_its_number(checkpoint):
    predictor = GLiNER.from_pretrained(checkpoint("bert-cut-first")).predictor()
    texts, options = ["", "Paris", "", "qxzj" * 24], Options(on_long="window", must_read_all=True)
    with pytest.raises(ValueError, match="^text 7 has words that are not read"):
        predictor.prepare(Request.read(texts, LABELS, options, first_text=4))


@pytest.mark.gliner
def test_whether_a_text_can_be_read_whole_is_known_before(checkpoint):
    predictor = GLiNER.from_pretrained(checkpoint("bert-cut-first")).predictor()
    known = []
    for length in range(1, 96):
        request = Request.read(["Paris " + "x" * length], LABELS, Options(on_long="window", must_read_all=True))
        known.append(predictor.can_read_whole(request))
        with contextlib.nullcontext() if known[-1] else pytest.raises(ValueError, match="words that are not read"):
            predictor.prepare(request)
    assert set(known) == {True, False}


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (f"{LONG} {'qxzj' * 24} {LONG}", LABELS),  # one word of more subwords than the limit
        (LONG, [f"label number {number}" for number in range(100)]),
    ],
)
@pytest.mark.gliner
def test_what_the_tokenizer_s_limit_cuts_off_in_spite_of_windows_is_told(text, labels, checkpoint):
    model = GLiNER.from_pretrained(checkpoint("bert-cut-first"))
    with pytest.warns(UserWarning, match="pass the tokenizer's limit of 96 subwords; the words beyond are not read"):
        found = model.predict_entities(text, labels, threshold=0.3, on_long="window")
    assert all(text[entity["start"] : entity["end"]] == entity["text"] for entity in found)


@pytest.mark.gliner
def test_a_very_long_text_takes_one_row_after_another(narrow):
    # 12,000 words in batches of one budget: the rows in memory at a time are those of one batch.
    text = "Ada met Grace in London. " * 2_000
    sizes = []
    forward = narrow.model.forward

    def measured(batch, *others):
        sizes.append(batch.input_ids.numel())
        return forward(batch, *others)

    narrow.model.forward = measured
    try:
        stats = Stats()
        predictor = narrow.predictor()
        prepared = predictor.prepare(Request.read([text], ["person"], Options(on_long="window", threshold=0.9)))
        (found,) = predictor.predict(prepared, stats)
    finally:
        del narrow.model.forward
    assert max(sizes) <= predictor.budget
    assert (stats.texts, stats.computed_texts, stats.windows) == (1, 1, 999)
    assert sum(sizes) == stats.padded_subwords
    assert all(text[entity["start"] : entity["end"]] == entity["text"] for entity in found)
