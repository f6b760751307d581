"""`gliner-fast predict`: entities of texts on the command line, or of lines that are piped in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from gliner_fast.cli import options
from gliner_fast.cli.reading import in_chunks, open_lines, read_labels, read_lines, read_thresholds
from gliner_fast.cli.showing import coloured, json_line

_CHUNK = 256  # texts in memory at a time


def predict(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts. Without any: lines of stdin.")] = None,
    labels: options.Labels = None,
    labels_file: options.LabelsFile = None,
    threshold: options.Threshold = 0.5,
    label_threshold: options.LabelThreshold = None,
    nested: options.Nested = False,
    multi_label: options.MultiLabel = False,
    model: options.Model = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "fp32",
    json: Annotated[bool, typer.Option("--json", help="Print JSON lines on a terminal too.")] = False,
) -> None:
    """Find entities in texts given here; for files see extract.

    A terminal gets coloured text, a pipe one JSON object a line. Long texts
    are read whole, in windows that overlap.

    [bold]gliner-fast predict "Ada Lovelace lived in London." -l person,city[/bold]

    [bold]cat notes.txt | gliner-fast predict -l person -l "phone number" --label-threshold person=0.7[/bold]
    """
    wanted = read_labels(labels or [], labels_file)
    thresholds = read_thresholds(threshold, label_threshold or [], wanted)
    lines = open_lines(texts or [])
    given = texts or [] if lines is None else read_lines(lines, "stdin")
    predictor = options.load_model(model, device, dtype)
    write = _writer(list(wanted.names), as_json=json)
    for chunk in in_chunks(given, _CHUNK):
        found = predictor.inference(
            chunk,
            wanted.labels,
            flat_ner=not nested,
            threshold=thresholds,
            multi_label=multi_label,
            on_long="window",
        )
        for text, entities in zip(chunk, found, strict=True):
            write({"text": text, "entities": entities})


def _writer(labels: list[str], *, as_json: bool) -> Callable[[dict[str, Any]], None]:
    """Returns what shows one row: coloured on a terminal, JSON lines elsewhere."""
    if sys.stdout.isatty() and not as_json:
        from rich.console import Console

        console = Console(highlight=False, soft_wrap=True)
        return lambda row: console.print(coloured(row["text"], row["entities"], labels))

    def write(row: dict[str, Any]) -> None:
        sys.stdout.buffer.write(json_line(row))
        sys.stdout.buffer.flush()  # who reads the pipe wants each answer when it is there

    return write
