"""A model's scores on annotated words: those of plain predictions, at every threshold, and those of `gliner`."""

import random
import re

import numpy as np
import pytest
import torch

from gliner_fast import GLiNER
from gliner_fast.annotated import Example
from gliner_fast.annotated.examples import labels_of
from gliner_fast.comparing.installed_gliner import load_reference
from gliner_fast.data_processor import whitespace_words
from gliner_fast.encoders.attention_executor import VARIABLE as ATTENTION
from gliner_fast.evaluation import Score, evaluate, evaluate_like_gliner
from gliner_fast.evaluation.results import score_for
from gliner_fast.kernels._triton import HAS_TRITON
from gliner_fast.predicting import out_of_memory
from gliner_fast.predicting.out_of_memory import Recovery
from gliner_fast.scoring.span_executor import VARIABLE
from tests.reference.scores import score_sets
from tests.samples import CROSSNER, CROSSNER_LABELS, LABELS, read_jsonl

MODES = [(True, False), (False, False), (True, True), (False, True)]
THRESHOLDS = (0.5, 0.3, 0.8)  # in any order


@pytest.fixture(scope="module")
def model(checkpoint):
    return GLiNER.from_pretrained(checkpoint("deberta-narrow"))  # reads 24 words


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def marking(request, checkpoint):
    """A token-level model; in bfloat16 many of its scores are the same, and some equal to thresholds."""
    dtype = getattr(torch, request.param)
    return GLiNER.from_pretrained(checkpoint("token"), max_length=24, dtype=dtype)


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def rating(request, checkpoint):
    """A token-level model that scores the spans that it marks."""
    dtype = getattr(torch, request.param)
    return GLiNER.from_pretrained(checkpoint("token-spans"), max_length=24, dtype=dtype)


@pytest.fixture(scope="module")
def examples(model):
    """Annotation that is partly right: what the model finds, some of it moved or given another label."""
    words = [[word for word, _, _ in whitespace_words(text)] for text in CROSSNER[:24]]
    words.append(["a b", "c"])  # no splitter would make these
    chance = random.Random(0)
    annotated = []
    for own, spans in zip(words, predicted(model, words, LABELS, 0.4, flat_ner=False, multi_label=True), strict=True):
        kept = [span for span in sorted(spans) if chance.random() < 0.6]
        kept += [
            (start, end, chance.choice([*LABELS, "never asked"])) for start, end, _ in kept if chance.random() < 0.3
        ]
        annotated.append(Example(tuple(own), (*kept, (len(own) - 1, len(own), "person"), *kept[:1])))
    assert max(len(example.words) for example in annotated) > 24
    return annotated


def predicted(model, words, labels, threshold, **modes):
    """The sets of (first, last + 1, label) that `inference` finds where it is told the words."""
    texts = [f"{number:03}".join(["", *own]) for number, own in enumerate(words)]  # all different, no blanks needed
    places = []
    for number, own in enumerate(words):
        starts = np.cumsum([3, *(len(word) + 3 for word in own[:-1])]).tolist()
        places.append([(word, at, at + len(word)) for word, at in zip(own, starts, strict=True)])
        assert all(texts[number][start:end] == word for word, start, end in places[-1])
    known = dict(zip(texts, places, strict=True))
    before, model.data_processor.words_splitter = model.data_processor.words_splitter, known.__getitem__
    try:
        with pytest.warns(UserWarning, match="truncated"):
            found = model.inference(texts, labels, threshold=threshold, **modes)
    finally:
        model.data_processor.words_splitter = before
    sets = []
    for own, entities in zip(places, found, strict=True):
        at_start = {start: word for word, (_, start, _) in enumerate(own)}
        at_end = {end: word + 1 for word, (_, _, end) in enumerate(own)}
        sets.append({(at_start[entity["start"]], at_end[entity["end"]], entity["label"]) for entity in entities})
    return sets


@pytest.mark.parametrize(("flat_ner", "multi_label"), MODES)
def test_one_pass_gives_what_a_prediction_at_each_threshold_gives(model, examples, flat_ner, multi_label):
    modes = {"flat_ner": flat_ner, "multi_label": multi_label}
    evaluation = evaluate(model, examples, LABELS, thresholds=THRESHOLDS, **modes)
    gold = [set(example.spans) for example in examples]
    for result in evaluation.results:
        found = predicted(model, [example.words for example in examples], LABELS, result.threshold, **modes)
        assert result.micro == score_sets(gold, found)
        assert 0 < result.micro.hits < result.micro.predicted
        assert list(result.labels) == [*LABELS, "never asked"]
        for label, score in result.labels.items():
            own = [[{span for span in spans if span[2] == label} for spans in side] for side in (gold, found)]
            assert score == score_sets(*own)
    assert evaluation.f1 == evaluation.results[0].micro.f1
    assert (evaluation.asked, evaluation.examples) == (tuple(LABELS), len(examples))
    assert evaluation.cut == sum(len(example.words) > 24 for example in examples) > 0


