"""`gliner-fast data`: looks into files of annotated sentences, and turns one format into another."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gliner_fast.cli import options
from gliner_fast.cli.reading import InputError, split_commas
from gliner_fast.cli.showing import show_rows, tell
from gliner_fast.cli.writing import STDOUT, check_outputs, dump_json
from gliner_fast.errors import count

if TYPE_CHECKING:
    from gliner_fast.annotated.example import Example
    from gliner_fast.annotated.summary import Summary
    from gliner_fast.annotated.writers import OutputFormat

_MOST_FAULTS = 20  # told of one file, and those that are alike count as one
_MOST_PLACES = 3  # of further ones
# What tells faults of one kind apart.
_VALUES = re.compile(r"\[[^\]]*\]|\d+")

_HELP = r"""Look into annotated data, or convert it.

Data are files of annotated sentences; train, evaluate and calibrate read the
same. The format is recognised by its content; JSON comes as lines or as one
list, and any file may be gzipped.

gliner: ner is \[first, last, label], in words from 0, the last one INCLUDED

{"tokenized_text": ["Ada", "Lovelace", "sang"], "ner": \[\[0, 1, "person"]]}

offsets: \[start, end, label] in characters, the end excluded, as in spaCy

{"text": "Ada Lovelace sang", "entities": \[\[0, 12, "person"]]}

tags: one for each word, IOB1, BIO, BIOES or BILOU

{"tokens": ["Ada", "sang"], "ner_tags": ["B-person", "O"]}

conll: a word and its tag a line, blank lines between sentences

dataset: a folder of Hugging Face datasets (save_to_disk) or a Parquet file,
in columns as above

For models that find relations gliner's form may hold "relations", too,
\[head, tail, relation] by the places of both entities in ner, from 0; evaluate
scores them.
"""

data = typer.Typer(help=_HELP, no_args_is_help=True, rich_markup_mode="rich")

Format = Annotated[
    Literal["gliner", "offsets", "tags", "conll", "dataset"] | None,
    typer.Option("--format", help="Format of the data, where it is not recognised."),
]
IgnoreKey = Annotated[
    list[str] | None,
    typer.Option("--ignore-key", metavar="NAME", help="Key of JSON records to pass over; commas or repeated."),
]
Misaligned = Annotated[
    Literal["error", "drop"],
    typer.Option(help="Character spans that do not begin and end with a word: end here, or leave them out."),
]
WordColumn = Annotated[int, typer.Option(help="Of the word in conll, from 0; -1 is the last.")]
TagColumn = Annotated[int, typer.Option(help="Column of the tag in conll files.")]


def reader(
    format: Format,  # noqa: A002
    ignore_key: IgnoreKey,
    misaligned: Misaligned,
    word_column: WordColumn,
    tag_column: TagColumn,
) -> Callable[..., list[Example]]:
    """`read_examples` as these options have it.

    Raises:
        InputError: the name of a key is not UTF-8.
    """
    from gliner_fast.annotated.examples import read_examples

    return partial(
        read_examples,
        format=format,
        ignore_keys=split_commas(ignore_key or []),
        misaligned=misaligned,
        word_column=word_column,
        tag_column=tag_column,
        relations=True,
    )


@data.command()
def stats(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files, or folders of Hugging Face datasets.")],
    max_width: Annotated[int, typer.Option(min=1, help="Widest span in words that a model is to find.")] = 12,
    format: Format = None,  # noqa: A002
    ignore_key: IgnoreKey = None,
    misaligned: Misaligned = "error",
    word_column: WordColumn = 0,
    tag_column: TagColumn = -1,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count examples, words, spans and labels, and check every line.

    Lines that are wrong are told, those of one kind together, and 20 kinds of
    each file; the counts are of the others, and the exit code is then 2.

    [bold]gliner-fast data stats train.jsonl dev.conll[/bold]
    """
    from gliner_fast.annotated.summary import summarise

    read = reader(format, ignore_key, misaligned, word_column, tag_column)
    for file in files:
        file.stat()  # what is missing is told first
    summaries = {}
    is_sound = True
    for file in files:
        faults = _Faults(file)
        examples = read(file, report=faults.take)
        if faults.count:
            is_sound = False
            faults.tell()
        summaries[str(file)] = summarise(examples, max_width)
        if not json:
            _print_summary(str(file), summaries[str(file)])
    if json:
        print(dump_json({name: own.to_dict() for name, own in summaries.items()}))
    if not is_sound:
        raise typer.Exit(2)


@data.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A file, or a folder of a Hugging Face dataset.")],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file to write; .gz makes it gzipped, - is stdout.")
    ],
    to: Annotated[Literal["gliner", "conll", "offsets"], typer.Option(help="Format to write.")],
    rename: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="Another name for a label, such as PER=person; repeatable."),
    ] = None,
    overwrite: options.Overwrite = False,
    format: Format = None,  # noqa: A002
    ignore_key: IgnoreKey = None,
    misaligned: Misaligned = "error",
    word_column: WordColumn = 0,
    tag_column: TagColumn = -1,
) -> None:
    """Write annotated data in another format.

    Only gliner's own has a place for ner_labels, ner_negatives and relations;
    conll has none for spans that overlap, which is an error. Labels are read by the
    model, so let them be plain words.

    [bold]gliner-fast data convert train.conll train.jsonl --to gliner --rename PER=person --rename LOC=location[/bold]
    """
    names = _read_names(rename or [])
    check_outputs({"OUT": target}, [("IN", source)], overwrite=overwrite)

    from gliner_fast.annotated.examples import rename_labels

    read = reader(format, ignore_key, misaligned, word_column, tag_column)
    examples = rename_labels(read(source), names)
    _write(examples, target, to)
    spans = sum(len(example.spans) for example in examples)
    tell(f"{target}: {count('example', len(examples))}, {count('span', spans)}")


