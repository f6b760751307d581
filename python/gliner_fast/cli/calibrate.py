"""`gliner-fast calibrate`: annotated sentences choose the thresholds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliner_fast.cli import options
from gliner_fast.cli.data import Format, IgnoreKey, Misaligned, TagColumn, WordColumn, reader
from gliner_fast.cli.evaluate import ModelArgument, labels_beside, labels_file_beside
from gliner_fast.cli.reading import read_labels
from gliner_fast.cli.showing import tell
from gliner_fast.cli.writing import STDOUT, check_outputs, write_record
from gliner_fast.errors import count

if TYPE_CHECKING:
    from gliner_fast.evaluation.calibrate import Calibration

# A share of n entities has a standard error of up to 0.5 / sqrt(n): of 100 they are 5 points, and 10 to be 95 % sure.
_ENTITIES_TO_TRUST = 100


def calibrate(
    model: ModelArgument,
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="A file of annotated sentences: see gliner-fast data --help.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Labels with their thresholds, JSON; stdout if not given."),
    ] = None,
    labels: options.Labels = None,
    labels_file: options.LabelsFile = None,
    nested: options.Nested = False,
    multi_label: options.MultiLabel = False,
    min_entities: Annotated[
        int, typer.Option(min=1, help="Labels annotated less often keep the threshold that is best for all.")
    ] = 10,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the scores, too; - is stdout.")
    ] = None,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "fp32",
    format: Format = None,  # noqa: A002
    ignore_key: IgnoreKey = None,
    misaligned: Misaligned = "error",
    word_column: WordColumn = 0,
    tag_column: TagColumn = -1,
) -> None:
    """Choose thresholds by micro F1, one for all labels and one for each.

    What comes out is a --labels-file for predict, extract and evaluate. The
    scores, on stderr, are told twice: on the sentences that chose, which
    flatters, and held out, each half with the thresholds of the other half.

    [bold]gliner-fast calibrate built-in dev.jsonl -o labels.json[/bold]

    [bold]gliner-fast extract articles.parquet -o out --labels-file labels.json[/bold]
    """
    output = output or Path(STDOUT)
    inputs = {"DATA": data, "--labels-file": labels_file, "the labels beside DATA": labels_file_beside(data)}
    check_outputs({"--output": output, "--json": json}, inputs.items(), overwrite=overwrite)
    wanted = read_labels(labels or [], labels_file).labels if labels or labels_file else labels_beside(data)

    from gliner_fast.evaluation.calibrate import calibrate as choose_thresholds

    read = reader(format, ignore_key, misaligned, word_column, tag_column)
    data.stat()  # where it is missing, that is told before anything is loaded
    loaded = options.load_model(model, device, dtype)
    examples = read(data, splitter=loaded.data_processor.custom_splitter)
    calibration = choose_thresholds(
        loaded, examples, wanted, flat_ner=not nested, multi_label=multi_label, min_entities=min_entities
    )
    _print_scores(calibration)
    entities = calibration.usual.same.gold
    if entities < _ENTITIES_TO_TRUST:
        few = f"{count('entity', entities)} annotated, in {count('sentence', len(examples))}"
        tell(
            f"gliner-fast: warning: {few}: of fewer than {_ENTITIES_TO_TRUST} F1 is known to some 10 points at best, "
            "and so thresholds are chance more than choice. Annotate more, or stay with 0.5"
        )
    descriptions = wanted if isinstance(wanted, dict) else {}
    write_record(output, calibration.labels_file(descriptions))
    if json is not None:
        write_record(json, calibration.to_dict())


def _print_scores(calibration: Calibration) -> None:
    rows = {
        "the usual 0.5": calibration.usual,
        f"{calibration.overall.threshold} for all labels": calibration.overall,
        "one for each label": calibration.per_label,
    }
    for name, choice in rows.items():
        same, held_out = 100 * choice.same.f1, 100 * choice.held_out.f1
        tell(f"{name:<20}  F1 {same:6.2f} on these sentences, {held_out:6.2f} held out")
