"""Texts without their entities: each replaced by a placeholder, masked, or replaced by a keyed hash."""

from __future__ import annotations

import hmac
import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from gliner_fast.entity import Entity
from gliner_fast.relations.relation import Relation, RelationEnd, end_of

Style = Literal["label", "mask", "hash"]

_TEMPLATES = {"label": "[{LABEL}]", "hash": "[{LABEL}:{hash}]"}
_FIELDS = {"label": {"label", "LABEL", "number"}, "hash": {"label", "LABEL", "number", "hash"}}
_FIELD = re.compile(r"\{(\w+)\}")
# 48 bits: among a million different names, two share a hash in 1 of 560 keys.
_HASH_DIGITS = 12
_MIN_KEY_BYTES = 16
_WHY_KEY = (
    "without a secret key anyone can hash a list of names and look the hashes up. "
    'Make one with: python -c "import secrets; print(secrets.token_hex(32))"'
)


@dataclass(frozen=True)
class Redacted:
    """A text after redaction.

    Attributes:
        text: the new text.
        entities: what was replaced, in reading order: `start`, `end` and `text` are those of the replacement in the new
            text, so `redacted.text[start:end] == entity["text"]`; vectors and class probabilities are left out.
        ranges: for each of `entities` the (start, end) in the given text that it replaces.
        relations: between `entities`, by head and then tail; vectors are left out.
    """

    text: str
    entities: list[Entity]
    ranges: list[tuple[int, int]]
    relations: list[Relation] = field(default_factory=list)


@dataclass(frozen=True)
class Redaction:
    """How to redact, checked once for many texts.

    Overlapping and nested entities are replaced once, as one range from the first start to the last end, under the
    label of the longest of them; between equally long ones the better score decides, then the earlier start, then the
    order given. Entities that only touch are replaced one by one. What no entity covers stays as it is.

    The ends of relations become what replaces their entities. Where both ends became one the relation is left out; of
    several that became alike the one with the best score stays.

    Attributes:
        style: "label" writes a placeholder; "mask" one character for each code point, so that offsets stay and lengths
            show; "hash" a placeholder with a keyed hash of the entity's text, the same for the same text everywhere.
        template: the placeholder. `{label}` stands for the label, `{LABEL}` for the label in capitals, `{number}` for
            1, 2, ... per label in order of appearance, the same for the same entity within one text, and, in style
            "hash" alone, `{hash}` for the first 12 hexadecimal digits of HMAC-SHA-256. Other braces stay as they are.
            None is "[{LABEL}]" or "[{LABEL}:{hash}]".
        character: of style "mask".
        key: secret of style "hash", at least 16 bytes. It is in pickles, never in `repr` or `to_dict`.

    Raises:
        TypeError: a key that is neither bytes nor a string.
        ValueError: an unknown style or field; an empty template; a template or key of another style; a character that
            is not one code point; style "hash" without key or with a short one.
    """

    style: Style = "label"
    template: str | None = None
    character: str = "█"
    key: bytes | str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.style not in get_args(Style):
            raise ValueError(f"style is {self.style!r}: expected 'label', 'mask' or 'hash'")
        self._check_template()
        if len(self.character) != 1:
            raise ValueError(f"character is {self.character!r}: expected one code point, such as '█', so offsets stay")
        self._check_key()

    @classmethod
    def from_options(cls, style: str, *, template: str | None = None, key_env: str | None = None) -> Redaction:
        """Reads the words of a command line; the key comes from the environment, to stay out of the shell's history.

        Args:
            style: see the class.
            template: see the class.
            key_env: name of the environment variable that holds the key.

        Raises:
            ValueError: as the class, or the variable is not set.
        """
        if key_env is not None and key_env not in os.environ:
            raise ValueError(f"the environment variable {key_env} for the redaction key is not set; {_WHY_KEY}")
        key = os.environ[key_env] if key_env is not None else None
        return cls(style, template=template, key=key)  # type: ignore[arg-type]  # the class checks the style

    def apply(self, text: str, entities: Sequence[Entity], relations: Sequence[Relation] = ()) -> Redacted:
        """Replaces the entities of one text; they may come in any order, overlap and nest.

        Args:
            text: the text.
            entities: of the text.
            relations: between these.

        Raises:
            ValueError: an entity that is empty or does not lie within the text, or a relation of another one.
        """
        numbers: dict[str, dict[tuple[str, str], int]] = {}
        pieces: list[str] = []
        replaced: list[Entity] = []
        ranges: list[tuple[int, int]] = []
        done = length = 0  # code points read of the text, written of the new one
        for start, end, leader in _merge(entities, len(text)):
            replacement = self._replacement(text[start:end], str(leader["label"]), numbers)
            pieces += text[done:start], replacement
            place = length + start - done
            done, length = end, place + len(replacement)
            replaced.append(
                Entity(start=place, end=length, text=replacement, label=leader["label"], score=leader["score"])
            )
            ranges.append((start, end))
        pieces.append(text[done:])
        return Redacted("".join(pieces), replaced, ranges, _relink(relations, entities, replaced, ranges))

    def to_dict(self) -> dict[str, Any]:
        """Settings as JSON values for a manifest: of the key only a digest, which tells two keys apart."""
        if self.style == "mask":
            return {"style": self.style, "character": self.character}
        settings = {"style": self.style, "template": self._template}
        if self.style == "hash":
            settings["key_digest"] = self._hash("gliner_fast: which key is this?")
        return settings

    @property
    def _template(self) -> str:
        return _TEMPLATES[self.style] if self.template is None else self.template

    def _replacement(self, surface: str, label: str, numbers: dict[str, dict[tuple[str, str], int]]) -> str:
        if self.style == "mask":
            return self.character * len(surface)
        # By the label in capitals: "Person" and "person" may look the same in the new text.
        known = numbers.setdefault(label.upper(), {})
        number = known.setdefault((label, surface), len(known) + 1)
        values = {"label": label, "LABEL": label.upper(), "number": str(number)}
        if self.style == "hash":
            values["hash"] = self._hash(surface)
        return _FIELD.sub(lambda match: values[match[1]], self._template)

    def _hash(self, surface: str) -> str:
        assert self.key is not None  # __post_init__ has seen to it
        # A lone surrogate is a code point like any other here; UTF-8 alone would refuse it.
        return hmac.digest(_as_bytes(self.key), _as_bytes(surface), "sha256").hex()[:_HASH_DIGITS]

    def _check_template(self) -> None:
        if self.template is None:
            return
        if self.style == "mask":
            raise ValueError("template is given, but style 'mask' has no placeholder: leave it out, or use 'label'")
        if not self.template:
            raise ValueError(
                "template is empty, which would hide that a text was redacted: expected one as '[{LABEL}]'"
            )
        fields = _FIELDS[self.style]
        unknown = [name for name in _FIELD.findall(self.template) if name not in fields]
        if unknown:
            known = ", ".join(f"{{{name}}}" for name in sorted(fields))
            raise ValueError(f"template has {{{unknown[0]}}}: style {self.style!r} knows {known}")

    def _check_key(self) -> None:
        if self.style != "hash":
            if self.key is not None:
                raise ValueError(f"key is given, but style {self.style!r} makes no hashes: leave it out, or use 'hash'")
            return
        if self.key is None:
            raise ValueError(f"style 'hash' needs a key: {_WHY_KEY}")
        if not isinstance(self.key, (bytes, str)):
            raise TypeError(f"key is a {type(self.key).__name__}: expected bytes or a string")
        length = len(_as_bytes(self.key))
        if length < _MIN_KEY_BYTES:
            raise ValueError(
                f"key has {length} bytes, expected at least {_MIN_KEY_BYTES}: a short one can be guessed, and "
                f"{_WHY_KEY}"
            )


