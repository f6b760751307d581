"""`gliner-fast evaluate`: exact-match scores of a model on annotated sets, as JSON, table and chart."""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gliner_fast.cli import options
from gliner_fast.cli.data import Format, IgnoreKey, Misaligned, TagColumn, WordColumn, reader
from gliner_fast.cli.reading import InputError, WantedLabels, read_labels, read_relations, read_thresholds, split_commas
from gliner_fast.cli.showing import tell, visible_in_line
from gliner_fast.cli.writing import STDOUT, check_outputs, write_record, write_text
from gliner_fast.errors import count

if TYPE_CHECKING:
    from collections.abc import Callable

    from gliner_fast.annotated import Example
    from gliner_fast.evaluation import Evaluation
    from gliner_fast.evaluation.results import AskedLabels
    from gliner_fast.evaluation.scored_examples import LabelThresholds
    from gliner_fast.model import GLiNER

_CATCH_ALL = {"else", "misc", "miscellaneous", "other"}

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="Folder or Hub id; built-in is the model that comes with the package.")
]
IgnoreLabel = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore-label",
        metavar="LABEL",
        help="Neither ask for it nor miss it, such as CrossNER's else; commas or repeated.",
    ),
]


def evaluate(
    model: ModelArgument,
    data: Annotated[
        list[Path], typer.Argument(metavar="DATA...", help="Files of annotated sentences: see gliner-fast data --help.")
    ],
    labels: options.Labels = None,
    labels_file: options.LabelsFile = None,
    ignore_label: IgnoreLabel = None,
    relations: options.Relations = None,
    thresholds: Annotated[
        str,
        typer.Option(
            metavar="NUMBERS", help="One or more, by commas; more cost hardly any time, but where relations are scored."
        ),
    ] = "0.5",
    adjacency_threshold: options.AdjacencyThreshold = None,
    relation_threshold: options.RelationThreshold = None,
    nested: options.Nested = False,
    multi_label: options.MultiLabel = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Sentences of each set, from its beginning.")] = None,
    per_label: Annotated[
        bool, typer.Option("--per-label", help="Print the scores of each label and relation, too.")
    ] = False,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all scores; - is stdout, without a table.")
    ] = None,
    chart: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a bar chart of F1, SVG.")] = None,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "fp32",
    format: Format = None,  # noqa: A002
    ignore_key: IgnoreKey = None,
    misaligned: Misaligned = "error",
    word_column: WordColumn = 0,
    tag_column: TagColumn = -1,
) -> None:
    """Measure precision, recall and F1 on annotated sentences.

    An entity is right where label, first and last word are. Each set is asked
    for the labels given; else for those in NAME.labels.json beside its file;
    else for each example's own, or all that occur in the set. Sets of the
    GLiNER paper are known by name and averaged as there.

    A relation extraction model is asked for --relations, too; else for each
    example's "rel_labels", or all that occur in the set. A relation is right
    where it and the words of both entities are. The model reads what it is
    asked for, so that relations may change its entities.

    [bold]gliner-fast evaluate built-in eval/*.jsonl --thresholds 0.3,0.5 --json scores.json --chart f1.svg[/bold]
    """
    wanted = read_labels(labels or [], labels_file) if labels or labels_file else None
    limits = _read_limits(thresholds, wanted)
    kinds = read_relations(relations, None, None)
    inputs: list[tuple[str, Path | None]] = [("--labels-file", labels_file)]
    for path in data:
        inputs += [("DATA", path), ("the labels beside DATA", labels_file_beside(path))]
    check_outputs({"--json": json, "--chart": chart}, inputs, overwrite=overwrite)
    if chart is not None and str(chart) == STDOUT:
        raise InputError("--chart - : a chart is a file, such as f1.svg")
    names = [set_name(path) for path in data]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two sets are named {twice!r}: evaluate them one by one, or rename a file")

    for path in data:
        path.stat()  # a missing one is told before anything is loaded
    loaded = options.load_model(model, device, dtype)
    evaluate_set = _evaluator(loaded, kinds, adjacency_threshold, relation_threshold)
    read = reader(format, ignore_key, misaligned, word_column, tag_column)
    # All of them first: what is wrong with the last one is told now, not when the others are done.
    sets = [read(path, splitter=loaded.data_processor.custom_splitter)[:limit] for path in data]
    evaluations = []
    for path, name, examples in zip(data, names, sets, strict=True):
        began = perf_counter()
        evaluation = evaluate_set(
            examples,
            wanted.labels if wanted is not None else labels_beside(path),
            thresholds=limits,
            flat_ner=not nested,
            multi_label=multi_label,
            ignored=split_commas(ignore_label or []),
            name=name,
        )
        evaluations.append(evaluation)
        _print_notes(evaluation, perf_counter() - began, loaded.config.max_len)

    from gliner_fast.evaluation.chart import chart as draw_chart
    from gliner_fast.evaluation.report import report

    try:  # what a file or a closed pipe refuses must not take the other along
        if json is None or str(json) != STDOUT:
            _print_tables(evaluations, per_label=per_label)
    finally:
        if json is not None:
            write_record(json, report(evaluations, {"model": model, "dtype": dtype, "limit": limit}))
        if chart is not None:
            write_text(chart, draw_chart(evaluations, f"Micro F1 of {model}"))


