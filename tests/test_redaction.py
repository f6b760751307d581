"""Redacted texts: nothing of an entity stays at its place, everything else stays as it was."""

from __future__ import annotations

import hmac
import json
import pickle
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gliner_fast.entity import Entity
from gliner_fast.redaction import Redaction, redact
from tests.reference.examples import examples

KEY = "correct horse battery staple"
REDACTIONS = [
    Redaction(),
    Redaction(template="<{label} {number}>"),
    Redaction("mask"),
    Redaction("mask", character="*"),
    Redaction("hash", key=KEY),
]


def entity(text: str, start: int, end: int, label: str = "person", score: float = 0.5) -> Entity:
    return Entity(start=start, end=end, text=text[start:end], label=label, score=score)


def find(text: str, *found: tuple[str, str]) -> list[Entity]:
    """Entities from (surface, label), each at the surface's first place."""
    return [entity(text, text.index(surface), text.index(surface) + len(surface), label) for surface, label in found]


def hash_of(surface: bytes) -> str:
    return hmac.new(KEY.encode(), surface, "sha256").hexdigest()[:12]


# --- what stands in the new text --------------------------------------------------------------------------------------

# Text, (start, end, label, score) of its entities, the text with placeholders, the masked text.
CASES: dict[str, tuple[str, list[tuple[int, int, str, float]], str, str]] = {
    "one": ("Ada left.", [(0, 3, "person", 0.9)], "[PERSON] left.", "███ left."),
    "none": ("Ada left.", [], "Ada left.", "Ada left."),
    "no text": ("", [], "", ""),
    "whole text": ("Ada", [(0, 3, "person", 0.9)], "[PERSON]", "███"),
    "unsorted": ("Ada in Rome", [(7, 11, "city", 0.9), (0, 3, "person", 0.9)], "[PERSON] in [CITY]", "███ in ████"),
    "touching": ("AdaRome", [(0, 3, "person", 0.9), (3, 7, "city", 0.9)], "[PERSON][CITY]", "███████"),
    "nested": ("Bank of Rome", [(8, 12, "city", 0.9), (0, 12, "bank", 0.6)], "[BANK]", "████████████"),
    "nested, touching the next": (
        "Bank of RomeX",
        [(0, 12, "bank", 0.6), (8, 12, "city", 0.9), (12, 13, "letter", 0.9)],
        "[BANK][LETTER]",
        "█████████████",
    ),
    "overlapping": ("New York Times", [(0, 8, "city", 0.9), (4, 14, "paper", 0.6)], "[PAPER]", "██████████████"),
    "a chain": ("abcdefgh", [(0, 3, "x", 0.9), (2, 6, "y", 0.1), (5, 7, "z", 0.9)], "[Y]h", "███████h"),
    "a long one over two": ("abcdefgh", [(1, 7, "x", 0.1), (2, 3, "y", 0.9), (4, 5, "z", 0.9)], "a[X]h", "a██████h"),
    "two labels, better score": ("Ada", [(0, 3, "a", 0.5), (0, 3, "b", 0.6), (0, 3, "c", 0.5)], "[B]", "███"),
    "two labels, equal scores": ("Ada", [(0, 3, "b", 0.5), (0, 3, "a", 0.5)], "[B]", "███"),
    "equally long, equal scores": ("abc", [(1, 3, "later", 0.5), (0, 2, "earlier", 0.5)], "[EARLIER]", "███"),
    "emoji": ("👩\u200d🚀 Ada 🎉", [(4, 7, "person", 0.9)], "👩\u200d🚀 [PERSON] 🎉", "👩\u200d🚀 ███ 🎉"),
    "an emoji of three": ("a 👩\u200d🚀!", [(2, 5, "astronaut", 0.9)], "a [ASTRONAUT]!", "a ███!"),
    # The splitter takes a combining mark for a word of its own; one outside of the entity is not the entity's.
    "combining mark inside": ("Jose\u0301 x", [(0, 5, "person", 0.9)], "[PERSON] x", "█████ x"),
    "combining mark outside": ("Jose\u0301 x", [(0, 4, "person", 0.9)], "[PERSON]\u0301 x", "████\u0301 x"),
    "lone surrogates": ("\ud800Ada\udfff", [(0, 4, "person", 0.9)], "[PERSON]\udfff", "████\udfff"),
    "braces in text and label": ("{Ada} {0}", [(1, 4, "{number}", 0.9)], "{[{NUMBER}]} {0}", "{███} {0}"),
    "several lines": ("1 Main St\nRome", [(0, 14, "address", 0.9)], "[ADDRESS]", "██████████████"),
}