@pytest.mark.parametrize(("flat_ner", "multi_label"), MODES)
def test_one_pass_of_a_token_level_model_gives_what_its_predictions_give(marking, examples, flat_ner, multi_label):
    modes = {"flat_ner": flat_ner, "multi_label": multi_label}
    evaluation = evaluate(marking, examples, LABELS, thresholds=[*THRESHOLDS, 0.75], **modes)
    gold = [set(example.spans) for example in examples]
    for result in evaluation.results:
        found = predicted(marking, [example.words for example in examples], LABELS, result.threshold, **modes)
        assert result.micro == score_sets(gold, found)
        assert result.micro.predicted


def test_what_a_token_level_model_finds_at_a_score_equal_to_the_threshold(marking, examples):
    scored = score_for(marking, examples, LABELS, floor=0.3)
    by_inside = np.flatnonzero(scored.insides < scored.edges)
    by_edges = np.flatnonzero(scored.insides > scored.edges)
    assert len(by_inside)
    assert len(by_edges)
    modes = {"flat_ner": False, "multi_label": True}
    for chosen, is_found in ((by_inside[0], True), (by_edges[0], False)):
        threshold, label = float(scored.candidates.scores[chosen]), scored.labels[scored.candidates.classes[chosen]]
        thresholds = dict.fromkeys(LABELS, 2.0) | {label: threshold}
        count = scored.scores_at(thresholds, **modes)[label].predicted
        above = scored.scores_at(thresholds | {label: float(np.nextafter(np.float32(threshold), 2))}, **modes)[label]
        assert (count > above.predicted) == is_found


@pytest.mark.parametrize(("flat_ner", "multi_label"), MODES)
def test_one_pass_of_a_model_that_scores_the_spans_that_it_marks(rating, examples, flat_ner, multi_label):
    modes = {"flat_ner": flat_ner, "multi_label": multi_label}
    labels = [*LABELS, "place <<ENT>> name"]  # the second entity token marks, and rates nothing
    scored = score_for(rating, examples, labels, floor=0.3)
    assert (scored.markers == -1).any()
    assert (scored.markers != scored.candidates.classes).mean() > 0.5
    near = [float(own[np.abs(own - 0.5).argmin()]) for own in (scored.candidates.scores, scored.edges)]
    one_each = dict(zip(labels, (0.3, 0.6, 0.45, 0.7, 0.35, 0.5, 0.4), strict=True))
    evaluation = evaluate(rating, examples, labels, thresholds=[0.3, 0.5, 0.4, *near, one_each], **modes)
    words, gold = [example.words for example in examples], [set(example.spans) for example in examples]
    for result in evaluation.results:
        found = predicted(rating, words, labels, result.threshold, **modes)
        assert result.micro == score_sets(gold, found)
        assert result.micro.predicted


def test_equal_entities_count_once(rating, examples):
    texts = [" ".join(example.words[:24]) for example in examples]
    modes = {"flat_ner": False, "multi_label": True}
    found = rating.inference(texts, LABELS, threshold=0.3, **modes)
    keys = [[(entity["start"], entity["end"], entity["label"]) for entity in own] for own in found]
    assert sum(map(len, keys)) > sum(len(set(own)) for own in keys) > 0
    scored = score_for(rating, examples, LABELS, floor=0.3)
    for label, score in scored.scores_at(0.3, **modes).items():
        chosen = [
            found for found in range(len(scored.edges)) if scored.labels[scored.candidates.classes[found]] == label
        ]
        places = zip(
            *(own[chosen].tolist() for own in (scored.candidates.texts, scored.candidates.starts)), strict=True
        )
        ends = scored.candidates.ends[chosen].tolist()
        assert score.hits <= score.predicted <= len(set(zip(places, ends, strict=True)))
        assert score.hits <= score.gold


def test_thresholds_of_their_own_for_labels(model, examples):
    thresholds = {label: 0.2 + 0.1 * number for number, label in enumerate(LABELS)}
    (result,) = evaluate(model, examples, LABELS, thresholds=[thresholds]).results
    found = predicted(model, [example.words for example in examples], LABELS, thresholds)
    assert result.micro == score_sets([set(example.spans) for example in examples], found)
    with pytest.raises(ValueError, match="threshold has no value for the label 'person'"):
        evaluate(model, examples, LABELS, thresholds=[{"location": 0.5}])
    with pytest.raises(ValueError, match="thresholds is empty"):
        evaluate(model, examples, LABELS, thresholds=[])
    with pytest.raises(ValueError, match="NaN, which no score can pass"):
        evaluate(model, examples, LABELS, thresholds=[0.5, float("nan")])


