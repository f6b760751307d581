"""Records, dicts as JSON has them -> examples: GLiNER's own form, character offsets, and tags."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gliner_fast.annotated.example import DataError, Example, Relation, Report, Span
from gliner_fast.annotated.readers.tags import is_tag, spans_of_tags
from gliner_fast.errors import count, listed
from gliner_fast.words import WordTriples, split_words, word_span_finder

_OFFSET_KEYS = ("entities", "spans", "label", "labels")
_WORD_KEYS = ("tokens", "words")
_RELATION_KEYS = ("relations", "rel_labels", "rel_negatives")  # of the last nothing is read
_TAG_KEYS = ("ner_tags", "tags", "labels")


@dataclass
class RecordOptions:
    """What is forgiven; `read_examples` describes it.

    Attributes:
        ignore_keys: keys that are passed over.
        misaligned: what becomes of a character span that does not begin and end with a word.
        passes_unknown_keys: whether all keys that the format does not have are passed over.
        splitter: what gives a text's words, where a record has none; None for the default one.
        relations: whether relations between entities are read; else their keys are unknown.
        passed_keys: those that were.
        dropped: how many of them were left out.
        first_dropped: where the first of them was, and what.
    """

    ignore_keys: frozenset[str] = frozenset()
    misaligned: Literal["error", "drop"] = "error"
    passes_unknown_keys: bool = False
    splitter: WordTriples | None = None
    relations: bool = False
    passed_keys: dict[str, None] = field(default_factory=dict, init=False)
    dropped: int = field(default=0, init=False)
    first_dropped: str = field(default="", init=False)

    def warn_of_dropped(self, name: str) -> None:
        """Tells how many spans of a file were left out."""
        if self.dropped:
            warnings.warn(
                f"{name}: {count('span', self.dropped)} left out for not beginning and ending with a word, such as "
                f"{self.first_dropped}",
                stacklevel=3,
            )

    def warn_of_passed_keys(self, name: str) -> None:
        """Tells which keys of some data were passed over unasked."""
        if self.passed_keys:
            warnings.warn(
                f"{name}: keys that are not read: {listed(self.passed_keys)}",
                stacklevel=3,
            )


_Reader = Callable[[Mapping[str, Any], str, RecordOptions], Example]


def read_records(
    records: Iterable[tuple[str, Any]],
    options: RecordOptions,
    form: str | None = None,
    *,
    report: Report,
) -> Iterator[Example]:
    """Reads records that are all of one form.

    Args:
        records: places, for messages, and values.
        options: what is forgiven.
        form: "gliner", "offsets" or "tags"; None for that of the first record.
        report: takes what is wrong with a record, such as that it is of another form than those before.

    Raises:
        DataError: by `report`.
    """
    first_place = None
    for place, value in records:
        try:
            record = _without(options.ignore_keys, _as_mapping(value, place))
            own = _recognise(record)
            if form is None:
                form, first_place = own, place
            _check_form(own, form, place, first_place)
            example = _reader(form, record, place)(record, place, options)
        except DataError as error:  # noqa: PERF203  # each record has its own
            report(error)
        else:
            yield example


def _check_form(own: str | None, form: str | None, place: str, first_place: str | None) -> None:
    if own is not None and own != form:
        before = f"asked for is {form!r}" if first_place is None else f"{first_place} has {form!r}"
        raise DataError(f"{place}: a record of the format {own!r}, and {before}: one file, one format")


def read_record(value: Any, place: str, options: RecordOptions) -> Example:
    """Reads one record of any form."""
    record = _without(options.ignore_keys, _as_mapping(value, place))
    return _reader(_recognise(record), record, place)(record, place, options)


def _as_mapping(value: Any, place: str) -> Mapping[str, Any]:
    if isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[1], dict):
        return {"text": value[0], **value[1]}  # spaCy's older form
    if not isinstance(value, Mapping):
        raise DataError(f"{place}: a {type(value).__name__}: expected an object such as " + _EXAMPLE)
    return value


def _without(keys: Collection[str], record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Not passed over later: what stands beside the entities may have the name that another format has for them."""
    return {key: value for key, value in record.items() if key not in keys} if keys else record


_EXAMPLE = '{"tokenized_text": ["Ada", "Lovelace", "sang"], "ner": [[0, 1, "person"]]}'


def _recognise(record: Mapping[str, Any]) -> str | None:
    if "tokenized_text" in record or "ner" in record:
        return "gliner"
    if any(key in record for key in _WORD_KEYS) and any(key in record for key in _TAG_KEYS):
        return "tags"
    if "text" in record:
        return "offsets"
    return None