@data.command()
def sample(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A file, or a folder of a Hugging Face dataset.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write, in gliner's format; - is stdout.")],
    examples: Annotated[int, typer.Option("--examples", "-k", min=1, help="How many to draw.")],
    rest: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the others, to test on: none has the words of a drawn one."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draw; with one seed a smaller draw is a part of a larger one.")] = 0,
    overwrite: options.Overwrite = False,
    format: Format = None,  # noqa: A002
    ignore_key: IgnoreKey = None,
    misaligned: Misaligned = "error",
    word_column: WordColumn = 0,
    tag_column: TagColumn = -1,
) -> None:
    """Draw examples at random: to train on a few, and to test on the others.

    [bold]gliner-fast data sample annotated.jsonl train.jsonl -k 100 --rest test.jsonl[/bold]
    """
    check_outputs({"OUT": target, "--rest": rest}, [("IN", source)], overwrite=overwrite)

    from gliner_fast.annotated.examples import draw_examples

    read = reader(format, ignore_key, misaligned, word_column, tag_column)
    drawn, others = draw_examples(read(source), examples, seed)
    for file, own in ((target, drawn), (rest, others)):
        if file is not None:
            _write(own, file, "gliner")
            tell(f"{file}: {count('example', len(own))}")


def _write(examples: list[Example], file: Path, format: OutputFormat) -> None:  # noqa: A002
    from gliner_fast.annotated.writers import dump_examples, write_examples

    if str(file) == STDOUT:
        sys.stdout.buffer.write(dump_examples(examples, format))
    else:
        write_examples(examples, file, format)


@dataclass
class _Kind:
    """Faults that are alike: what is said of the first, and where the next ones are."""

    first: str
    count: int = 1
    places: list[str] = field(default_factory=list)

    def add(self, place: str) -> None:
        """Takes one more."""
        self.count += 1
        if len(self.places) < _MOST_PLACES:
            self.places.append(place)

    def __str__(self) -> str:
        if not self.places:
            return self.first
        untold = self.count - 1 - len(self.places)
        return f"{self.first} (also {', '.join(self.places)}{f' and {untold:,} more' if untold else ''})"


class _Faults:
    """What is wrong in one file: of each kind the first fault and where the next ones are, and all are counted."""

    def __init__(self, file: Path) -> None:
        self.count = 0
        self._file = file
        self._kinds: dict[str, _Kind] = {}

    def take(self, error: Exception) -> None:
        """Takes one more."""
        self.count += 1
        place, _, fault = str(error).removeprefix(f"{self._file}, ").partition(": ")
        name = _VALUES.sub("", fault)
        if name not in self._kinds and len(self._kinds) < _MOST_FAULTS:
            self._kinds[name] = _Kind(str(error))
        elif name in self._kinds:
            self._kinds[name].add(place)

    def tell(self) -> None:
        """Says what there was."""
        for kind in self._kinds.values():
            _tell_error(str(kind))
        _tell_error(f"{self._file}: {count('fault', self.count)}; what is counted is the rest")


def _tell_error(message: str) -> None:
    tell(f"gliner-fast: error: {' '.join(message.split())}")


def _read_names(given: list[str]) -> dict[str, str]:
    names = {}
    for option in given:
        old, separator, new = (part.strip() for part in option.partition("="))
        if not (old and separator and new):
            raise InputError(f"--rename {option!r}: expected OLD=NEW, such as PER=person")
        names[old] = new
    return names


def _print_summary(name: str, summary: Summary) -> None:
    rows = {
        "examples": f"{summary.examples:,}, {summary.empty_examples:,} without a span, "
        f"{count('duplicate', summary.duplicate_examples)}",
        "words": f"{summary.words:,}; an example has {_quantiles(summary.words_per_example)}",
        "spans": f"{summary.spans:,}, {summary.repeated_spans:,} repeated; in words {_quantiles(summary.span_widths)}",
        "too wide": f"{count('span', summary.wide_spans)} of more than {summary.max_width} words",
        "overlapping": f"{count('example', summary.overlapping_examples)} with spans that share a word",
        "labels": f"{len(summary.labels):,}: " + ", ".join(f"{label} {n:,}" for label, n in summary.labels.items()),
    }
    if summary.relations:
        rows["relations"] = f"{len(summary.relations):,}: " + ", ".join(
            f"{own} {n:,}" for own, n in summary.relations.items()
        )
    show_rows(name, rows)


def _quantiles(values: tuple[int, int, int, int]) -> str:
    least, median, high, most = values
    return f"{least:,} to {most:,}, median {median:,}, 95 % at most {high:,}"
