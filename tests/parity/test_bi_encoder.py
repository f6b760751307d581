"""Models whose labels have an encoder of their own give gliner's answers, and what it offers for them alone."""

import copy
import json
import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gliner_fast import GLiNER
from gliner_fast.comparing.reference_candidates import find_reference_candidates
from gliner_fast.comparing.verification import compare
from gliner_fast.errors import CheckpointError
from gliner_fast.evaluation import evaluate_like_gliner
from gliner_fast.label_encoder import LabelEncoder, LabelTexts
from gliner_fast.labels import LabelSet
from gliner_fast.predicting.request import Options, Request
from tests.checkpoint_recipes import LABEL_SUBWORDS
from tests.installed import TRANSFORMERS
from tests.parity.pairs import Pair, spans
from tests.parity.test_labels import PER_TEXT, SHARED
from tests.samples import BOOKS, CROSSNER, LABELS

TEXTS = CROSSNER[:6]
KINDS = ["bi", "bi-same-width", "bi-bert", "bi-modernbert", "bi-token", "bi-token-spans", "bi-fused", "bi-token-fused"]
# The reference fails on no labels at all (Q10), and its tokenizer takes strings alone.
UNREADABLE = {"none at all", "no descriptions", "not strings"}


@pytest.mark.gliner
@pytest.mark.parametrize("labels", [SHARED[name] for name in SHARED if name not in UNREADABLE])
def test_labels_shared_by_all_texts(labels, pair):
    pair("bi").check(TEXTS, labels, threshold=0.2, flat_ner=False, multi_label=True)
    pair("bi").check(TEXTS[:2], labels, threshold=0.2, return_class_probs=True)


@pytest.mark.gliner
@pytest.mark.parametrize("kind", ["bi", "bi-token", "bi-fused"])
@pytest.mark.parametrize("labels", list(PER_TEXT.values()), ids=list(PER_TEXT))
def test_labels_of_each_text_s_own(labels, kind, pair):
    pair(kind).check(TEXTS, labels, threshold=0.2, batch_size=4)


@pytest.mark.gliner
@pytest.mark.parametrize("labels", [[], {}])
def test_without_labels_nothing_is_found(labels, pair):
    assert pair("bi").ours.inference(TEXTS, labels) == [[] for _ in TEXTS]


@pytest.mark.gliner
def test_labels_that_are_no_strings_are_read_as_such(pair):
    ours = pair("bi").ours
    found = ours.inference(TEXTS, [1, 2.5, None], threshold=0.1)
    assert {entity["label"] for own in found for entity in own} <= {1, 2.5, None}
    assert spans(found) == {
        (*span[:3], {"1": 1, "2.5": 2.5, "None": None}[span[3]])
        for span in spans(ours.inference(TEXTS, ["1", "2.5", "None"], threshold=0.1))
    }


@pytest.mark.gliner
@pytest.mark.parametrize("kind", KINDS)
def test_label_vectors_are_the_reference_s(kind, pair):
    if kind == "bi-modernbert" and TRANSFORMERS < (5,):
        pytest.skip("gliner gives ModernBERT of transformers 4 what it does not take")
    both = pair(kind)
    labels = [*LABELS, "", "a " + "very " * 60 + "long label", LABELS[0], "人物"]
    ours, theirs = both.ours.encode_labels(labels), both.reference.encode_labels(labels)
    assert ours.dtype == theirs.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    assert not ours.requires_grad
    for given, count in (("person", 1), ([], 0)):
        assert both.ours.encode_labels(given).shape == (count, both.ours.config.hidden_size)


@pytest.mark.gliner
@pytest.mark.parametrize("default", [torch.bfloat16, torch.float64])
def test_label_vectors_are_the_same_whatever_the_default_dtype(default, checkpoint):
    ours, fresh = (GLiNER.from_pretrained(checkpoint("bi")) for _ in range(2))
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)  # somebody else's business
    try:
        vectors = ours.encode_labels(LABELS)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(vectors, fresh.encode_labels(LABELS))


@pytest.mark.gliner
def test_a_long_label_is_cut_before_its_last_special_subword(pair):
    model = pair("bi").ours
    tokenizer = model.data_processor.labels_tokenizer
    for words in (1, LABEL_SUBWORDS, 3 * LABEL_SUBWORDS):
        label = "word " * words
        (ids,) = model.predictor().batcher.encode_labels([_label_set(label)]).ids
        assert ids.tolist() == tokenizer(label, truncation=True)["input_ids"]
        assert len(ids) <= LABEL_SUBWORDS


