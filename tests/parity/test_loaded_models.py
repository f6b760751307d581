"""What scripts do to a loaded model has the effect that it has in gliner."""

import copy
import re
import warnings

import pytest
import torch
from tokenizers import normalizers

from gliner_fast import GLiNER
from tests.installed import TRANSFORMERS
from tests.parity.pairs import Pair, spans
from tests.samples import CROSSNER, LABELS

pytestmark = pytest.mark.gliner

TEXTS = CROSSNER[::20]
BOTH = ("ours", "reference")


@pytest.fixture
def load(checkpoint):
    """Loads a kind of checkpoint twice, for one test alone."""
    return lambda kind, **options: Pair.load(checkpoint(kind), **options)


# --- the word splitter ------------------------------------------------------------------------------------------------


def _by_blanks(text):
    return [(match.group(), *match.span()) for match in re.finditer(r"\S+", text)]


@pytest.mark.parametrize("kind", ["deberta", "token", "bi"])
def test_a_splitter_may_be_put_into_the_splitter(kind, load):
    both = load(kind)
    plain = both.check(TEXTS, LABELS, threshold=0.3)
    own = [getattr(both, name).data_processor.words_splitter.splitter for name in BOTH]
    for name in BOTH:
        getattr(both, name).data_processor.words_splitter.splitter = _by_blanks
    found = both.check(TEXTS, LABELS, threshold=0.3)
    assert spans(found) != spans(plain)
    for name, splitter in zip(BOTH, own, strict=True):  # one that calls the model's own
        getattr(both, name).data_processor.words_splitter.splitter = lambda text, own=splitter: list(own(text))[::2]
    assert spans(both.check(TEXTS, LABELS, threshold=0.3)) != spans(plain)
    for name, splitter in zip(BOTH, own, strict=True):
        getattr(both, name).data_processor.words_splitter.splitter = splitter
    assert spans(both.check(TEXTS, LABELS, threshold=0.3)) == spans(plain)


def test_words_may_be_asked_for(load):
    both = load("deberta")
    ours, theirs = (getattr(both, name).data_processor for name in BOTH)
    for text in TEXTS:
        assert list(ours.words_splitter(text)) == list(theirs.words_splitter(text))
        assert list(ours.words_splitter.splitter(text)) == list(theirs.words_splitter.splitter(text))
    assert both.ours.prepare_inputs(TEXTS) == both.reference.prepare_inputs(TEXTS)


# --- torch ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["deberta", "bert", "modernbert", "mt5", "token", "bi", "bi-modernbert", "relex"])
def test_the_default_device_is_not_the_models(kind, checkpoint):
    if kind.endswith("modernbert") and TRANSFORMERS < (5,):
        pytest.skip(
            "transformers 4 makes ModernBERT's positions on the default device, and copies what it made of them"
        )
    ours, fresh = (GLiNER.from_pretrained(checkpoint(kind)) for _ in range(2))
    with torch.device("meta"):  # scripts have "cuda" there, beside a model on either
        found = ours.inference(TEXTS, LABELS, threshold=0.3)
    assert found == fresh.inference(TEXTS, LABELS, threshold=0.3)


# --- the tokenizers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["deberta", "bert", "token", "bi", "modernbert", "mt5"])
def test_the_tokenizer_s_limit_may_be_assigned(kind, load):
    both = load(kind)
    whole = both.check(TEXTS, LABELS, threshold=0.3)
    before = both.ours.data_processor.transformer_tokenizer.model_max_length
    batcher = both.ours.data_processor.batcher
    for limit in (40, 60):
        for name in BOTH:
            getattr(both, name).data_processor.transformer_tokenizer.model_max_length = limit
        assert spans(both.check(TEXTS, LABELS, threshold=0.3)) != spans(whole)
    for name in BOTH:
        getattr(both, name).data_processor.transformer_tokenizer.model_max_length = before
    assert spans(both.check(TEXTS, LABELS, threshold=0.3)) == spans(whole)
    assert both.ours.data_processor.batcher is not batcher
    assert both.ours.data_processor.batcher is both.ours.data_processor.batcher  # not made anew by each call