def redact(
    text: str,
    entities: Sequence[Entity],
    relations: Sequence[Relation] = (),
    *,
    style: Style = "label",
    template: str | None = None,
    character: str = "█",
    key: bytes | str | None = None,
) -> Redacted:
    """Replaces the entities of a text; see `Redaction` for the options and for many texts.

    Example:
        >>> found = [{"start": 0, "end": 11, "text": "Marie Curie", "label": "person", "score": 0.98}]
        >>> redact("Marie Curie was born in Warsaw.", found).text
        '[PERSON] was born in Warsaw.'

    Raises:
        TypeError: see `Redaction`.
        ValueError: see `Redaction` and its `apply`.
    """
    return Redaction(style, template, character, key).apply(text, entities, relations)


def _merge(entities: Sequence[Entity], length: int) -> Iterator[tuple[int, int, Entity]]:
    """The ranges that the entities cover, in reading order, each with the entity that names it."""
    for index, entity in enumerate(entities):
        if not 0 <= entity["start"] < entity["end"] <= length:
            raise ValueError(
                f"entities[{index}] is {entity['start']}..{entity['end']} in a text of {length} characters: expected "
                "0 <= start < end <= length; were the entities found in this text?"
            )
    group: list[Entity] = []
    end = 0
    # The sort is stable, and `max` takes the first of equals.
    for entity in sorted(entities, key=lambda entity: entity["start"]):
        if group and entity["start"] >= end:
            yield group[0]["start"], end, max(group, key=_precedence)
            group = []
        end = max(end, entity["end"]) if group else entity["end"]
        group.append(entity)
    if group:
        yield group[0]["start"], end, max(group, key=_precedence)


def _relink(
    relations: Sequence[Relation],
    entities: Sequence[Entity],
    replaced: Sequence[Entity],
    ranges: Sequence[tuple[int, int]],
) -> list[Relation]:
    """The relations between entities as relations between what replaces them, by head and then tail."""
    starts = [start for start, _ in ranges]
    best: dict[tuple[int, int, str], float] = {}
    for index, relation in enumerate(relations):
        ends = (_expect_end(relation[role], entities, f"relations[{index}]['{role}']") for role in ("head", "tail"))
        head, tail = (bisect_right(starts, entity["start"]) - 1 for entity in ends)
        if head != tail:
            key = head, tail, relation["relation"]
            best[key] = max(best.get(key, relation["score"]), relation["score"])
    return [
        {"head": end_of(replaced[head], head), "tail": end_of(replaced[tail], tail), "relation": name, "score": score}
        for (head, tail, name), score in sorted(best.items(), key=lambda item: item[0][:2])
    ]


def _expect_end(end: RelationEnd, entities: Sequence[Entity], place: str) -> Entity:
    """The entity that an end of a relation is."""
    number = end["entity_idx"]
    entity = entities[number] if 0 <= number < len(entities) else None
    if entity is None or (entity["start"], entity["end"]) != (end["start"], end["end"]):
        raise ValueError(
            f"{place} is entity {number} at {end['start']}..{end['end']}, which is not among the {len(entities)} "
            "entities: give all entities that the relations were found with, in their order"
        )
    return entity


def _precedence(entity: Mapping[str, Any]) -> tuple[int, float]:
    return entity["end"] - entity["start"], entity["score"]


def _as_bytes(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
