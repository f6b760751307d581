"""Equal texts are computed once; many texts are predicted part by part."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from gliner_fast import GLiNER
from gliner_fast.comparing.verification import compare
from gliner_fast.predicting import predictor as predictor_module
from gliner_fast.predicting.request import Options, Request
from gliner_fast.stats import Stats
from tests.samples import CROSSNER, LABELS

TEXTS = [text[:100] for text in CROSSNER[:20]]
TEXT = "Ada Lovelace lived in London."
EXTRAS = {"return_class_probs": True, "return_vectors": True, "return_label_vectors": True}


@pytest.fixture
def model(forgetful_model):
    return forgetful_model


@pytest.fixture
def batches(model, monkeypatch):
    """The texts, and the subwords that are computed, padding included, of each batch that the network is given."""
    sizes = []
    forward = model.model.forward

    def counted(batch, *others):
        sizes.append((len(batch.lengths), batch.input_ids.numel()))
        return forward(batch, *others)

    monkeypatch.setattr(model.model, "forward", counted)
    return sizes


# --- equal texts ------------------------------------------------------------------------------------------------------


def test_equal_texts_are_computed_once(model, batches):
    first, other, *rest = model.inference([TEXT, "Marie Curie", TEXT, "", TEXT], LABELS)
    assert sum(texts for texts, _ in batches) == 2
    assert first == rest[0] == rest[2] == model.predict_entities(TEXT, LABELS)
    assert rest[1] == []
    assert other != first


@pytest.mark.parametrize("extra", EXTRAS)  # one at a time: none alone may be forgotten
def test_results_of_equal_texts_share_nothing(extra, model):
    one, other = model.inference([TEXT, TEXT], LABELS, **{extra: True})
    assert one
    before = [{name: repr(value) for name, value in entity.items()} for entity in other]
    for entity in one:
        entity["label"] = "changed"
        if extra == "return_class_probs":
            entity["class_probs"].clear()
        else:
            entity[extra.removeprefix("return_").removesuffix("s")][:] = 0
    one.clear()
    assert [{name: repr(value) for name, value in entity.items()} for entity in other] == before


def test_a_label_s_vector_is_its_own_beside_texts_with_other_labels(model):
    labels = [["person"], ["city", "organization", "person"], ["city", "person"]]
    texts, options = [TEXT, f"{TEXT} ", f" {TEXT}"], {"threshold": 0.05, "return_label_vectors": True}
    for text, own, found in zip(texts, labels, model.inference(texts, labels, **options), strict=True):
        alone = model.predict_entities(text, own, **options)
        assert [entity["label"] for entity in found] == [entity["label"] for entity in alone] != []
        for entity, other in zip(found, alone, strict=True):
            np.testing.assert_allclose(entity["label_vector"], other["label_vector"], atol=1e-4)


@pytest.mark.parametrize("default", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("flat_ner", [True, False])
def test_an_entity_s_score_is_its_label_s_among_all(flat_ner, default, model):
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)  # somebody else's business
    try:
        found = model.inference(TEXTS, LABELS, threshold=0.05, flat_ner=flat_ner, return_class_probs=True)
    finally:
        torch.set_default_dtype(before)
    entities = [entity for own in found for entity in own]
    assert len(entities) > 50
    best = [entity for entity in entities if entity["label"] in entity["class_probs"]]  # which has five alone
    assert len(best) > 50
    assert [entity["score"] for entity in best] == [entity["class_probs"][entity["label"]] for entity in best]


@pytest.mark.parametrize(
    "options",
    [
        {"labels": [["person"], ["city"]]},
        {"threshold": [0.1, 0.9]},
        {"flat_ner": [True, False]},
        {"multi_label": [True, False]},
        {"input_spans": [[{"start": 0, "end": 12}], [{"start": 22, "end": 28}]]},
    ],
)
def test_a_text_of_which_two_things_are_asked_is_computed_twice(options, model, batches):
    arguments = {"labels": LABELS} | options
    together = model.inference([TEXT, TEXT], **arguments)
    assert sum(texts for texts, _ in batches) == 2
    per_text = [{name: values[at : at + 1] for name, values in options.items()} for at in (0, 1)]
    alone = [model.inference([TEXT], **({"labels": LABELS} | own))[0] for own in per_text]
    assert compare(together, alone, lambda _: []).ok


def test_texts_with_labels_of_their_own_may_have_a_threshold_for_each_label(model):
    thresholds = {"person": 0.2, "city": 0.2, "location": 1.0}
    own = [["person", "city"], ["location", "person"]]
    together = model.inference([TEXT, TEXT], own, threshold=thresholds)
    alone = [model.predict_entities(TEXT, labels, threshold=thresholds) for labels in own]
    assert compare(together, alone, lambda _: []).ok
    assert [[entity["label"] for entity in found] for found in together] == [["person", "city"], ["person"]]


def test_of_equal_texts_that_were_cut_off_each_is_told(model):
    long = "word " * 400
    prepared = model.predictor().prepare(Request.read([long, TEXT, long], LABELS, Options()))
    assert prepared.warnings == ["Sentence of length 400 has been truncated to 384"] * 2


# --- stats ------------------------------------------------------------------------------------------------------------


def test_stats_tell_what_was_done(model, batches):
    stats = Stats()
    texts = [TEXT, "", None, TEXT, "Marie " * 500, "Paris"]
    predictor = model.predictor()
    request = Request.read(texts, [LABELS] * 5 + [[]], Options(on_long="window"))
    found = predictor.predict(predictor.prepare(request), stats)
    assert stats.texts == 6
    assert stats.computed_texts == 2  # one comes twice, two have no words, one has no labels
    assert stats.windows == 1 + 2
    assert stats.words == 6 + 384 + (500 - 320)
    assert stats.padded_subwords == sum(subwords for _, subwords in batches)
    assert stats.words < stats.subwords <= stats.padded_subwords
    assert stats.padding_share == 1 - stats.subwords / stats.padded_subwords
    assert stats.entities == sum(map(len, found)) >= 4
    assert min(stats.prepare_seconds, stats.encode_seconds, stats.score_seconds, stats.decode_seconds) > 0
    assert stats.encode_seconds > stats.decode_seconds
    assert not model.model.encoder._forward_hooks
    assert not model.model.encoder._forward_pre_hooks


def test_padding_is_computed_and_is_no_subwords(model, monkeypatch):
    monkeypatch.setattr(type(model.model), "reads_packed", property(lambda _: False))
    stats, predictor = Stats(), model.predictor()
    prepared = predictor.prepare(Request.read([TEXT, "Paris"], LABELS, Options()))
    predictor.predict(prepared, stats)
    assert stats.subwords == prepared.lengths.sum() < stats.padded_subwords == 2 * prepared.lengths.max()


def test_stats_add_up():
    some, more = Stats(texts=3, words=5, encode_seconds=0.5), Stats(texts=1, entities=2, encode_seconds=0.25)
    whole = some + more
    assert whole == Stats(texts=4, words=5, entities=2, encode_seconds=0.75)
    assert whole - more == some
    assert Stats(**whole.to_dict()) == whole
    taken = some.copy()
    some += more
    assert (some, taken) == (whole, Stats(texts=3, words=5, encode_seconds=0.5))
    assert Stats().padding_share == 0


def test_a_compiled_network_is_left_as_it_is(model, monkeypatch):
    hooks = []

    def compiled(*arguments):  # what `torch.compile` puts there: hooks that come and go would make it compile again
        hooks.extend(model.model.encoder._forward_hooks)
        return model.model.forward(*arguments)

    monkeypatch.setattr(model.model, "_compiled_call_impl", compiled)
    stats = Stats()
    predictor = model.predictor()
    found = predictor.predict(predictor.prepare(Request.read([TEXT], LABELS, Options())), stats)
    assert found[0]
    assert hooks == []
    assert stats.encode_seconds == 0
    assert stats.score_seconds > 0


def test_threads_count_their_own_work(model, monkeypatch):
    predictor = model.predictor()
    prepared = predictor.prepare(Request.read(TEXTS, LABELS, Options()))
    idle = Stats()
    started, done = threading.Event(), threading.Event()
    forward = model.model.encoder.forward

    def waiting(*arguments, **options):  # the other thread works while this one is in the encoder
        if threading.current_thread() is not threading.main_thread() and not started.is_set():
            started.set()
            assert done.wait(timeout=60)
        return forward(*arguments, **options)

    monkeypatch.setattr(model.model.encoder, "forward", waiting)
    stats = Stats()
    thread = threading.Thread(target=predictor.predict, args=(prepared, stats))
    thread.start()
    assert started.wait(timeout=60)
    one = predictor.prepare(Request.read([TEXT], LABELS, Options()))
    predictor.predict(one, idle)
    seconds = idle.encode_seconds
    done.set()
    thread.join()
    assert idle.encode_seconds == seconds
    assert stats.encode_seconds > seconds > 0


# --- endless words ----------------------------------------------------------------------------------------------------


def test_a_word_is_endless_beyond_so_many_characters_and_in_one_piece(checkpoint, monkeypatch):
    monkeypatch.setattr(predictor_module, "LONGEST_WORD", 50)
    predictor, options = GLiNER.from_pretrained(checkpoint("deberta")).predictor(), Options()
    found = [predictor.has_endless_word(f"Ada, {'x' * length},", options) for length in (49, 50, 51)]
    assert found == [False, False, True]
    in_one = replace(predictor, splitter=lambda text: [(text, 0, len(text))])
    found = [in_one.has_endless_word(f"{'x' * length} {'y' * 40}", options) for length in (50, 51)]
    assert found == [False, True]  # tokenizers part it at blanks


# --- batches and parts ------------------------------------------------------------------------------------------------


def test_a_batch_has_at_most_as_many_texts_as_asked_for(model, batches):
    model.inference(TEXTS[:5], LABELS, batch_size=2)
    list(model.stream(TEXTS[:5], LABELS, batch_size=2))
    assert [texts for texts, _ in batches] == [2, 2, 1] * 2


@pytest.mark.parametrize(
    ("halvings", "sizes"), [(0, [8, 8, 8, 6]), (2, [2, 4, 8, 8, 8]), (9, [1, 1, 1, 1, 1, 1, 1, 2, 4, 8, 8, 1])]
)
def test_parts_grow_to_their_full_size(halvings, sizes):
    request = Request.read(["a"] * 30, LABELS, Options(), first_text=100)
    parts = list(request.parts(8, 1000, halvings=halvings))
    assert [len(part.texts) for part in parts] == sizes
    assert [part.first_text for part in parts] == [100 + sum(sizes[:number]) for number in range(len(sizes))]


def test_a_part_has_its_own_texts_label_sets_alone():
    labels = [["b"], ["a", "c"], ["b"], ["d"], ["a", "c"]]
    parts = list(Request.read(["x"] * 5, labels, Options()).parts(2, 1000))
    named = [[part.labels.sets[number].names for number in part.labels.set_of_text.tolist()] for part in parts]
    assert named == [[("b",), ("a", "c")], [("b",), ("d",)], [("a", "c")]]
    assert [len(part.labels.sets) for part in parts] == [2, 2, 1]


def test_parts_grow_by_characters_too_and_a_longer_text_has_its_own():
    texts = ["a" * 10] * 3 + ["b" * 500] + ["a" * 10] * 12
    parts = list(Request.read(texts, LABELS, Options()).parts(100, 80, halvings=2))
    assert [text for part in parts for text in part.texts] == texts
    assert [len(part.texts) for part in parts] == [2, 1, 1, 8, 4]