def test_a_limit_of_the_checkpoint_may_be_raised(load):
    both = load("bert-cut-first")  # 96 rows of positions
    for name in BOTH:
        getattr(both, name).data_processor.transformer_tokenizer.model_max_length = 30
    cut = both.check(TEXTS, LABELS, threshold=0.3)
    for name in BOTH:
        getattr(both, name).data_processor.transformer_tokenizer.model_max_length = 96
    assert spans(both.check(TEXTS, LABELS, threshold=0.3)) != spans(cut)
    long = [" ".join(TEXTS)]
    both.check(long, LABELS, threshold=0.3)
    found = both.ours.inference(long, LABELS, threshold=0.3)
    for name in BOTH:
        getattr(both, name).data_processor.transformer_tokenizer.model_max_length = 10**30
    with pytest.raises((IndexError, RuntimeError)):  # there are no more positions
        both.reference.inference(long, LABELS)
    assert both.ours.inference(long, LABELS, threshold=0.3) == found


def _cut(tokenizer):
    tokenizer.model_max_length = 50


def _in_lower_case(tokenizer):
    inner = tokenizer.backend_tokenizer
    inner.normalizer = normalizers.Sequence([normalizers.Lowercase(), inner.normalizer])


@pytest.mark.parametrize("edit", [_cut, _in_lower_case])
@pytest.mark.parametrize("kind", ["deberta", "bi"])
def test_the_tokenizer_may_be_replaced(kind, edit, load):
    both = load(kind)
    plain = both.check(TEXTS, LABELS, threshold=0.3)
    for name in BOTH:
        processor = getattr(both, name).data_processor
        edited = copy.deepcopy(processor.transformer_tokenizer)
        edit(edited)
        processor.transformer_tokenizer = edited
        assert processor.transformer_tokenizer is edited
    assert spans(both.check(TEXTS, LABELS, threshold=0.3)) != spans(plain)
    other = copy.deepcopy(both.ours)
    assert other.inference(TEXTS, LABELS) == both.ours.inference(TEXTS, LABELS)


@pytest.mark.parametrize("edit", [_cut, _in_lower_case])
def test_the_tokenizer_of_labels_may_be_replaced(edit, load):
    both = load("bi")
    for name in BOTH:
        processor = getattr(both, name).data_processor
        edited = copy.deepcopy(processor.labels_tokenizer)
        edit(edited)
        processor.labels_tokenizer = edited
    labels = ["Person", "Place", "a " + "Very " * 60 + "long label"]
    both.check(TEXTS, labels, threshold=0.3)
    torch.testing.assert_close(both.ours.encode_labels(labels), both.reference.encode_labels(labels), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["bi", "bi-token", "bi-modernbert"])
def test_the_limit_of_labels_may_be_assigned(kind, load):
    if kind == "bi-modernbert" and TRANSFORMERS < (5,):
        pytest.skip("gliner gives ModernBERT of transformers 4 what it does not take")
    both = load(kind)
    labels = ["a very long label of many words", "person"]
    vectors = []
    for limit in (512, 4, 6, 512):
        for name in BOTH:
            getattr(both, name).data_processor.labels_tokenizer.model_max_length = limit
        ours, theirs = (getattr(both, name).encode_labels(labels) for name in BOTH)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
        both.check(TEXTS[:3], labels, threshold=0.2)
        vectors.append(ours)
    assert not torch.equal(vectors[0], vectors[1])
    assert torch.equal(vectors[0], vectors[3])


# --- classes of one's own, and wrapped methods ------------------------------------------------------------------------


def _wrapped(model, seen):
    inference = model.inference

    def counted(texts, labels, **options):
        seen.append(options)
        return inference(texts, labels, **options)

    model.inference = counted


