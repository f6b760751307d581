"""`gliner-fast verify`: ours against the installed gliner, on the user's texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gliner_fast.cli import options
from gliner_fast.cli.reading import InputError, read_labels, read_relations, read_texts
from gliner_fast.cli.showing import show, tell
from gliner_fast.cli.writing import dump_json

# Used where the user gives no texts: names, numbers, a long one, marks, another script, nothing.
_SAMPLE = (
    "Ada Lovelace wrote the first program for Charles Babbage's Analytical Engine in London in 1843.",
    "The European Space Agency launched Rosetta from Kourou, French Guiana, on 2 March 2004.",
    "Dr. Okafor (St. Mary's Hospital) prescribed 20 mg of fluoxetine; call +44 20 7946 0000 before 5pm.",
    "Zoë Kravitz and Nguyễn Phú Trọng met in Malmö, Łódź and São Paulo — or did they?",
    "我在Google上班,老板是Sundar Pichai。",
    "Apple",
    "",
)


def verify(
    model: Annotated[str | None, typer.Argument(help="Folder or Hub id; the built-in model if not given.")] = None,
    labels: options.Labels = None,
    labels_file: options.LabelsFile = None,
    texts: Annotated[
        str | None,
        typer.Option(
            "--texts",
            metavar="IN",
            help="Your texts: whatever extract reads; a few sentences if not given.",
        ),
    ] = None,
    text_column: options.TextColumn = "text",
    input_format: options.InputFormat = None,
    limit: Annotated[int, typer.Option(min=1, help="Take the first texts only.")] = 200,
    threshold: options.Threshold = 0.5,
    nested: options.Nested = False,
    multi_label: options.MultiLabel = False,
    relations: options.Relations = None,
    adjacency_threshold: options.AdjacencyThreshold = None,
    relation_threshold: options.RelationThreshold = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Largest difference of scores that counts as equal.",
            show_default="0.0001; fp16, int16 0.01; bf16 0.05; int8 0.1",
        ),
    ] = None,
    device: options.Device = "cpu",
    dtype: options.Dtype = "fp32",
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> int:
    """Compare with the gliner package: same entities, same scores?

    Needs gliner itself (pip install gliner==0.2.29), and for files what
    extract needs. gliner runs in fp32, ours in --dtype. Exits with 0 if the
    answers are the same, with 1 if not. A difference counts as explained only
    where rounding can have caused it: a score at the threshold, or a tie.

    [bold]gliner-fast verify urchade/gliner_small-v2.1 -l person,company --texts articles.jsonl[/bold]

    With --relations the relations between entities are compared, too: the
    same ends, in the same order. gliner then reads one text at a time, and
    texts on which it breaks down are counted.

    [bold]gliner-fast verify RELEX-MODEL -l person,city --relations "lived in, born in"[/bold]
    """
    wanted = read_labels(labels or [], labels_file)
    if wanted.thresholds:
        raise InputError(f"{labels_file} gives labels their own thresholds: verify compares at one, --threshold")
    asked = read_relations(relations, adjacency_threshold, relation_threshold)
    if model is not None and Path(model).is_file():
        raise InputError(f"{model} is a file, where a model was expected: texts are given with --texts {model}")
    read = list(_SAMPLE)
    if texts is not None:
        read = read_texts(texts, text_column, limit=limit + 1, input_format=input_format)
        if len(read) > limit:
            _tell(f"the first {limit:,} texts are compared: --limit takes more")
            read = read[:limit]
        if not any(text.strip() for text in read):
            raise InputError(f"{texts} has nothing to compare: give at least one text that is not empty")

    from gliner_fast.comparing.verification import verify as compare_with_reference

    loaded = options.load_model(model, device, dtype)
    report = compare_with_reference(
        loaded,
        read,
        wanted.labels,
        threshold=threshold,
        flat_ner=not nested,
        multi_label=multi_label,
        relations=asked or (),
        adjacency_threshold=adjacency_threshold,
        relation_threshold=relation_threshold,
        tolerance=tolerance,
        tell=_tell,
    )
    if json:
        print(dump_json(report.to_dict()))
    else:
        show(str(report))
    have_moved = any(part.moved for part in report.parts) and not any(part.unexplained for part in report.parts)
    if have_moved and dtype.lower() not in ("fp32", "float32", "float"):
        largest = max(part.max_score_difference for part in report.parts)
        _tell(f"only scores moved, by up to {largest:.2g}: a larger --tolerance allows that")
    return 0 if report.ok else 1


def _tell(line: str) -> None:
    tell(f"gliner-fast: {line}")
