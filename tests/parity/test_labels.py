"""Labels in every form give gliner's answers."""

import pytest

from tests.samples import CROSSNER, LABELS

pytestmark = pytest.mark.gliner

TEXTS = CROSSNER[:6]

SHARED = {
    "one": ["person"],
    "a string": "person",
    "a tuple": ("person", "location"),
    "sixty": [f"{word} {number}" for number in range(20) for word in ("kind", "sort", "class")],
    "duplicates": ["person", "location", "person", "location", "person"],
    "an empty string": ["person", "", "location"],
    "only an empty string": [""],
    "none at all": [],
    "spaces": ["  person  ", "musical   artist", "a\nlabel\tof lines"],
    "unicode": ["人物", "Ürün ismi", "место", "🚀", "e\u0301tat", "شخص"],
    "cases": ["Person", "PERSON", "person"],
    "a blank one that vanishes": ["person", " ", "location"],
    "blank ones first": [" ", "\t", "person"],
    "a control that vanishes": ["\x01", "person", "loc\x02ation"],
    "only ones that vanish": [" ", "\x01"],
    "an entity token inside": ["person <<ENT>> city", "location"],
    "an entity token alone": ["<<ENT>>", "person"],
    "a separator inside": ["person", "a <<SEP>> b", "location"],
    "other special tokens": ["[SEP]", "[CLS] person", "[PAD]", "[UNK]", "[MASK]", "[FLERT]"],
    "a special token last": ["person", "location", "city<<ENT>>"],
    "a long one": ["person", "a " + "very " * 60 + "long label", "location"],
    "not strings": [1, 2.5, None, True, ("a", "b")],
    "descriptions": {"PER": "name of a human being", "LOC": "place on a map", "ORG": "organization"},
    "one description": {"PER": "person"},
    "no descriptions": {},
    "descriptions like labels": {"location": "person", "person": "location"},
}


@pytest.mark.parametrize("kind", ["deberta", "bert", "deberta-label-word", "token", "token-spans"])
@pytest.mark.parametrize("labels", list(SHARED.values()), ids=list(SHARED))
def test_labels_shared_by_all_texts(labels, kind, pair):
    pair(kind).check(TEXTS, labels, threshold=0.2, flat_ner=False, multi_label=True)
    pair(kind).check(TEXTS[:2], labels, threshold=0.2, return_class_probs=True)


PER_TEXT = {
    "lists": [["person"], ["location", "event"], [], ["person", "algorithm", "university"], ["person"], ["song"]],
    "lists with duplicates": [["person", "person"], ["b", "a", "b"], ["a"], ["a", "b"], ["b", "a"], ["a", "a"]],
    "descriptions": [{"A": "person"}, {"B": "location", "C": "event"}, {}, {"A": "b"}, {"A": "person"}, {"Z": "song"}],
    "lists and descriptions": [["person"], {"B": "location"}, ["B"], {"B": "event", "C": "person"}, [], {}],
    "all the same": [["person", "location"]] * 6,
    "all empty": [[]] * 6,
    "a special token": [["person <<ENT>> city", "x"], ["y"], ["<<ENT>>"], ["z", "[SEP]"], ["person"], ["a", "b", "c"]],
    "different lengths": [LABELS, ["a"], LABELS[:2], [f"label {n}" for n in range(40)], ["person"], LABELS[::-1]],
}  # fmt: skip


@pytest.mark.parametrize("kind", ["deberta", "token", "token-spans"])
@pytest.mark.parametrize("batch_size", [1, 4, 8])
@pytest.mark.parametrize("labels", list(PER_TEXT.values()), ids=list(PER_TEXT))
def test_labels_of_each_text_s_own(labels, batch_size, kind, pair):
    pair(kind).check(TEXTS, labels, threshold=0.2, batch_size=batch_size)
    pair(kind).check(TEXTS, labels, threshold=0.2, flat_ner=False, return_class_probs=True)


def test_empty_texts_have_labels_too(pair):
    labels = [["person"], ["never asked"], ["location"], ["never asked"]]
    found = pair("deberta").check([TEXTS[0], "", TEXTS[1], "  "], labels, threshold=0)
    assert [{entity["label"] for entity in entities} for entities in found] == [{"person"}, set(), {"location"}, set()]


REFUSED = {
    "too few rows": ([["person"]], ValueError),
    "too many rows": ([["person"]] * 7, ValueError),
    "rows mixed with strings": ([["person"], "location", ["a"], ["b"], ["c"], ["d"]], TypeError),
    "a tuple of rows": ((["person"],) * 6, TypeError),
    "equal descriptions": ({"A": "person", "B": "person"}, ValueError),
    "a description that is no string": ({"A": 1}, TypeError),
    "a name that is no string": ({1: "person"}, TypeError),
    "equal descriptions in a row": ([{"A": "x", "B": "x"}] + [{"A": "person"}] * 5, ValueError),
    "nothing": (None, TypeError),
    "a number": (3, TypeError),
}


@pytest.mark.parametrize(("labels", "error"), list(REFUSED.values()), ids=list(REFUSED))
def test_labels_that_both_refuse(labels, error, pair):
    both = pair("deberta")
    with pytest.raises(error):
        both.reference.inference(TEXTS, labels)
    with pytest.raises(error):
        both.ours.inference(TEXTS, labels)


def test_a_set_of_labels_is_taken_in_its_own_order(pair):
    pair("deberta").check(TEXTS, {"person", "location", "event"}, threshold=0.2)
