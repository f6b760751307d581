"""Examples -> files that `read_examples` and others read."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

from gliner_fast.annotated.example import DataError, Example
from gliner_fast.surrogates import has_surrogates
from gliner_fast.whole_files import write_whole

OutputFormat = Literal["gliner", "conll", "offsets"]


def write_examples(examples: Sequence[Example], path: Path, format: OutputFormat) -> None:  # noqa: A002
    """Writes a file, whole or not at all; a name that ends in .gz makes it gzipped.

    Raises:
        DataError: as `dump_examples`.
        OSError: it cannot be written; names the file.
    """
    content = dump_examples(examples, format)
    write_whole(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def dump_examples(examples: Sequence[Example], format: OutputFormat) -> bytes:  # noqa: A002
    """The content of a file of a format, in UTF-8.

    "gliner" keeps all. "conll" (IOB2, parted by tabs) and "offsets" (words joined by one blank) have no place for
    `labels`, `negatives` and relations; read back, the words of "offsets" are those of this package's own splitter.

    Raises:
        DataError: "conll" cannot say it: spans overlap, or a word or label holds a tab or a line break, begins or ends
            with a blank, or holds half a character, or a word is -DOCSTART-, which parts documents.
    """
    lines = (line for number, example in enumerate(examples, start=1) for line in _lines(example, number, format))
    text = "".join(f"{line}\n" for line in lines)
    if text.startswith("\ufeff"):  # of a word; the first one of a file is taken for a byte order mark
        text = "\ufeff" + text
    return text.encode()


def _lines(example: Example, number: int, format: OutputFormat) -> list[str]:  # noqa: A002
    try:
        return list(_LINES[format](example))
    except DataError as error:
        raise DataError(f"example {number}: {error}") from None


def _gliner_lines(example: Example) -> Iterator[str]:
    record: dict[str, object] = {
        "tokenized_text": example.words,
        "ner": [[start, end - 1, label] for start, end, label in example.spans],
    }
    if example.labels is not None:
        record["ner_labels"] = example.labels
    if example.negatives is not None:
        record["ner_negatives"] = example.negatives
    if example.relations or example.relation_labels is not None:
        record["relations"] = example.relations
    if example.relation_labels is not None:
        record["rel_labels"] = example.relation_labels
    yield _json(record)


def _offsets_lines(example: Example) -> Iterator[str]:
    starts, at = [], 0
    for word in example.words:
        starts.append(at)
        at += len(word) + 1
    entities = [
        [starts[start], starts[end - 1] + len(example.words[end - 1]), label] for start, end, label in example.spans
    ]
    yield _json({"text": " ".join(example.words), "entities": entities})


def _json(record: dict[str, object]) -> str:
    """One line; one that holds lone surrogates, which UTF-8 has not, with escapes."""
    line = json.dumps(record, ensure_ascii=False)
    return json.dumps(record) if has_surrogates(line) else line


def _conll_lines(example: Example) -> Iterator[str]:
    """Raises DataError, without the example's number, for what conll has no way to say."""
    tags = ["O"] * len(example.words)
    spans = sorted(set(example.spans))
    for one, other in pairwise(spans):
        if other[0] < one[1]:
            raise DataError(f"the spans {one} and {other} overlap, which conll cannot say")
    for start, end, label in spans:
        tags[start:end] = [f"B-{label}", *[f"I-{label}"] * (end - start - 1)]
    for word, tag in zip(example.words, tags, strict=True):
        if set("\t\r\n") & set(word + tag):
            raise DataError(f"{word!r} with {tag!r} holds a tab or a line break; conll has no such words")
        if has_surrogates(word + tag):
            raise DataError(
                f"{word!r} with {tag!r} holds half a character (a lone surrogate), which no file of text can hold"
            )
        if word == "-DOCSTART-":
            raise DataError(f"the word {word!r} parts documents in conll, and would not be read again")
        for what, text in (("word", word), ("tag", tag)):
            if text != text.strip():
                raise DataError(f"the {what} {text!r} begins or ends with a blank, which conll does not keep")
        yield f"{word}\t{tag}"
    yield ""


_LINES: dict[OutputFormat, Callable[[Example], Iterator[str]]] = {
    "gliner": _gliner_lines,
    "offsets": _offsets_lines,
    "conll": _conll_lines,
}