def _label_set(*labels):
    from gliner_fast.labels import LabelSet

    return LabelSet.read(labels)


@pytest.mark.gliner
@pytest.mark.parametrize("kind", ["bi", "bi-token", "bi-fused"])
def test_label_vectors_made_before_give_the_same_entities(kind, pair):
    both = pair(kind)
    vectors = both.ours.encode_labels(LABELS)
    found = both.ours.batch_predict_with_embeds(TEXTS, vectors, LABELS, threshold=0.3, flat_ner=False)
    report = compare(
        found,
        both.reference.batch_predict_with_embeds(TEXTS, vectors, LABELS, threshold=0.3, flat_ner=False),
        lambda index: find_reference_candidates(both.reference, TEXTS[index], LABELS, floor=0.3 - 1e-4),
        threshold=0.3,
        flat_ner=False,
    )
    assert report.ok, str(report)
    assert report.entities > 10
    assert spans([both.ours.predict_with_embeds(TEXTS[0], vectors, LABELS, False, 0.3)]) == spans(found[:1])
    others = both.ours.batch_predict_with_embeds(TEXTS, vectors.flip(0), LABELS, threshold=0.3, flat_ner=False)
    assert spans(others) != spans(found)  # these vectors are read, and not the labels


@pytest.mark.gliner
def test_label_vectors_that_do_not_fit_are_refused(pair):
    ours = pair("bi").ours
    vectors = ours.encode_labels(LABELS)
    with pytest.raises(ValueError, match="labels_embeds has 6 rows for 2 labels"):
        ours.batch_predict_with_embeds(TEXTS, vectors, LABELS[:2])
    with pytest.raises(TypeError, match="labels_embeds is a list: expected a tensor"):
        ours.batch_predict_with_embeds(TEXTS, vectors.tolist(), LABELS)
    with pytest.raises(TypeError, match=r"labels_embeds is a tensor of the shape \(1, 6, 48\)"):
        ours.batch_predict_with_embeds(TEXTS, vectors[None], LABELS)
    with pytest.raises(ValueError, match="labels_embeds is 7 wide: expected 48"):
        ours.batch_predict_with_embeds(TEXTS, vectors[:, :7], LABELS)
    with pytest.raises(ValueError, match="one list of labels for all texts"):
        ours.batch_predict_with_embeds(TEXTS[:2], vectors[:1], [["person"], ["place"]])
    assert ours.encode_labels([]).shape == (0, 48)


@pytest.mark.gliner
def test_each_label_has_the_vector_that_was_given_for_it(pair):
    both = pair("bi")
    options = {"threshold": 0.2, "flat_ner": False, "multi_label": True}
    repeated = ["person", "country", "person"]
    vectors = both.ours.encode_labels(repeated)
    found = spans(both.ours.batch_predict_with_embeds(TEXTS, vectors, repeated, **options))
    assert found == spans(both.reference.inference(TEXTS, ["person", "country"], **options))
    alike = both.ours.encode_labels(LABELS[:2])  # 1 and "1" are two labels, whatever is read of them
    found = both.ours.batch_predict_with_embeds(TEXTS, alike, [1, "1"], **options)
    wanted = both.ours.inference(TEXTS, LABELS[:2], **options)
    assert [[{**e, "label": LABELS[0] if e["label"] == 1 else LABELS[1]} for e in own] for own in found] == wanted
    described = {"PER": "a human being", "LOC": "a place on a map"}
    found = both.ours.batch_predict_with_embeds(TEXTS, both.ours.encode_labels(described), described, **options)
    assert found == both.ours.inference(TEXTS, described, **options)


@pytest.mark.gliner
def test_other_models_have_no_label_vectors(pair):
    ours = pair("deberta").ours
    with pytest.raises(AttributeError, match="no bi-encoder"):
        ours.encode_labels(LABELS)
    with pytest.raises(ValueError, match="no bi-encoder"):
        ours.inference(TEXTS, LABELS, labels_embeds=torch.zeros(6, 48))


@pytest.mark.gliner
def test_labels_are_encoded_once(checkpoint, monkeypatch):
    ours = GLiNER.from_pretrained(checkpoint("bi"))
    encoded = []
    forward = LabelEncoder.forward

    def counted(self, ids, *others):
        encoded.append(len(ids))
        return forward(self, ids, *others)

    monkeypatch.setattr(LabelEncoder, "forward", counted)  # not the module's own: nothing is kept of a changed one
    ours.inference(CROSSNER[:12], [[label, "place"] for label in (*LABELS, *LABELS)], batch_size=2)
    assert encoded == [len({*LABELS, "place"})]
    encoded.clear()
    for text in TEXTS:
        ours.predict_entities(text, LABELS)
    assert encoded == [len(LABELS)]  # one call after another, too
    ours.predict_entities(TEXTS[0], LABELS[::-1])
    assert encoded == [len(LABELS)] * 2