def _evaluator(
    model: GLiNER, kinds: list[str] | None, adjacency_threshold: float | None, relation_threshold: float | None
) -> Callable[..., Evaluation]:
    """`evaluate` for a model, or, of sets with relations, `evaluate_relations`, if the model finds any.

    Raises:
        InputError: it does not, and is asked for some.
    """
    from gliner_fast.evaluation import evaluate as evaluate_entities
    from gliner_fast.evaluation import evaluate_relations
    from gliner_fast.relex import RelexGLiNER

    asks = not (kinds is None and adjacency_threshold is None and relation_threshold is None)
    if asks and not isinstance(model, RelexGLiNER):
        raise InputError(
            "the model finds no relations: leave out --relations and its thresholds, or name a relation extraction "
            "(relex) model"
        )

    def evaluate_set(examples: list[Example], asked: AskedLabels | None, **how: Any) -> Evaluation:
        are_annotated = any(example.relations or example.relation_labels for example in examples)
        if not isinstance(model, RelexGLiNER) or (kinds is None and not are_annotated):
            if are_annotated:
                tell(f"{how['name']}: its relations are not scored: the model finds none")
            elif asks:
                tell(f"{how['name']}: no relation is annotated, nor asked for by --relations: none is scored")
            return evaluate_entities(model, examples, asked, **how)
        if not are_annotated:
            tell(f"{how['name']}: no relation is annotated: each that is found counts as wrong")
        return evaluate_relations(
            model,
            examples,
            asked,
            kinds,
            adjacency_threshold=adjacency_threshold,
            relation_threshold=relation_threshold,
            **how,
        )

    return evaluate_set


def _print_tables(evaluations: list[Evaluation], *, per_label: bool) -> None:
    from rich.console import Console

    from gliner_fast.evaluation.report import labels_table, relations_table, sets_table

    # A pipe gets whole lines, however wide.
    is_terminal = sys.stdout.isatty()
    console = Console(highlight=False, width=None if is_terminal else 200)
    shown = visible_in_line if is_terminal else str
    for evaluation in evaluations if per_label else []:
        console.print(labels_table(evaluation, shown))
    console.print(sets_table(evaluations, shown))
    if any(evaluation.asked_relations is not None for evaluation in evaluations):
        console.print(relations_table(evaluations, shown, each=per_label))


def set_name(path: Path) -> str:
    """The name of a data set: that of its file without what the format adds."""
    return path.name.split(".")[0]


def labels_beside(path: Path) -> list[str] | dict[str, str] | None:
    """The labels in NAME.labels.json beside a data file, if it is there."""
    file = labels_file_beside(path)
    return None if file is None else read_labels([], file).labels


def labels_file_beside(path: Path) -> Path | None:
    """NAME.labels.json beside a data file, if it is there."""
    file = path.with_name(f"{set_name(path)}.labels.json")
    return file if file.is_file() else None


def _print_notes(evaluation: Evaluation, seconds: float, max_len: int) -> None:
    """What one must know of a set to read its scores."""
    notes = [f"{count('sentence', evaluation.examples)} in {seconds:.1f} s"]
    if evaluation.cut:
        notes.append(
            f"{count('sentence', evaluation.cut)} longer than the model reads, which is {max_len} words, or fewer "
            "where the tokenizer's limit comes first; what is annotated behind counts as missed"
        )
    notes += [
        f"{label!r} is asked for and counts like any label, as gliner's own evaluator does; --ignore-label {label} "
        "leaves it out, as UniNER's does"
        for label in sorted(_CATCH_ALL & set(evaluation.asked))
    ]
    for note in notes:
        tell(f"{evaluation.name}: {note}")


def _read_limits(given: str, wanted: WantedLabels | None) -> list[LabelThresholds]:
    """Thresholds of the option, and those of the labels file behind them."""
    try:
        numbers = [float(number) for number in given.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 <= number <= 1 for number in numbers):
        raise InputError(f"--thresholds {given!r}: expected numbers from 0 to 1, such as 0.3,0.5")
    limits: list[LabelThresholds] = [*numbers]
    if wanted is not None and wanted.thresholds:
        limits.append(read_thresholds(numbers[0], [], wanted))
    return limits
