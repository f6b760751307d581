"""What the commands read: texts as arguments, lines and files, and labels."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

Labels = list[str] | dict[str, str]

_BLOCK = 4096  # rows read at a time
# A bracket with a string, or nothing, behind it; a line such as "[PER] a person" is a label.
_MEANT_AS_JSON = re.compile(r"""\s*[\[{]\s*(["'\n]|$)""")


class InputError(ValueError):
    """What the user gave cannot be read; the message says where and what is expected."""


@dataclass(frozen=True)
class WantedLabels:
    """What to look for.

    Attributes:
        labels: names, or a mapping of name to description.
        thresholds: of labels that have one of their own.
    """

    labels: Labels
    thresholds: dict[str, float]

    @property
    def names(self) -> list[str]:
        """The labels' names, in order."""
        return list(self.labels)


def read_labels(given: Sequence[str], file: Path | None) -> WantedLabels:
    """Returns labels from repeated, comma-separated options, or from a file.

    Raises:
        InputError: there is none, or the file holds something else.
    """
    wanted = WantedLabels(split_commas(given), {})
    if file is not None:
        if wanted.labels:
            raise InputError("--labels and --labels-file are both given: name the labels in one place")
        wanted = _read_labels_file(file)
        if not wanted.labels:
            raise InputError(f"{file} names no labels: expected one a line, or a JSON list or object")
    if given and len(wanted.labels) == 1 and ";" in wanted.names[0]:
        warnings.warn(f"{wanted.names[0]!r} is one label: several are parted by commas", stacklevel=2)
    if not wanted.labels:
        raise InputError("no labels: name what to look for, such as --labels person,city")
    return wanted


def read_relations(
    given: Sequence[str] | None, adjacency_threshold: float | None, relation_threshold: float | None
) -> list[str] | None:
    """Returns relations from repeated, comma-separated options; None where none are asked for.

    Raises:
        InputError: the options hold no name, or thresholds of relations are given alone.
    """
    relations = None if given is None else split_commas(given)
    if relations is not None and not relations:
        raise InputError('--relations names none: say what to look for, such as --relations "works for, born in"')
    if relations is None and not (adjacency_threshold is None and relation_threshold is None):
        raise InputError("--adjacency-threshold and --relation-threshold belong to --relations")
    return relations


def read_texts(
    source: str, text_column: str, *, limit: int | None = None, input_format: str | None = None
) -> list[str]:
    """The first texts of what a job would read: a file, a folder, a glob or, named "-", standard input.

    Raises:
        InputError: a row has no text.
        JobInputError: the input cannot be read, or has no such column.
        FileNotFoundError: nothing goes by this name.
        ImportError: pyarrow is missing; names the extra that brings it.
    """
    from gliner_fast.jobs.inputs import find_inputs, name_of
    from gliner_fast.jobs.sources import RowReader, Selection

    texts: list[str] = []
    with closing(RowReader(find_inputs([source], input_format), Selection(text_column, columns=()))) as reader:
        while limit is None or len(texts) < limit:
            block = reader.read(_BLOCK if limit is None else min(_BLOCK, limit - len(texts)))
            for reject in block.rejects:
                raise InputError(f"{name_of(reject.file)}, line {reject.line}: {reject.reason}")
            if not block.count:
                break
            texts += block.texts
    return texts


def split_commas(given: Sequence[str]) -> list[str]:
    """The names in repeated, comma-separated options.

    Raises:
        InputError: one is not UTF-8.
    """
    named = [name.strip() for option in given for name in option.split(",")]
    for name in named:
        _expect_whole_characters(name, "an option")
    return [name for name in named if name]


def _expect_whole_characters(name: str, place: object) -> None:
    """Refuses halves of characters: of bytes that are no UTF-8, or escaped in JSON."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{place}: {name!r} is not UTF-8, and no model can read it: write it in UTF-8") from error


def _read_labels_file(file: Path) -> WantedLabels:
    try:
        content = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8: {error.reason} at byte {error.start + 1}") from error
    is_json = file.suffix.lower() == ".json"
    if is_json or content.lstrip().startswith(("[", "{")):  # JSON by another name
        try:
            labels = json.loads(content)
        except RecursionError as error:
            raise InputError(
                f"{file} is nested deeper than JSON is read: expected a list or object of labels"
            ) from error
        except ValueError as error:  # of JSON, or a number of more than 4,300 digits
            if is_json or _MEANT_AS_JSON.match(content) or not isinstance(error, json.JSONDecodeError):
                raise InputError(f"{file} is not JSON ({error}): expected a JSON list or object of labels") from error
        else:
            return _read_json_labels(labels, file)
    return WantedLabels([line.strip() for line in content.splitlines() if line.strip()], {})


def _read_json_labels(labels: Any, file: Path) -> WantedLabels:
    if isinstance(labels, list) and all(isinstance(label, str) for label in labels):
        _expect_words(labels, file)
        return WantedLabels(labels, {})
    if not isinstance(labels, dict):
        raise InputError(f'{file}: expected ["person", ...] or {{"person": "a human being, by name", ...}}')
    descriptions: dict[str, str] = {}
    thresholds: dict[str, float] = {}
    for name, value in labels.items():
        fields = {"description": value} if isinstance(value, str) else value
        if not isinstance(fields, dict) or fields.keys() - {"description", "threshold"}:
            raise InputError(
                f"{file}, label {name!r}: expected a description, or an object with `description` and `threshold`"
            )
        description = fields.get("description", name)
        if not isinstance(description, str):
            raise InputError(f"{file}, label {name!r}: its description is no string")
        descriptions[name] = description
        if "threshold" in fields:
            thresholds[name] = _check_threshold(fields["threshold"], f"{file}, label {name!r}")
    _expect_words([*descriptions, *descriptions.values()], file)
    names = {description: name for name, description in reversed(descriptions.items())}
    for name, description in descriptions.items():
        if names[description] != name:
            raise InputError(
                f"{file}: the labels {names[description]!r} and {name!r} are both described as {description!r}: the "
                "model tells labels apart by their descriptions"
            )
    has_descriptions = any(name != description for name, description in descriptions.items())
    return WantedLabels(descriptions if has_descriptions else list(descriptions), thresholds)


def _expect_words(names: Sequence[str], file: Path) -> None:
    if not all(name.strip() for name in names):
        raise InputError(f"{file}: a label or a description is empty: the model looks for what it says")
    for name in names:
        _expect_whole_characters(name, file)


def _check_threshold(value: object, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise InputError(f"{place}: threshold is {value!r}: expected a number from 0 to 1")
    return float(value)


def read_thresholds(threshold: float, given: Sequence[str], wanted: WantedLabels) -> float | dict[str, float]:
    """Returns one threshold for all labels, or one for each if some label has its own (`name=0.7`).

    Raises:
        InputError: not of the form, not between 0 and 1, or for a label that is not asked for.
    """
    own = dict(wanted.thresholds)
    for option in given:
        label, separator, number = option.rpartition("=")
        try:
            own[label] = float(number)
        except ValueError:
            separator = ""
        if not separator or not 0 <= own.get(label, -1) <= 1:
            raise InputError(f"--label-threshold {option!r}: expected LABEL=NUMBER, such as person=0.7, from 0 to 1")
        if label not in wanted.labels:
            raise InputError(f"--label-threshold {option!r}: {label!r} is not among the labels asked for")
    return {label: own.get(label, threshold) for label in wanted.labels} if own else threshold


def read_lines(source: BinaryIO, name: str) -> Iterator[str]:
    """Yields lines of UTF-8 as they come.

    Raises:
        InputError: a line that cannot be read; says which and why.
    """
    for number, raw in enumerate(source, start=1):
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:  # noqa: PERF203  # each line has a number
            raise InputError(f"{name}, line {number} is not UTF-8: {error.reason} at byte {error.start + 1}") from error


def open_lines(texts: Sequence[str]) -> BinaryIO | None:
    """Standard input, where no text is given; None where some are.

    Raises:
        InputError: no text, and nobody pipes any in.
    """
    if texts:
        return None
    if sys.stdin.isatty():
        raise InputError('no text: give some, such as gliner-fast predict "Ada was born in London."')
    return sys.stdin.buffer


def in_chunks(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Yields lists of `size` texts, the last one shorter."""
    remaining = iter(texts)
    while chunk := list(islice(remaining, size)):
        yield chunk
