"""Files of annotated sentences -> examples, whatever the format; what is wrong is told by file and line."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from gliner_fast.annotated.example import DataError, Example, Report
from gliner_fast.annotated.readers import columns, hub, json_values, records
from gliner_fast.annotated.readers.records import RecordOptions
from gliner_fast.annotated.readers.source import first_bytes, looks_like_json
from gliner_fast.errors import listed
from gliner_fast.words import WordTriples

Format = Literal["gliner", "offsets", "tags", "conll", "dataset"]


def read_examples(
    path: str | os.PathLike[str],
    *,
    format: Format | None = None,  # noqa: A002  # what everybody calls it
    ignore_keys: Iterable[str] = (),
    misaligned: Literal["error", "drop"] = "error",
    word_column: int = 0,
    tag_column: int = -1,
    report: Report | None = None,
    splitter: WordTriples | None = None,
    relations: bool = False,
) -> list[Example]:
    """Reads the examples of one file, all in one format.

    Formats, recognised by content; JSON comes as lines or as one list, and any file may be gzipped:

    * "gliner": `{"tokenized_text": [...], "ner": [[first, last, label], ...]}`, the last word INCLUDED; if wanted
      `ner_labels`, `ner_negatives` and `text`, which is not read; and see `relations`;
    * "offsets": `{"text": ..., "entities": [[start, end, label], ...]}`, counted in characters, end excluded, as
      spaCy, doccano and `gliner-fast extract` have it; also `spans` or `label`, objects instead of triples, and
      spaCy's older `[text, {"entities": ...}]`. The words are those of `splitter`;
    * "tags": `{"tokens": [...], "ner_tags": ["B-person", ...]}`, also `words`, and `tags` or `labels`;
    * "conll": a word and its tag a line, blank lines between sentences; IOB1, IOB2 (BIO), BIOES and BILOU;
    * "dataset": a folder of Hugging Face `datasets` (`save_to_disk`) or a Parquet file, in columns as above; tags may
      be ClassLabel numbers, and other columns are passed over.

    Args:
        path: the file or folder.
        format: what it is, instead of recognising it.
        ignore_keys: further keys of JSON records to pass over; without them an unknown key is an error.
        misaligned: what becomes of a character span that does not begin and end with a word. "drop" leaves it out and
            warns with their number.
        word_column: of the word in conll, from 0; negative ones count from the end.
        tag_column: of the tag, likewise.
        report: takes what is wrong, and the record (in conll the sentence) is left out; None: the first fault is
            raised. Behind broken gzip, UTF-8 or JSON lists, or a number of a tag without a name, nothing is read.
        splitter: of a model, `model.data_processor.custom_splitter`; None for the default one.
        relations: read `relations` of "gliner" in JSON, too, `[[head, tail, relation], ...]` by the places of both
            entities in `ner`, and `rel_labels`; pass over `rel_negatives`. Else these keys are unknown.

    Raises:
        DataError: something in it is wrong, and `report` does not take it; the message names file and line. Also where
            nothing in it can be read, or it is CSV.
        ValueError: `format` is none of these.
        ImportError: a "dataset" is to be read, and `datasets` is not installed.
        OSError: it cannot be read.
    """
    if format is not None and format not in get_args(Format):
        raise ValueError(f"format is {format!r}: expected one of {', '.join(get_args(Format))}")
    path = Path(path)
    options = RecordOptions(frozenset(ignore_keys), misaligned, splitter=splitter, relations=relations)
    read: Iterator[Example]
    faults = 0

    def take_fault(error: DataError) -> None:
        nonlocal faults
        faults += 1
        if report is None:
            raise error
        report(error)

    if format == "dataset" or (format is None and (path.is_dir() or first_bytes(path, 4) == b"PAR1")):
        read = records.read_records(hub.read_rows(path), options, report=take_fault)
    elif format == "conll" or (format is None and not looks_like_json(path)):
        if format is None and Path(path.name.lower().removesuffix(".gz")).suffix == ".csv":
            raise DataError(
                f"{path}: CSV is not read: expected JSON, conll columns, or a dataset in Parquet or a folder "
                "(gliner-fast data --help shows each); if it is conll, say so: format='conll' (--format conll)"
            )
        read = columns.read_columns(path, word_column, tag_column, report=take_fault)
    else:
        values = json_values.read_values(path, take_fault)
        read = records.read_records(values, options, format, report=take_fault)
    examples: list[Example] = []
    try:
        examples.extend(read)
    except DataError as error:
        if report is None or not (examples or faults):
            raise
        take_fault(DataError(f"{error}; nothing behind it is read"))
    if not examples and not faults:
        raise DataError(f"{path} holds no examples")
    options.warn_of_dropped(str(path))
    return examples


def examples_from_records(
    data: Iterable[Any], name: str = "data", *, splitter: WordTriples | None = None, relations: bool = False
) -> list[Example]:
    """Reads examples that are in memory: dicts of the JSON formats of `read_examples`, or rows of a dataset.

    Args:
        data: the records; an `Example` stands for itself. Keys that no format has are passed over, and told.
        name: of the data, for messages.
        splitter: as in `read_examples`.
        relations: likewise.

    Raises:
        DataError: something is wrong; the message says at which index.
    """
    options = RecordOptions(passes_unknown_keys=True, splitter=splitter, relations=relations)

    def place_of(index: int) -> str:
        return f"{name}[{index}]"

    examples = [
        record if isinstance(record, Example) else records.read_record(record, place_of(index), options)
        for index, record in enumerate(hub.named_tags(data, place_of))
    ]
    options.warn_of_passed_keys(name)
    return examples


def labels_of(examples: Sequence[Example]) -> list[str]:
    """All labels that occur in some examples, the commonest first, ties in order of appearance."""
    return _commonest_first(label for example in examples for _, _, label in example.spans)


def relations_of_data(examples: Sequence[Example]) -> list[str]:
    """All relations that occur in some examples, in that order, too."""
    return _commonest_first(relation for example in examples for _, _, relation in example.relations)


def _commonest_first(names: Iterable[str]) -> list[str]:
    return [name for name, _ in Counter(names).most_common()]


def draw_examples(examples: Sequence[Example], count: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Draws some examples, and says which ones are left to test on.

    The draws of one seed are nested: of 100 and of 1,000, the 100 are among the 1,000.

    Returns:
        The drawn ones, and those of the others whose words were not drawn with another example.

    Raises:
        ValueError: there are fewer than `count`.
    """
    if count > len(examples):
        raise ValueError(f"{count:,} examples are to be drawn, and there are {len(examples):,}")
    order = list(range(len(examples)))
    random.Random(f"draw {seed}").shuffle(order)  # noqa: S311  # no secret
    drawn = [examples[index] for index in order[:count]]
    known = {example.words for example in drawn}
    rest = [examples[index] for index in sorted(order[count:]) if examples[index].words not in known]
    return drawn, rest


def rename_labels(examples: Sequence[Example], names: Mapping[str, str]) -> list[Example]:
    """The same examples with other labels, such as {"PER": "person"}: a model reads what they say.

    Raises:
        ValueError: a label to be renamed occurs nowhere.
    """

    def renamed(labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if labels is None else tuple(dict.fromkeys(names.get(label, label) for label in labels))

    known = {label for own in examples for label in (*(own.labels or ()), *(own.negatives or ()))}
    known.update(labels_of(examples))
    unknown = [label for label in names if label not in known]
    if unknown:
        raise ValueError(f"no example has the label {unknown[0]!r}; there are {listed(sorted(known))}")
    made = []
    for example in examples:
        spans = tuple((start, end, names.get(label, label)) for start, end, label in example.spans)
        found = {label for _, _, label in spans}
        negatives = renamed(example.negatives)
        if negatives is not None:  # one whose new name something has is none any more
            negatives = tuple(label for label in negatives if label not in found)
        made.append(replace(example, spans=spans, labels=renamed(example.labels), negatives=negatives))
    return made
