"""The corrected numbering of words (Q1) gives the answers of a gliner that is corrected in the same way."""

import pytest

from tests.parity.pairs import Pair, spans
from tests.samples import CROSSNER, LABELS, UNICODE

pytestmark = pytest.mark.gliner

VANISHING = [
    "a \x01 c d",
    "\x01 Paris \x02 \x03 Rome and Ada \x7f in Oslo",
    "\u200b\u200b Paris \u200b Ada in London",
    "Ada \u200b Lovelace was born \x02 in London \x01",
    "\x01",
]


def _number_by_place(self, texts, tokenized_inputs, skip_first_words=None, token_level=False):
    """`prepare_word_mask` with upstream's open fix (PR 394): a word's number is its own place, not a count."""
    masks = []
    for row in range(len(texts)):
        ids = tokenized_inputs.word_ids(row)
        kept = []
        for at, word in enumerate(ids):
            is_first = at == 0 or ids[at - 1] != word
            is_last = at + 1 == len(ids) or ids[at + 1] != word
            pooling = self.config.subtoken_pooling
            is_selected = pooling in {"mean", "max"} or (is_first if pooling == "first" else is_last)
            place = -1 if word is None else word - skip_first_words[row]
            kept.append(place + 1 if place >= 0 and is_selected else 0)
        masks.append(kept)
    return masks


@pytest.mark.parametrize("kind", ["deberta", "deberta-last", "deberta-mean", "deberta-max", "bert", "bert-cut-first"])
def test_a_corrected_reference_answers_the_same(kind, checkpoint, monkeypatch):
    from gliner.data_processing.processor import BaseProcessor

    monkeypatch.setattr(BaseProcessor, "prepare_word_mask", _number_by_place)
    both = Pair(
        Pair.load_ours(checkpoint(kind), corrected_numbering=True),
        Pair.load_reference(checkpoint(kind)),
    )
    both.check([*VANISHING, *UNICODE[::4], *CROSSNER[:4]], LABELS, threshold=0.05)
    for labels in (["person", " ", "city"], [" ", "\x01", "person"], ["\x01"]):
        both.check([*VANISHING, *CROSSNER[:4]], labels, threshold=0.05, flat_ner=False)


def test_it_matters_only_where_a_word_vanishes(checkpoint):
    corrected = Pair.load_ours(checkpoint("deberta"), corrected_numbering=True)
    plain = Pair.load_ours(checkpoint("deberta"))
    assert corrected.inference(CROSSNER, LABELS) == plain.inference(CROSSNER, LABELS)
    options = {"threshold": 0, "flat_ner": False, "multi_label": True}
    texts = ["Ada \x01 in London"]
    assert spans(corrected.inference(texts, LABELS, **options)) != spans(plain.inference(texts, LABELS, **options))