@pytest.mark.parametrize("case", CASES)
def test_known_texts(case: str):
    text, found, labelled, masked = CASES[case]
    entities = [entity(text, *one) for one in found]
    assert redact(text, entities).text == labelled
    assert redact(text, entities, style="mask").text == masked


def test_entities_are_those_of_the_new_text():
    text = "Ada met Bob in New York City."
    entities = find(text, ("Bob", "person"), ("New York City", "city"), ("York", "person"), ("Ada", "person"))
    redacted = redact(text, entities)
    assert redacted.text == "[PERSON] met [PERSON] in [CITY]."
    assert redacted.entities == [
        {"start": 0, "end": 8, "text": "[PERSON]", "label": "person", "score": 0.5},
        {"start": 13, "end": 21, "text": "[PERSON]", "label": "person", "score": 0.5},
        {"start": 25, "end": 31, "text": "[CITY]", "label": "city", "score": 0.5},
    ]
    assert redacted.ranges == [(0, 3), (8, 11), (15, 28)]


def test_vectors_do_not_leave_with_the_entities():
    found: Any = entity("Ada", 0, 3) | {"vector": [1.0], "class_probs": {"person": 0.5}}
    assert set(redact("Ada", [found]).entities[0]) == {"start", "end", "text", "label", "score"}


def test_the_entities_given_are_left_alone():
    entities = [entity("Ada", 0, 3)]
    redact("Ada", entities)
    assert entities == [entity("Ada", 0, 3)]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("<{label}>", "<person> met <person>; <person> left <city>"),
        ("{LABEL}_{number}", "PERSON_1 met PERSON_2; PERSON_1 left CITY_1"),
        ("xxx", "xxx met xxx; xxx left xxx"),
        ("{}{ {label} {{", "{}{ person {{ met {}{ person {{; {}{ person {{ left {}{ city {{"),
    ],
)
def test_templates(template: str, expected: str):
    text = "Ada met Bob; Ada left Ada"
    entities = [entity(text, 0, 3), entity(text, 8, 11), entity(text, 13, 16), entity(text, 22, 25, "city")]
    assert redact(text, entities, template=template).text == expected


def test_labels_that_look_alike_share_their_numbers():
    text = "Ada Bob"
    entities = [entity(text, 0, 3, "Person"), entity(text, 4, 7, "person")]
    assert redact(text, entities, template="{LABEL}{number}").text == "PERSON1 PERSON2"


def test_numbers_begin_anew_with_each_text():
    redaction = Redaction(template="{number}")
    assert [redaction.apply(text, [entity(text, 0, 3)]).text for text in ("Ada", "Bob")] == ["1", "1"]


# --- hashes -----------------------------------------------------------------------------------------------------------


def test_equal_entities_have_equal_hashes_whatever_their_labels_and_texts():
    redaction = Redaction("hash", key=KEY)
    first = redaction.apply("Ada left", [entity("Ada left", 0, 3)]).text
    second = redaction.apply("Hi Ada", [entity("Hi Ada", 3, 6, "friend")]).text
    assert first == f"[PERSON:{hash_of(b'Ada')}] left"
    assert second == f"Hi [FRIEND:{hash_of(b'Ada')}]"


def test_hashes_depend_on_the_key_and_on_the_entity():
    hashes = {
        redact(name, [entity(name, 0, 3)], style="hash", key=key).text
        for name in ("Ada", "ada", "Bob")
        for key in (KEY, KEY + "!", b"\xff" * 100)
    }
    assert len(hashes) == 9


