"""What the commands read: texts as arguments, lines or JSON lines, and labels."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

Row = dict[str, Any]
Labels = list[str] | dict[str, str]


class InputError(ValueError):
    """What the user gave cannot be read; the message says where and what is expected."""


def read_labels(given: Sequence[str], file: Path | None) -> Labels:
    """Returns labels from repeated, comma-separated options, or from a JSON file.

    Raises:
        InputError: there is none, or the file holds something else.
    """
    named = [label.strip() for option in given for label in option.split(",")]
    labels: Labels = [label for label in named if label]
    if file is not None:
        if labels:
            raise InputError("--labels and --labels-file are both given: name the labels in one place")
        labels = _read_labels_file(file)
    if not labels:
        raise InputError("no labels: name what to look for, such as --labels person,city")
    return labels


def _read_labels_file(file: Path) -> Labels:
    try:
        labels = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{file} is not JSON ({error}): expected a list of labels") from error
    values = list(labels.values()) if isinstance(labels, dict) else labels
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InputError(f'{file}: expected ["person", ...] or {{"person": "a human being, by name", ...}}')
    return labels  # type: ignore[no-any-return]


def read_thresholds(threshold: float, given: Sequence[str], labels: Labels) -> float | dict[str, float]:
    """Returns one threshold for all labels, or one for each if some label has its own (`name=0.7`).

    Raises:
        InputError: not of the form, not between 0 and 1, or for a label that is not asked for.
    """
    own: dict[str, float] = {}
    for option in given:
        label, separator, number = option.rpartition("=")
        try:
            own[label] = float(number)
        except ValueError:
            separator = ""
        if not separator or not 0 <= own.get(label, -1) <= 1:
            raise InputError(f"--label-threshold {option!r}: expected LABEL=NUMBER, such as person=0.7, from 0 to 1")
        if label not in labels:
            raise InputError(f"--label-threshold {option!r}: {label!r} is not among the labels asked for")
    return {label: own.get(label, threshold) for label in labels} if own else threshold


def read_rows(
    texts: Sequence[str], source: BinaryIO | None, *, name: str, is_jsonl: bool, text_field: str
) -> Iterator[Row]:
    """Yields one row for each text, in order; a row of JSON lines keeps all its fields.

    Args:
        texts: given as arguments; if there are any, nothing is read.
        source: lines of UTF-8, read as they are asked for.
        name: of the source, for messages.
        is_jsonl: whether each line is a JSON object; blank lines are passed over then.
        text_field: the field that holds the text.

    Raises:
        InputError: a line that cannot be read; says which and why.
    """
    if source is None:
        yield from ({text_field: text} for text in texts)
        return
    for number, raw in enumerate(source, start=1):
        place = f"{name}, line {number}"
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InputError(f"{place} is not UTF-8: {error.reason} at byte {error.start + 1}") from error
        if not is_jsonl:
            yield {text_field: line}
        elif line.strip():
            yield _read_row(line, place, text_field)


def _read_row(line: str, place: str, text_field: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{place} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise InputError(f"{place} holds a JSON {type(row).__name__}: expected an object with a field {text_field!r}")
    if not isinstance(row.get(text_field), str):
        fields = ", ".join(map(repr, row)) or "none"
        raise InputError(f"{place} has no string in {text_field!r} (its fields: {fields}): name it with --text-field")
    return row


def open_source(texts: Sequence[str], file: str | None) -> BinaryIO | None:
    """Opens what texts are read from: a file, or stdin for "-" and where nothing else is given; None: the arguments.

    Raises:
        InputError: no texts, no file, and nobody pipes anything in.
    """
    if texts:
        if file is not None:
            raise InputError("texts are given as arguments and by --input: give one of the two")
        return None
    if file not in {None, "-"}:
        return Path(file).open("rb")
    if file is None and sys.stdin.isatty():
        raise InputError('no text: give some, such as gliner-fast extract "Ada was born in London.", or --input FILE')
    return sys.stdin.buffer


def in_chunks(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Yields lists of `size` rows, the last one shorter."""
    chunk: list[Row] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