@pytest.mark.gliner
def test_on_cuda_vectors_are_there_before_another_thread_can_find_them(checkpoint, monkeypatch):
    class OnCard(torch.nn.Parameter):
        device = torch.device("cuda")

    encoder, weight, found_at_waits = GLiNER.from_pretrained(checkpoint("bi")).model.label_encoder, OnCard(), []
    stream = SimpleNamespace(synchronize=lambda: found_at_waits.append(encoder._kept))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: {weight.device: stream}[device])
    monkeypatch.setattr(LabelEncoder, "parameters", lambda _: iter([weight]))
    monkeypatch.setattr(LabelEncoder, "forward", lambda *_: torch.zeros(1, 48))
    with torch.inference_mode():
        vectors = encoder.vectors_of(labels := LabelTexts([np.zeros(3, np.int64)], 0))
        assert encoder.vectors_of(labels) is vectors is encoder._kept.vectors
    assert found_at_waits == [None]


@pytest.mark.gliner
def test_given_vectors_are_moved_to_the_model_once_a_call(checkpoint, monkeypatch):
    ours, requests = GLiNER.from_pretrained(checkpoint("bi")), []
    vectors = ours.encode_labels(LABELS)
    monkeypatch.setattr(GLiNER, "device", torch.device("meta"))
    monkeypatch.setattr(GLiNER, "answer", lambda _, request: requests.append(request))
    ours.batch_predict_with_embeds(TEXTS, vectors, LABELS)
    assert [request.options.label_vectors.device.type for request in requests] == ["meta"]


@pytest.mark.gliner
@pytest.mark.parametrize("change", ["in place", "behind torch's back", "another weight", "another dtype"])
def test_labels_are_encoded_again_once_weights_have_changed(change, checkpoint):
    ours = GLiNER.from_pretrained(checkpoint("bi"))
    before = ours.encode_labels(LABELS)
    assert torch.equal(ours.encode_labels(LABELS), before)
    weight = ours.model.label_encoder.projection.weight
    if change == "in place":
        with torch.no_grad():
            weight.mul_(2)
    elif change == "behind torch's back":
        weight.data.mul_(2)
    elif change == "another weight":
        ours.model.label_encoder.projection.weight = torch.nn.Parameter(weight.detach() * 2)
    else:
        ours.to(torch.bfloat16)
    after = ours.encode_labels(LABELS)
    assert after.dtype == ours.dtype
    assert not torch.equal(after.float(), before)


@pytest.mark.gliner
def test_labels_are_encoded_again_in_whole_numbers(checkpoint):
    ours, fresh = (GLiNER.from_pretrained(checkpoint("bi")) for _ in range(2))
    before = ours.encode_labels(LABELS)
    ours.quantize("int16")
    fresh.quantize("int16")
    assert torch.equal(ours.encode_labels(LABELS), fresh.encode_labels(LABELS))
    assert not torch.equal(ours.encode_labels(LABELS), before)


@pytest.mark.gliner
def test_labels_are_encoded_again_in_the_dtype_of_autocast(checkpoint):
    ours, fresh = (GLiNER.from_pretrained(checkpoint("bi")) for _ in range(2))
    before = ours.encode_labels(LABELS)
    with torch.autocast("cpu", torch.bfloat16):
        inside = ours.encode_labels(LABELS)
        assert torch.equal(inside, fresh.encode_labels(LABELS))
    assert not torch.equal(inside.float(), before)
    assert torch.equal(ours.encode_labels(LABELS), before)


@pytest.mark.gliner
def test_labels_are_encoded_again_where_some_layers_have_left_whole_numbers(checkpoint):
    ours = GLiNER.from_pretrained(checkpoint("bi"), dtype="int16")
    before = ours.encode_labels(LABELS)
    ours.model.label_encoder.projection.train().eval()
    assert ours.precision == "partly int16"
    assert not torch.equal(ours.encode_labels(LABELS), before)
    assert torch.equal(copy.deepcopy(ours).encode_labels(LABELS), ours.encode_labels(LABELS))


@pytest.mark.gliner
def test_labels_are_encoded_each_time_by_what_may_change_without_a_weight(checkpoint):
    class Adapted(torch.nn.Linear):
        scale = 1.0

        def forward(self, vectors):
            return super().forward(vectors) * self.scale

    ours = GLiNER.from_pretrained(checkpoint("bi"))
    projection = ours.model.label_encoder.projection
    projection.__class__ = Adapted
    before = ours.encode_labels(LABELS)
    projection.scale = 2.0
    torch.testing.assert_close(ours.encode_labels(LABELS), 2 * before)