def test_a_key_may_be_bytes_or_text():
    texts = {redact("Ada", [entity("Ada", 0, 3)], style="hash", key=key).text for key in (KEY, KEY.encode())}
    assert len(texts) == 1


def test_a_key_of_16_bytes_is_long_enough():
    assert redact("Ada", [entity("Ada", 0, 3)], style="hash", key=b"k" * 16).text.startswith("[PERSON:")


def test_a_lone_surrogate_can_be_hashed():
    redacted = redact("a\ud800", [entity("a\ud800", 0, 2)], style="hash", key=KEY)
    as_utf8_would = b"a" + bytes([0xED, 0xA0, 0x80])
    assert redacted.text == f"[PERSON:{hash_of(as_utf8_would)}]"


def test_the_settings_tell_keys_apart_and_keep_them_secret():
    redaction, other = Redaction("hash", key=KEY), Redaction("hash", key=KEY + "!")
    assert redaction.to_dict() == Redaction("hash", key=KEY.encode()).to_dict() != other.to_dict()
    assert json.loads(json.dumps(redaction.to_dict())) == redaction.to_dict()
    for shown in (repr(redaction), str(redaction.to_dict())):
        assert KEY not in shown
        assert KEY.encode().hex() not in shown
    assert pickle.loads(pickle.dumps(redaction)) == redaction


@pytest.mark.parametrize(
    ("redaction", "settings"),
    [
        (Redaction(), {"style": "label", "template": "[{LABEL}]"}),
        (Redaction(template="x"), {"style": "label", "template": "x"}),
        (Redaction("mask", character="*"), {"style": "mask", "character": "*"}),
    ],
)
def test_the_settings_say_what_was_done(redaction: Redaction, settings: dict[str, Any]):
    assert redaction.to_dict() == settings


# --- options ----------------------------------------------------------------------------------------------------------


def test_the_key_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REDACTION_KEY", KEY)
    read = Redaction.from_options("hash", template="{hash}", key_env="REDACTION_KEY")
    assert read == Redaction("hash", template="{hash}", key=KEY)


def test_a_key_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("REDACTION_KEY", raising=False)
    with pytest.raises(ValueError, match="variable REDACTION_KEY for the redaction key is not set.*token_hex"):
        Redaction.from_options("hash", key_env="REDACTION_KEY")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"style": "blur"}, ValueError, "style is 'blur': expected 'label', 'mask' or 'hash'"),
        ({"style": "hash"}, ValueError, "needs a key: without a secret key anyone can hash a list of names"),
        ({"style": "hash", "key": ""}, ValueError, "key has 0 bytes, expected at least 16"),
        ({"style": "hash", "key": b"secret"}, ValueError, "key has 6 bytes, expected at least 16"),
        ({"style": "hash", "key": 5}, TypeError, "key is a int: expected bytes or a string"),
        ({"style": "label", "key": KEY}, ValueError, "style 'label' makes no hashes"),
        ({"style": "mask", "template": "x"}, ValueError, "style 'mask' has no placeholder"),
        ({"template": ""}, ValueError, "template is empty"),
        ({"template": "[{lable}]"}, ValueError, r"has \{lable\}: style 'label' knows \{LABEL\}, \{label\}, \{number\}"),
        ({"template": "{hash}"}, ValueError, r"has \{hash\}: style 'label' knows"),
        ({"style": "mask", "character": ""}, ValueError, "character is ''"),
        ({"style": "mask", "character": "**"}, ValueError, "expected one code point"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_words(options: dict[str, Any], error: type[Exception], words: str):
    with pytest.raises(error, match=words):
        redact("", [], **options)


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (0, 4), (3, 3), (2, 1), (4, 5), (-3, -1)])
@pytest.mark.parametrize("redaction", REDACTIONS, ids=repr)
def test_an_entity_out_of_its_text_is_named(redaction: Redaction, start: int, end: int):
    entities = [entity("Ada", 0, 3), entity("Ada", start, end)]
    with pytest.raises(ValueError, match=rf"entities\[1\] is {start}\.\.{end} in a text of 3 characters"):
        redaction.apply("Ada", entities)


