"""Texts of every sort give gliner's answers."""

import re
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.parity.pairs import spans
from tests.reference.examples import EXAMPLES
from tests.samples import BOOKS, LABELS, UNICODE

pytestmark = pytest.mark.gliner

TOKENIZERS = ["deberta", "bert", "modernbert", "era-v1", "t5"]  # one kind for each family of tokenizers

ODD_TEXTS = [
    "a \x01 c d",  # the tokenizer yields nothing for the second word, so later ones move up (Q1)
    "\x01 Paris \x02 \x03 Rome and Ada \x7f in Oslo",
    "\x01", "\u200b", "\u200b\u200b Paris", "Paris \u200b", "To\u200bky\u200bo", "\u200c\u200d", "a\u200db c",
    "one\x1ctwo\x1dthree\x1efour\x1ffive", "\x1c Paris \x1f", "New\xa0York and San\u202fFrancisco",
    "first\r\nsecond\rthird\n\nfourth", "\ue000 Paris \ue001 \U000f0000 Rome", "\ufeffAda", "Ada\ufeff Byron",
    "e\u0301a Zoe\u0308 Kra\u0308vitz", "क्षि", "東京でTaylor Swiftのコンサート", "👩\u200d🚀 Ada 👩🏽\u200d💻 in 🇫🇷",
    "- - _ -- __ state-of-the-art foo_bar -x- a--b", "①② x² ½ Ⅻ", "<<ENT>> person <<SEP>> Paris [CLS] [SEP] [PAD]",
    "[FLERT]", "[SEP]", "ﬁnance ﷺ ㎏", "i\u0307stanbul İSTANBUL", "\U0010ffff Oslo", "a" * 300, "a-" * 100,
]  # fmt: skip


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_unicode(kind, pair):
    found = pair(kind).check(UNICODE, LABELS, threshold=0.3)
    assert sum(map(len, found)) > 100


@pytest.mark.parametrize("kind", [*TOKENIZERS, "deberta-last", "deberta-mean", "deberta-max", "bert-cut-last"])
def test_controls_joiners_and_words_that_vanish(kind, pair):
    found = pair(kind).check(ODD_TEXTS, LABELS, threshold=0.05)
    assert sum(map(len, found)) > 10
    pair(kind).check(ODD_TEXTS, LABELS, threshold=0.05, flat_ner=False, multi_label=True, batch_size=1)


@pytest.mark.parametrize(
    "texts", [[], [""], ["", " \n\t", "\x1c\x1f", "\u3000", "\xa0"], ["", "Paris", "  ", "Rome", ""]]
)
def test_empty_and_blank_texts_keep_their_places(texts, pair):
    found = pair("deberta").check(texts, LABELS, threshold=0)
    assert [bool(entities) for entities in found] == [text in {"Paris", "Rome"} for text in texts]


def test_texts_that_are_no_strings_give_nothing(pair):
    texts = [None, "Paris", 3, ["Paris"], b"Paris", {"text": "Paris"}]
    both = pair("deberta")
    with pytest.warns(UserWarning, match=r"text 2 is 3 \(int\): what is no string has no entities"):
        ours = both.ours.inference(texts, LABELS, threshold=0)
    theirs = both.reference.inference(texts, LABELS, threshold=0)
    assert [len(entities) for entities in ours] == [len(entities) for entities in theirs]
    assert [bool(entities) for entities in ours] == [False, True, False, False, False, False]


@pytest.mark.parametrize("texts", ["Ada was born in London.", ("Ada", "London"), ("Ada was born in London.",)])
def test_one_string_or_a_tuple_of_texts(texts, pair):
    both = pair("deberta")
    ours, theirs = (predictor.inference(texts, LABELS, threshold=0) for predictor in (both.ours, both.reference))
    assert spans(ours) == spans(theirs)
    assert len(ours) == len(theirs) == (1 if isinstance(texts, str) else len(texts))


@pytest.mark.parametrize("word", ["Paris", "x", "-", "東京", "\u0301", "🚀"])
def test_one_word(word, pair):
    for kind in TOKENIZERS:
        pair(kind).check([word], LABELS, threshold=0)
        pair(kind).check([word], ["location"], threshold=0)


@pytest.mark.parametrize(
    ("kind", "limit"), [("deberta", 384), ("deberta-narrow", 24), ("bert", 384), ("bert-cut-first", 384)]
)
def test_a_text_is_cut_after_so_many_words_with_the_reference_s_warning(kind, limit, pair):
    both = pair(kind)
    words = re.findall(r"\w+|\S", " ".join(BOOKS))
    whole, longer = (" ".join(words[:count]) for count in (limit, limit + 1))
    assert sum(map(len, both.check([whole, longer, "Paris"], LABELS))) > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        both.ours.inference([whole], LABELS)
    for predictor in (both.ours, both.reference):
        with pytest.warns(UserWarning, match="Sentence of length") as caught:
            predictor.inference([whole, longer], LABELS)
        assert {str(warning.message) for warning in caught} == {
            f"Sentence of length {limit + 1} has been truncated to {limit}"
        }


def test_nothing_is_found_past_the_cut(pair):
    both = pair("deberta-narrow")
    text = " ".join(["Ada"] * 60)
    found = both.check([text], LABELS, threshold=0.01, flat_ner=False, multi_label=True)[0]
    assert found
    assert max(entity["end"] for entity in found) <= 24 * 4


@pytest.mark.parametrize("kind", ["bert-cut-first", "bert-cut-last", "bert-cut-mean"])
def test_the_tokenizer_s_own_limit_cuts_in_the_middle_of_words(kind, pair):
    # 96 subwords, prompt included: every length of text up to that many words, so that the cut falls everywhere.
    words = re.findall(r"\w+|\S", " ".join(BOOKS))
    texts = [" ".join(words[first : first + count]) for first, count in enumerate(range(20, 80, 3))]
    pair(kind).check(texts, LABELS, threshold=0.05)
    pair(kind).check(texts[::4], [f"a kind of thing called {n}" for n in range(12)], threshold=0.05)


@pytest.mark.parametrize("kind", ["deberta", "bert"])
def test_long_and_short_texts_together(kind, pair):
    pair(kind).check([BOOKS[0], "Paris", *BOOKS[20:24], "", "a b", BOOKS[70]], LABELS, threshold=0.4)


_WORDS = st.text(
    alphabet=st.one_of(
        st.characters(exclude_categories=("Cs",)),
        st.sampled_from("aeio-_ .\u0301\u200b\u200d\x01\x1c\xa0"),
        st.just(" "),
    ),
    max_size=30,
)


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=max(1, EXAMPLES // 4), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(_WORDS, min_size=1, max_size=4))
def test_any_text(kind, pair, texts):
    pair(kind).check(texts, ["person", "location"], threshold=0.1, flat_ner=False)