@pytest.mark.gliner
def test_label_vectors_that_were_made_in_training_are_not_kept(checkpoint):
    ours = GLiNER.from_pretrained(checkpoint("bi"))
    expected, encoder = ours.encode_labels(LABELS), ours.model.label_encoder
    labels = ours.predictor().batcher.encode_labels([LabelSet.read(LABELS)])
    with torch.no_grad():
        made = encoder.train().vectors_of(labels)
        assert not torch.equal(made, expected)  # for dropout
        assert torch.equal(encoder.eval().vectors_of(labels), expected)


@pytest.mark.gliner
def test_a_batch_that_was_scored_before_still_gives_its_labels_gradients(checkpoint):
    ours = GLiNER.from_pretrained(checkpoint("bi"))
    predictor = ours.predictor()
    prepared = predictor.prepare(Request.read(TEXTS[:2], LABELS, Options()))
    batch = predictor.lay_out(prepared, prepared.scorable).batch
    with torch.no_grad():
        before = ours(batch).logits
    ours(batch).logits[torch.isfinite(before)].sum().backward()
    assert any(weight.grad is not None for weight in ours.model.label_encoder.parameters())
    with torch.no_grad():
        ours.model.label_encoder.projection.weight.mul_(2)
        assert not torch.equal(ours(batch).logits, before)


@pytest.mark.gliner
@pytest.mark.parametrize("kind", ["bi", "bi-same-width"])
def test_a_compiled_model_answers_alike(kind, checkpoint):
    ours = GLiNER.from_pretrained(checkpoint(kind))
    wanted = spans(ours.inference(TEXTS[:2], LABELS))
    with pytest.warns(UserWarning, match="slower on a CPU"):
        ours.compile(backend="eager")
    assert spans(ours.inference(TEXTS[:2], LABELS)) == wanted
    assert ours.inference(TEXTS[:2], LABELS[:2]) is not None  # other labels


@pytest.mark.gliner
def test_labels_get_the_special_subwords_of_their_tokenizer_s_own(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint("bi"), tmp_path / "model")
    file = folder / "labels_tokenizer" / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(settings | {"bos_token": "[CLS]", "eos_token": "[PAD]"}), encoding="utf-8")
    both = Pair.load(folder)
    torch.testing.assert_close(both.ours.encode_labels(LABELS), both.reference.encode_labels(LABELS), rtol=0, atol=1e-4)


@pytest.mark.gliner
def test_windows_streams_copies_and_pickles_answer_alike(pair):
    ours = pair("bi").ours
    long = " ".join(BOOKS)[:6000]
    found = ours.inference([long, TEXTS[0]], LABELS, on_long="window", threshold=0.4)
    assert max(entity["end"] for entity in found[0]) > 5500
    assert list(ours.stream([long, TEXTS[0]], LABELS, threshold=0.4)) == found
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert other.inference([long, TEXTS[0]], LABELS, on_long="window", threshold=0.4) == found


@pytest.mark.gliner
def test_whole_numbers_answer_nearly_alike(pair):
    ours = copy.deepcopy(pair("bi").ours)
    exact = spans(ours.inference(CROSSNER, LABELS))
    ours.quantize("int16")
    found = spans(ours.inference(CROSSNER, LABELS))
    assert ours.precision == "int16"
    assert len(found & exact) >= 0.9 * len(found | exact)


@pytest.mark.gliner
def test_evaluation_gives_the_reference_s_scores(pair):
    both = pair("bi")
    words = [text.split() for text in CROSSNER[:20]]
    rows = [{"tokenized_text": own, "ner": [[0, 1, "person"], [2, 2, "place"]]} for own in words]
    options = {"flat_ner": True, "multi_label": False, "threshold": 0.3}
    _, ours = evaluate_like_gliner(both.ours, rows, entity_types=["person", "place"], **options)
    _, theirs = both.reference.evaluate(rows, entity_types=["person", "place"], **options)
    assert abs(ours - theirs) <= 0.001


@pytest.mark.gliner
def test_a_folder_without_the_labels_tokenizer_says_so(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint("bi"), tmp_path / "model")
    shutil.rmtree(folder / "labels_tokenizer")
    with pytest.raises(CheckpointError, match="tokenizer of the bi-encoder's labels cannot be had from random/bert"):
        GLiNER.from_pretrained(folder)