def test_no_threshold_lies_below_the_floor(model, examples):
    scored = score_for(model, examples, LABELS, floor=0.5)
    with pytest.raises(ValueError, match=r"the threshold 0.4 is below 0.5"):
        scored.scores_at(0.4, flat_ner=True, multi_label=False)


def test_parts_add_up_to_the_whole(model, examples):
    scored = score_for(model, examples, LABELS, floor=0.3)
    chosen = np.arange(len(examples)) % 3 == 0
    parts = [
        part.scores_at(0.5, flat_ner=True, multi_label=False) for part in (scored.part(chosen), scored.part(~chosen))
    ]
    whole = scored.scores_at(0.5, flat_ner=True, multi_label=False)
    assert whole == {label: parts[0][label] + parts[1][label] for label in whole}


def test_labels_come_from_the_call_or_the_example_or_the_data(model, examples):
    own = [Example(example.words, example.spans, ("person", "event")) for example in examples[:2]] + examples[2:4]
    every = {label for example in own for _, _, label in example.spans}
    evaluation = evaluate(model, own)
    assert set(evaluation.asked) == every | {"person", "event"}
    gold = [set(example.spans) for example in own]
    alone = [evaluate(model, own[:2], ["person", "event"]), evaluate(model, own[2:], labels_of(own))]
    assert evaluation.results[0].micro.gold == sum(map(len, gold))
    assert evaluation.results[0].micro.predicted == sum(part.results[0].micro.predicted for part in alone)
    assert evaluate(model, own, ["location"]).asked == ("location",)
    described = evaluate(model, own, {"location": "a place on a map"})
    assert described.asked == ("location",)


@pytest.mark.parametrize("labels", [LABELS, {label: label for label in LABELS}], ids=["list", "mapping"])
@pytest.mark.parametrize("ignored", ["person", ["person"]])
def test_ignored_labels_are_neither_asked_for_nor_missed(ignored, labels, model, examples):
    rest = [label for label in LABELS if label != "person"]
    without = [Example(e.words, tuple(span for span in e.spans if span[2] != "person")) for e in examples]
    evaluation = evaluate(model, examples, labels, ignored=ignored)
    assert evaluation.results == evaluate(model, without, rest).results
    assert (evaluation.asked, evaluation.ignored) == (tuple(rest), ("person",))


def test_labels_that_leave_the_tokenizer_no_room_for_the_words_are_told(checkpoint):
    model = GLiNER.from_pretrained(checkpoint("bert-cut-first"))  # reads 96 subwords, labels included
    words = Example(("Ada",) * 40, ())
    assert evaluate(model, [words], ["person"]).cut == 0
    assert evaluate(model, [words], [f"label number {number}" for number in range(12)]).cut == 1


def test_candidates_found_by_the_kernels_score_the_same(model, examples, monkeypatch):
    results = []
    for executor in ("torch", "rust", "triton") if HAS_TRITON else ("torch", "rust"):
        monkeypatch.setenv(VARIABLE, executor)
        results.append(evaluate(model, examples[:2], LABELS, thresholds=THRESHOLDS).results)
        assert model.model.scorer.executor == executor
    assert all(other == results[0] for other in results[1:])
    assert results[0][0].micro.predicted


@pytest.mark.parametrize("executor", ["padded", "grouped"])
def test_packed_and_padded_texts_score_the_same(executor, model, examples, monkeypatch):
    expected = evaluate(model, examples, LABELS, thresholds=[0.3])
    monkeypatch.setenv(ATTENTION, executor)
    forward, packed = model.model.forward, []

    def noting(batch, *arguments):
        packed.append(batch.offsets is not None)
        return forward(batch, *arguments)

    monkeypatch.setattr(model.model, "forward", noting)
    assert evaluate(model, examples, LABELS, thresholds=[0.3]).to_dict() == expected.to_dict()
    assert set(packed) == {executor == "grouped"}


def test_where_memory_is_short_batches_are_made_smaller(model, examples, monkeypatch):
    expected = evaluate(model, examples, LABELS, thresholds=[0.3])
    forward, refused = model.model.forward, []

    def fail(batch, *others):
        if len(batch.rows) > 3:
            refused.append(len(batch.rows))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(batch, *others)

    monkeypatch.setattr(model.model, "forward", fail)
    monkeypatch.setattr(model, "token_budget", None)
    with pytest.warns(UserWarning, match="out of memory: batches are made smaller"):
        found = evaluate(model, examples, LABELS, thresholds=[0.3])
    assert refused
    assert found.results[0].micro == expected.results[0].micro
    assert expected.results[0].micro.f1 > 0
    monkeypatch.setattr(model.model, "forward", lambda *_: fail_always())
    with pytest.raises(MemoryError, match="a text of .* does not fit into memory"):
        evaluate(model, examples, LABELS, thresholds=[0.3])


