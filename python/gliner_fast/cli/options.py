"""Options that several commands have, with one meaning and one help text, and the model that they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from gliner_fast import GLiNER

Labels = Annotated[
    list[str] | None,
    typer.Option("--labels", "-l", help="Labels to look for: separated by commas, or repeat the option."),
]
LabelsFile = Annotated[
    Path | None,
    typer.Option(
        help='Labels from a file: a label a line, or JSON: \\["person", ...], {"person": "description", ...} or '
        '{"person": {"description": "...", "threshold": 0.7}, ...}.'
    ),
]
Threshold = Annotated[float, typer.Option("--threshold", "-t", min=0, max=1, help="Keep scores above this.")]
LabelThreshold = Annotated[
    list[str] | None, typer.Option(metavar="LABEL=NUMBER", help="A label's own threshold; repeatable.")
]
Nested = Annotated[bool, typer.Option("--nested", help="Keep entities inside others.")]
MultiLabel = Annotated[bool, typer.Option("--multi-label", help="Let a span have several labels.")]
Relations = Annotated[
    list[str] | None,
    typer.Option(
        "--relations",
        metavar="KINDS",
        help='Relations to look for between the entities, such as "works for, born in"; commas or repeated. Of '
        "relation extraction (relex) models alone.",
    ),
]
AdjacencyThreshold = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        metavar="NUMBER",
        help="Look at pairs of entities that the model links by more than this; if not given, the entities' threshold, "
        "or 0.5 where labels have their own.",
    ),
]
RelationThreshold = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        metavar="NUMBER",
        help="Keep relations that score above this; as --adjacency-threshold if not given.",
    ),
]
Model = Annotated[str | None, typer.Option("--model", "-m", help="Folder or Hub id; the built-in model if not given.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps; auto: the GPU if there is one.")]
Devices = Annotated[
    str,
    typer.Option(
        help="cpu, cuda, cuda:1, mps; auto: the GPU if there is one. Several by commas, or all: every CUDA device; "
        "they share the slices."
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        help="fp32 (gliner's own answers), bf16, fp16; auto: the fastest of these here; int16: faster on CPUs "
        "without AMX; int8: on those with AVX-512 VNNI."
    ),
]


Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write over files that are there.")]
FileFormat = Literal["jsonl", "parquet", "csv", "tsv", "text"]
TextColumn = Annotated[str, typer.Option(help="Column or field that holds the text.")]
InputFormat = Annotated[
    FileFormat | None,
    typer.Option("--input-format", help="Format of the input, whatever its name ends in; stdin is text if not given."),
]


def load_model(model: str | None, device: str, dtype: str) -> GLiNER:
    """Loads a model onto a device.

    Raises:
        ValueError: there is no such device here.
    """
    from gliner_fast import GLiNER
    from gliner_fast.precision import choose_device, expect_computing

    return GLiNER.from_pretrained(model, map_location=expect_computing(choose_device(device)), dtype=dtype)