# --- properties -------------------------------------------------------------------------------------------------------

# Few characters, so that surfaces repeat and look like placeholders, and the ones at which offsets go wrong.
TEXTS = st.text(st.sampled_from("ab {}[]:█é\u0301\u200d👩\ud800\n"), max_size=30)


@st.composite
def texts_with_entities(draw: st.DrawFn) -> tuple[str, list[Entity]]:
    text = draw(TEXTS)
    assume(text)
    places = st.integers(0, len(text))
    spans = draw(st.lists(st.tuples(places, places).filter(lambda span: span[0] < span[1]), max_size=8))
    labels, scores = st.sampled_from(["a", "A", "b{}", "{label}"]), st.sampled_from([0.5, 0.9])
    return text, [entity(text, start, end, draw(labels), draw(scores)) for start, end in spans]


REDACTED = pytest.mark.parametrize("redaction", REDACTIONS, ids=repr)


@REDACTED
@examples
@given(example=texts_with_entities())
def test_what_no_entity_covers_stays_in_order_and_nothing_else_does(
    redaction: Redaction, example: tuple[str, list[Entity]]
):
    text, entities = example
    redacted = redaction.apply(text, entities)
    covered = {place for one in entities for place in range(one["start"], one["end"])}
    assert {place for start, end in redacted.ranges for place in range(start, end)} == covered
    assert sum(end - start for start, end in redacted.ranges) == len(covered)
    # Cut out of each text what was replaced there: the rest is the same, piece by piece.
    places = [(one["start"], one["end"]) for one in redacted.entities]
    assert between(redacted.text, places) == between(text, redacted.ranges)


def between(text: str, ranges: list[tuple[int, int]]) -> list[str]:
    ends, starts = [0, *(end for _, end in ranges)], [*(start for start, _ in ranges), len(text)]
    return [text[end:start] for end, start in zip(ends, starts, strict=True)]


@REDACTED
@examples
@given(example=texts_with_entities())
def test_entities_slice_the_new_text_and_bear_a_label_of_theirs(
    redaction: Redaction, example: tuple[str, list[Entity]]
):
    text, entities = example
    redacted = redaction.apply(text, entities)
    for one, (start, end) in zip(redacted.entities, redacted.ranges, strict=True):
        assert redacted.text[one["start"] : one["end"]] == one["text"]
        inside = [given for given in entities if start <= given["start"] and given["end"] <= end]
        longest = max(given["end"] - given["start"] for given in inside)
        assert one["label"] in {given["label"] for given in inside if given["end"] - given["start"] == longest}
    assert all(left["end"] <= right["start"] for left, right in pairwise(redacted.entities))


@examples
@given(example=texts_with_entities())
def test_a_mask_keeps_offsets_and_covers_every_character(example: tuple[str, list[Entity]]):
    text, entities = example
    redacted = redact(text, entities, style="mask", character="#")
    assert len(redacted.text) == len(text)
    assert [(one["start"], one["end"]) for one in redacted.entities] == redacted.ranges
    for one in entities:
        assert set(redacted.text[one["start"] : one["end"]]) == {"#"}


@REDACTED
@examples
@given(example=texts_with_entities())
def test_the_order_of_entities_does_not_change_where_they_are(redaction: Redaction, example: tuple[str, list[Entity]]):
    text, entities = example
    assert redaction.apply(text, entities[::-1]).ranges == redaction.apply(text, entities).ranges


@pytest.mark.parametrize("redaction", [one for one in REDACTIONS if one.style != "hash"], ids=repr)
@examples
@given(example=texts_with_entities())
@example(example=("::", [entity("::", 0, 1, "a"), entity("::", 1, 2, "A")]))  # labels that differ by case alone
def test_redacting_what_is_redacted_changes_nothing(redaction: Redaction, example: tuple[str, list[Entity]]):
    text, entities = example
    once = redaction.apply(text, entities)
    assert redaction.apply(once.text, once.entities).text == once.text