def test_memory_that_was_short_for_a_moment_is_used_again(model, examples, monkeypatch):
    monkeypatch.setattr(out_of_memory, "PATIENCE", 4)
    monkeypatch.setattr(model, "_recovery", Recovery())
    monkeypatch.setattr(model, "token_budget", 10_000)
    forward, refused = model.model.forward, []

    def fail_once(batch, *others):
        if not refused:
            refused.append(len(batch.rows))
            fail_always()
        return forward(batch, *others)

    monkeypatch.setattr(model.model, "forward", fail_once)
    with pytest.warns(UserWarning, match="out of memory"):
        evaluate(model, examples[:2], LABELS)
    assert refused == [2]
    assert model.token_budget == 5_000  # a batch however small halves it, and no more
    evaluate(model, examples[:1], LABELS)
    assert model.token_budget == 5_000
    evaluate(model, examples[:1], LABELS)
    assert model.token_budget == 10_000


def fail_always():
    raise MemoryError("Unable to allocate 2.00 GiB for an array")


def test_one_label_is_no_list_of_letters(model, examples):
    assert evaluate(model, examples[:1], "person").asked == ("person",)


def test_no_labels_at_all_find_nothing(model):
    (result,) = evaluate(model, [Example(("Ada", "sang"), ())]).results
    assert result.micro == Score()


@pytest.mark.parametrize(("flat_ner", "multi_label"), MODES)
def test_gliner_s_own_evaluation_gives_the_same(model, examples, flat_ner, multi_label):
    reference = load_reference(model)
    records = [
        {"tokenized_text": list(example.words), "ner": [[start, end - 1, label] for start, end, label in example.spans]}
        for example in examples
    ]
    for threshold in (0.3, 0.6):
        text, f1 = model.evaluate(records, flat_ner, multi_label, threshold, entity_types=LABELS)
        with pytest.warns(UserWarning, match="truncated"):
            their_text, their_f1 = reference.evaluate(
                records, flat_ner=flat_ner, multi_label=multi_label, threshold=threshold, entity_types=LABELS
            )
        assert abs(f1 - their_f1) <= 0.001
        assert type(f1) is type(their_f1) is np.float64
        pattern = r"P: \d+\.\d\d%\tR: \d+\.\d\d%\tF1: \d+\.\d\d%\n"
        assert re.fullmatch(pattern, text)
        assert re.fullmatch(pattern, their_text)


@pytest.mark.gliner
@pytest.mark.filterwarnings("ignore:Sentence of length")
@pytest.mark.parametrize(("flat_ner", "multi_label"), MODES)
def test_gliner_scores_a_model_that_scores_the_spans_that_it_marks_alike(checkpoint, examples, flat_ner, multi_label):
    model = GLiNER.from_pretrained(checkpoint("token-spans"), max_length=24)
    reference = load_reference(model)
    records = [
        {"tokenized_text": list(example.words), "ner": [[start, end - 1, label] for start, end, label in example.spans]}
        for example in examples
    ]
    for threshold in (0.1, 0.3):
        options = {"flat_ner": flat_ner, "multi_label": multi_label, "threshold": threshold, "entity_types": LABELS}
        f1 = model.evaluate(records, **options)[1]
        assert abs(f1 - reference.evaluate(records, batch_size=1, **options)[1]) <= 0.001
        assert f1 > 0


@pytest.mark.gliner
def test_gliner_scores_the_built_in_model_alike():
    model = GLiNER.from_pretrained()
    reference = load_reference(model)
    records = [
        {"tokenized_text": row["text"].split(" "), "ner": row["ner"]}
        for row in read_jsonl("crossner.jsonl")
        if row["domain"] == "politics"
    ]
    options = {"flat_ner": True, "threshold": 0.5, "entity_types": CROSSNER_LABELS["politics"]}
    f1 = model.evaluate(records, **options)[1]
    assert abs(f1 - reference.evaluate(records, **options)[1]) <= 0.001
    assert 0.1 < f1 < 0.9


def test_nothing_predicted_is_told(model):
    with pytest.warns(UserWarning, match="no entity is annotated"):
        text, f1 = evaluate_like_gliner(
            model, [{"tokenized_text": ["Ada"], "ner": []}], threshold=0, entity_types=["x"]
        )
    assert (text, f1) == ("P: 0.00%\tR: 0.00%\tF1: 0.00%\n", 0)
    with pytest.warns(UserWarning, match="no entity is predicted"):
        evaluate_like_gliner(
            model, [{"tokenized_text": ["Ada"], "ner": [[0, 0, "x"]]}], threshold=1, entity_types=["x"]
        )
