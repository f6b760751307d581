"""`gliner-fast predict`: entities of texts on the command line, or of lines that are piped in."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from gliner_fast.cli import options
from gliner_fast.cli.reading import (
    in_chunks,
    open_lines,
    read_labels,
    read_lines,
    read_relations,
    read_thresholds,
)
from gliner_fast.cli.showing import coloured, coloured_relations, tell
from gliner_fast.cli.writing import dump_json

_CHUNK = 256  # texts in memory at a time


def predict(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts. Without any: lines of stdin.")] = None,
    labels: options.Labels = None,
    labels_file: options.LabelsFile = None,
    threshold: options.Threshold = 0.5,
    label_threshold: options.LabelThreshold = None,
    nested: options.Nested = False,
    multi_label: options.MultiLabel = False,
    relations: options.Relations = None,
    adjacency_threshold: options.AdjacencyThreshold = None,
    relation_threshold: options.RelationThreshold = None,
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

    [bold]gliner-fast predict "Ada lived in London." -l person,city --relations "lived in" -m RELEX-MODEL[/bold]
    """
    wanted = read_labels(labels or [], labels_file)
    thresholds = read_thresholds(threshold, label_threshold or [], wanted)
    asked = read_relations(relations, adjacency_threshold, relation_threshold)
    for text in texts or []:
        if os.path.isfile(text):  # noqa: PTH113  # which a text of any length and characters may be asked
            tell(f"gliner-fast: {text!r} is a file, but read as a text: for files see gliner-fast extract")
    lines = open_lines(texts or [])
    given = texts or [] if lines is None else read_lines(lines, "stdin")
    predictor = options.load_model(model, device, dtype)
    if asked is not None:
        predictor.config.expect_relex()
    write = _writer(list(wanted.names), as_json=json)

    from gliner_fast.predicting.request import Options, Request
    from gliner_fast.relations.relation import relations_of

    how = Options(
        flat_ner=not nested,
        threshold=thresholds,
        multi_label=multi_label,
        relations=asked or (),
        adjacency_threshold=adjacency_threshold,
        relation_threshold=relation_threshold,
        on_long="window",
    )
    for chunk in in_chunks(given, _CHUNK):
        found = predictor.answer(Request.read(chunk, wanted.labels, how))
        for text, entities in zip(chunk, found, strict=True):
            row = {"text": text, "entities": entities}
            write(row if asked is None else {**row, "relations": relations_of(entities)})


def _writer(labels: list[str], *, as_json: bool) -> Callable[[dict[str, Any]], None]:
    """Returns what shows one row: coloured on a terminal, JSON lines elsewhere."""
    if sys.stdout.isatty() and not as_json:
        from rich.console import Console

        console = Console(highlight=False, soft_wrap=True)

        def show(row: dict[str, Any]) -> None:
            shown = coloured(row["text"], row["entities"], labels)
            console.print(shown.append_text(coloured_relations(row.get("relations", ()), labels)))

        return show

    def write(row: dict[str, Any]) -> None:
        sys.stdout.buffer.write(dump_json(row).encode() + b"\n")
        sys.stdout.buffer.flush()  # who reads the pipe wants each answer when it is there

    return write