@pytest.mark.parametrize("kind", ["deberta", "bi"])
def test_the_methods_call_inference_as_gliner_s_do(kind, load):
    both = load(kind)
    called = {}
    for name in BOTH:
        model, seen = getattr(both, name), called.setdefault(name, [])
        _wrapped(model, seen)
        model.predict_entities(TEXTS[0], LABELS, threshold=0.3, batch_size=2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            model.batch_predict_entities(TEXTS[:2], LABELS, multi_label=True)
        if kind == "bi":
            vectors = model.encode_labels(LABELS)
            model.predict_with_embeds(TEXTS[0], vectors, LABELS, threshold=0.3, batch_size=8)
            model.batch_predict_with_embeds(TEXTS[:2], vectors, LABELS, batch_size=8)
    for options in (*called["ours"], *called["reference"]):
        options.pop("labels_embeds", None)
    assert called["ours"] == called["reference"]


def test_a_class_with_an_inference_of_its_own_is_asked(checkpoint):
    class Upper(GLiNER):
        def inference(self, texts, labels, **options):
            return super().inference([text.upper() for text in texts], labels, **options)

    model = Upper.from_pretrained(checkpoint("deberta"))
    plain = GLiNER.from_pretrained(checkpoint("deberta"))
    wanted = plain.predict_entities(TEXTS[0].upper(), LABELS, threshold=0.3)
    assert model.predict_entities(TEXTS[0], LABELS, threshold=0.3) == wanted != []


# --- what services ask a model for ------------------------------------------------------------------------------------

_METHODS = ("encode_labels", "predict_with_embeds", "batch_predict_with_embeds")


@pytest.mark.parametrize("kind", ["deberta", "token", "relex", "bi", "bi-token"])
def test_only_bi_encoders_have_what_is_theirs(kind, load):
    both = load(kind)
    for name in _METHODS:
        assert hasattr(both.ours, name) == hasattr(both.reference, name) == kind.startswith("bi")
    ours, theirs = both.ours.data_processor, both.reference.data_processor
    assert hasattr(ours, "labels_tokenizer") == hasattr(theirs, "labels_tokenizer") == kind.startswith("bi")


@pytest.mark.parametrize("kind", ["deberta", "bi"])
def test_a_model_tells_of_itself_as_gliner_s_does(kind, load):
    both = load(kind)
    for name in ("runtime", "runtime_model", "is_runtime_model", "onnx_model"):
        assert getattr(both.ours, name) == getattr(both.reference, name)
    ours, theirs = both.ours.data_processor, both.reference.data_processor
    for name in ("ent_token", "sep_token"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.config is both.ours.config
    assert theirs.config is both.reference.config


def test_none_is_the_cpu(load):
    both = load("deberta", map_location=None)
    assert both.ours.device == both.reference.device == torch.device("cpu")
    both.check(TEXTS[:2], LABELS)


def test_packing_is_accepted(load):
    import gliner

    import gliner_fast

    both = load("deberta")
    plain = both.check(TEXTS, LABELS, threshold=0.3)
    for name, package in (("ours", gliner_fast), ("reference", gliner)):
        settings = package.InferencePackingConfig(max_length=512)
        assert vars(settings) == {"max_length": 512, "sep_token_id": None, "streams_per_batch": 1}
        getattr(both, name).configure_inference_packing(settings)
    assert spans(both.check(TEXTS, LABELS, threshold=0.3)) == spans(plain)
    for name in BOTH:
        getattr(both, name).configure_inference_packing(None)
    assert spans(both.check(TEXTS, LABELS, threshold=0.3, packing_config=None)) == spans(plain)


def test_what_is_for_the_hub_is_accepted_where_nothing_is_sent(load, tmp_path):
    both = load("deberta")
    both.reference.save_pretrained(tmp_path / "theirs", private=True, max_shard_size="5GB")
    with pytest.warns(UserWarning, match="max_shard_size, private: not an argument of save_pretrained, ignored"):
        both.ours.save_pretrained(tmp_path / "ours", private=True, max_shard_size="5GB")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        both.ours.save_pretrained(tmp_path / "ours", private=True)  # told once
    names = [sorted(file.name for file in (tmp_path / who).iterdir()) for who in ("ours", "theirs")]
    assert names[0] == names[1]