def _reader(form: str | None, record: Mapping[str, Any], place: str) -> _Reader:
    if form is None:
        keys = listed(record) or "none"
        raise DataError(f"{place}: no format has these keys ({keys}): expected an object such as " + _EXAMPLE)
    return _READERS[form]


def _read_gliner(record: Mapping[str, Any], place: str, options: RecordOptions) -> Example:
    optional = ["ner_labels", "ner_negatives", "text", *(_RELATION_KEYS if options.relations else ())]
    _expect_keys(record, place, options, ("tokenized_text", "ner"), optional)
    words = _read_words(record["tokenized_text"], f"{place}: tokenized_text")
    spans: list[Span] = []
    for index, value in enumerate(_expect_list(record["ner"], f"{place}: ner")):
        where = f"{place}: ner[{index}]"
        first, last, label = _read_triple(value, where)
        if first > last:
            raise DataError(f"{where} is {_shown(value)}: it ends before it begins; the last word counts in")
        if not 0 <= first <= last < len(words):
            raise DataError(
                f"{where} is {_shown(value)}, and the text has {len(words)} words, 0 to {len(words) - 1}; the last "
                "word of a span counts in"
            )
        spans.append((first, last + 1, label))
    labels = _read_labels(record, "ner_labels", place)
    negatives = _read_labels(record, "ner_negatives", place)
    for index, (_, _, label) in enumerate(spans):
        if labels is not None and label not in labels:
            raise DataError(f"{place}: ner[{index}] has the label {label!r}, which is not among the ner_labels")
        if negatives is not None and label in negatives:
            raise DataError(f"{place}: ner[{index}] has the label {label!r}, which is among the ner_negatives")
    relations, relation_labels = _read_relations(record, place, len(spans)) if options.relations else ((), None)
    return Example(words, tuple(spans), labels, negatives, relations, relation_labels)


def _read_relations(
    record: Mapping[str, Any], place: str, span_count: int
) -> tuple[tuple[Relation, ...], tuple[str, ...] | None]:
    labels = _read_labels(record, "rel_labels", place)
    relations: list[Relation] = []
    for index, value in enumerate(_expect_list(record.get("relations") or [], f"{place}: relations")):
        where = f"{place}: relations[{index}]"
        head, tail, label = _read_triple(value, where, form='[head, tail, relation], such as [0, 1, "works for"]')
        if not (0 <= head < span_count and 0 <= tail < span_count):
            raise DataError(
                f"{where} is {_shown(value)}, and ner has {count('entity', span_count)}: expected the places of head "
                "and tail among them, from 0"
            )
        if labels is not None and label not in labels:
            raise DataError(f"{where} is {label!r}, which is not among the rel_labels")
        relations.append((head, tail, label))
    return tuple(relations), labels


def _read_offsets(record: Mapping[str, Any], place: str, options: RecordOptions) -> Example:
    key = _one_of(record, _OFFSET_KEYS, place)
    _expect_keys(record, place, options, ("text", key))
    text = record["text"]
    if not isinstance(text, str):
        raise DataError(f"{place}: text is {_shown(text)}: expected a string")
    split = split_words([text], splitter=options.splitter)
    (words,) = split.read.to_lists()
    if not words:
        raise DataError(f"{place}: text has no words: {text!r}")
    find_words = word_span_finder(split.words.starts.tolist(), split.words.ends.tolist())
    spans: list[Span] = []
    for index, value in enumerate(_expect_list(record[key], f"{place}: {key}")):
        where = f"{place}: {key}[{index}]"
        start, end, label = _read_triple(value, where, options)
        if not 0 <= start < end <= len(text):
            raise DataError(
                f"{where} is {_shown(value)}, and the text has {len(text)} characters: expected 0 <= start < end <= "
                f"{len(text)}, the end excluded"
            )
        found = find_words(start, end)
        if found is not None:
            spans.append((*found, label))
        elif options.misaligned == "error":
            raise DataError(
                f"{where} is {text[start:end]!r}, which does not begin and end with a word of "
                f"{text[max(0, start - 20) : end + 20]!r}: correct it, or leave such spans out by misaligned='drop', "
                "or by --misaligned drop of evaluate, calibrate and data (convert)"
            )
        else:
            options.dropped += 1
            options.first_dropped = options.first_dropped or f"{text[start:end]!r} ({where})"
    return Example(tuple(words), tuple(spans))


