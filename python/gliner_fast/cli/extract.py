"""`gliner-fast extract`: entities of texts, lines or JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from gliner_fast.cli.reading import InputError, in_chunks, open_source, read_labels, read_rows, read_thresholds
from gliner_fast.cli.showing import coloured, json_line

_CHUNK = 256  # texts in memory at a time


def extract(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts. Without any: lines of --input or of stdin.")] = None,
    labels: Annotated[
        list[str] | None, typer.Option("--labels", "-l", help="What to look for; commas or repeated.")
    ] = None,
    labels_file: Annotated[
        Path | None, typer.Option(help='JSON: \\["person", ...] or {"person": "description", ...}.')
    ] = None,
    threshold: Annotated[float, typer.Option("--threshold", "-t", min=0, max=1, help="Keep scores above this.")] = 0.5,
    label_threshold: Annotated[
        list[str] | None, typer.Option(metavar="LABEL=NUMBER", help="A label's own threshold; repeatable.")
    ] = None,
    nested: Annotated[bool, typer.Option("--nested", help="Keep entities inside others.")] = False,
    multi_label: Annotated[bool, typer.Option("--multi-label", help="Let a span have several labels.")] = False,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Folder or Hub id; the built-in model if not given.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps; auto: the GPU if there is one.")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="fp32 (gliner's own answers), bf16, fp16; auto: the fastest here.")
    ] = "fp32",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Texts in a batch; chosen by length if not given.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--input", "-i", metavar="FILE", help="Text or .jsonl file; - is stdin.")
    ] = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="The input is JSON lines, whatever its name.")] = False,
    text_field: Annotated[str, typer.Option(help="Field of the JSON lines that holds the text.")] = "text",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write JSON lines there.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON lines on a terminal too.")] = False,
) -> None:
    """Find entities in texts.

    A terminal gets coloured text; a pipe or --output gets one JSON object a
    line, in the order of the input: its own fields, and "entities". A line of
    plain text is one text.

    [bold]gliner-fast extract "Ada Lovelace lived in London." -l person,city[/bold]

    [bold]cat notes.txt | gliner-fast extract -l person -l "phone number" --label-threshold person=0.7[/bold]

    [bold]gliner-fast extract -i articles.jsonl --text-field body -l company,product -o found.jsonl[/bold]
    """
    wanted = read_labels(labels or [], labels_file)
    thresholds = read_thresholds(threshold, label_threshold or [], wanted)
    given = texts or []
    with ExitStack() as stack:
        opened = open_source(given, source)
        if opened is not None and opened is not sys.stdin.buffer:
            stack.enter_context(opened)
        # Opened before the model is loaded: a folder that cannot be written is told at once.
        sink = stack.enter_context(output.open("wb")) if output else None
        name = source if source not in {None, "-"} else "stdin"
        rows = read_rows(
            given,
            opened and stack.enter_context(_progress(opened)),
            name=str(name),
            is_jsonl=jsonl or str(name).endswith((".jsonl", ".ndjson")),
            text_field=text_field,
        )
        predictor = load_model(model, device, dtype)
        write = _writer(sink, list(wanted), text_field, as_json=json)
        for chunk in in_chunks(rows, _CHUNK):
            found = predictor.inference(
                [row[text_field] for row in chunk],
                wanted,
                flat_ner=not nested,
                threshold=thresholds,
                multi_label=multi_label,
                batch_size=batch_size,
            )
            for row, entities in zip(chunk, found, strict=True):
                write(row | {"entities": entities})


def load_model(model: str | None, device: str, dtype: str) -> Any:
    """Loads a model onto a device.

    Raises:
        InputError: there is no such device here.
    """
    import torch

    from gliner_fast import GLiNER

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either, by device
        raise InputError(f"--device {device}: {str(error).splitlines()[0]}") from error
    return GLiNER.from_pretrained(model, map_location=device, dtype=dtype)


def _writer(
    sink: BinaryIO | None, labels: list[str], text_field: str, *, as_json: bool
) -> Callable[[dict[str, Any]], None]:
    """Returns what shows one row: coloured on a terminal, JSON lines elsewhere."""
    if sink is None and sys.stdout.isatty() and not as_json:
        from rich.console import Console

        console = Console(highlight=False, soft_wrap=True)
        return lambda row: console.print(coloured(row[text_field], row["entities"], labels))
    stream = sink or sys.stdout.buffer

    def write(row: dict[str, Any]) -> None:
        stream.write(json_line(row))
        if sink is None:
            stream.flush()  # who reads the pipe wants each answer when it is there

    return write


@contextmanager
def _progress(source: BinaryIO) -> Iterator[BinaryIO]:
    """Shows on stderr how much of a file has been read, if a person watches; otherwise passes it through."""
    if source is sys.stdin.buffer or not sys.stderr.isatty():
        yield source
        return
    from rich.console import Console
    from rich.progress import wrap_file

    size = Path(source.name).stat().st_size
    with wrap_file(source, size, description="reading", console=Console(stderr=True), transient=True) as wrapped:
        yield wrapped