def _read_tags(record: Mapping[str, Any], place: str, options: RecordOptions) -> Example:
    word_key, tag_key = _one_of(record, _WORD_KEYS, place), _one_of(record, _TAG_KEYS, place)
    _expect_keys(record, place, options, (word_key, tag_key), ("text",))
    words = _read_words(record[word_key], f"{place}: {word_key}")
    tags = _expect_list(record[tag_key], f"{place}: {tag_key}")
    if len(tags) != len(words):
        raise DataError(f"{place}: {len(tags)} {tag_key} for {len(words)} {word_key}")
    for index, tag in enumerate(tags):
        if not (isinstance(tag, str) and is_tag(tag)):
            raise DataError(
                f"{place}: {tag_key}[{index}] is {_shown(tag)}: expected a string, O or such as B-person; the names "
                "of numbers are known only to a dataset with ClassLabel features"
            )
    return Example(words, spans_of_tags(tags))


_READERS: dict[str, _Reader] = {"gliner": _read_gliner, "offsets": _read_offsets, "tags": _read_tags}


def _expect_keys(
    record: Mapping[str, Any],
    place: str,
    options: RecordOptions,
    required: Sequence[str],
    optional: Sequence[str] = (),
) -> None:
    missing = [key for key in required if key not in record]
    if missing:
        raise DataError(f"{place}: {missing[0]!r} is missing; its keys are {listed(record)}")
    unknown = [key for key in record if key not in required and key not in optional and key not in options.ignore_keys]
    if options.passes_unknown_keys:
        options.passed_keys |= dict.fromkeys(unknown)
    elif unknown:
        raise DataError(
            f"{place}: unknown key {unknown[0]!r}: expected {', '.join([*required, *optional])}; to pass over it, name "
            f"it in ignore_keys (--ignore-key {unknown[0]}), for training by `gliner-fast data convert`"
        )


def _one_of(record: Mapping[str, Any], keys: Sequence[str], place: str) -> str:
    present = [key for key in keys if key in record]
    if len(present) != 1:
        found = " and ".join(map(repr, present)) or "none"
        hint = f"; to pass over one, name it in ignore_keys (--ignore-key {present[-1]})" if present else ""
        raise DataError(f"{place}: {found} of {listed(keys)}: expected one of them{hint}")
    return present[0]


def _read_words(value: Any, place: str) -> tuple[str, ...]:
    words = _expect_list(value, place)
    if not words:
        raise DataError(f"{place} is empty: an example has at least one word")
    for index, word in enumerate(words):
        if not isinstance(word, str) or not word:  # a blank is a word of some splitters
            raise DataError(f"{place}[{index}] is {_shown(word)}: expected a word")
    return tuple(words)


def _read_triple(
    value: Any,
    place: str,
    options: RecordOptions | None = None,
    form: str = '[start, end, label], such as [0, 1, "person"]',
) -> tuple[int, int, str]:
    """Two whole numbers and a label of a list, which `form` describes; with options, of an object too."""
    if options is not None and isinstance(value, Mapping):
        # What gliner-fast extract and annotation tools put beside them.
        _expect_keys(value, place, options, ("start", "end", "label"), ("text", "score", "id"))
        value = [value["start"], value["end"], value["label"]]
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        raise DataError(f"{place} is {_shown(value)}: expected {form}")
    start, end, label = _whole_number(value[0]), _whole_number(value[1]), value[2]
    if start is None or end is None:
        raise DataError(f"{place} is {_shown(value)}: expected whole numbers for the first two: {form}")
    if not isinstance(label, str) or not label.strip():
        raise DataError(
            f"{place} is {_shown(value)}: its label is {_shown(label)}, expected a string that is not empty"
        )
    return start, end, label


def _whole_number(value: Any) -> int | None:
    """A whole number of whatever make, numpy's too; None for what is none."""
    if isinstance(value, bool) or getattr(value, "dtype", None) == "bool":  # numpy's, which numpy 1 takes for a number
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _read_labels(record: Mapping[str, Any], key: str, place: str) -> tuple[str, ...] | None:
    if record.get(key) is None:
        return None
    labels = _expect_list(record[key], f"{place}: {key}")
    for index, label in enumerate(labels):
        if not isinstance(label, str) or not label.strip():
            raise DataError(f"{place}: {key}[{index}] is {_shown(label)}: expected a string that is not empty")
    return tuple(labels)


def _expect_list(value: Any, place: str) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        raise DataError(f"{place} is {_shown(value)}: expected a list")
    return value


def _shown(value: Any) -> str:
    try:
        shown = repr(value)
    except RecursionError:
        return "a value that is nested deeply"
    return shown if len(shown) <= 80 else shown[:77] + "..."
