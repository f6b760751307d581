"""`gliner-fast bench`: how fast on this machine and these texts, beside the installed gliner."""

from __future__ import annotations

from typing import Annotated

import typer

from gliner_fast.cli import options
from gliner_fast.cli.reading import InputError, read_labels, read_texts
from gliner_fast.cli.showing import show, tell
from gliner_fast.cli.writing import dump_json


def bench(
    texts: Annotated[
        str,
        typer.Argument(metavar="IN", help="Your texts: whatever extract reads.", show_default=False),
    ],
    labels: options.Labels = None,
    labels_file: options.LabelsFile = None,
    model: options.Model = None,
    text_column: options.TextColumn = "text",
    input_format: options.InputFormat = None,
    limit: Annotated[int, typer.Option(min=1, help="Take the first texts only.")] = 200,
    threshold: options.Threshold = 0.5,
    rounds: Annotated[int, typer.Option(min=1, help="Each takes both packages in turn.")] = 5,
    alone: Annotated[bool, typer.Option("--alone", help="Do not run gliner beside.")] = False,
    device: options.Device = "cpu",
    dtype: options.Dtype = "fp32",
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> int:
    """Measure the speed on your own texts, beside gliner.

    Rounds are interleaved in one process, medians and quartiles of their
    ratios are told, and whether both gave the same answers. gliner runs in
    float32, whatever --dtype says: as it is shipped, and with sorted texts and
    the fastest batch size. Needs what extract needs, and gliner itself (pip
    install gliner==0.2.29) unless --alone is given. Exits with 1 where the
    answers differ.

    [bold]gliner-fast bench articles.jsonl -l person,company -m urchade/gliner_small-v2.1[/bold]
    """
    wanted = read_labels(labels or [], labels_file)
    if wanted.thresholds:
        raise InputError(f"{labels_file} gives labels their own thresholds: bench measures at one, --threshold")
    read = read_texts(texts, text_column, limit=limit, input_format=input_format)

    from gliner_fast.comparing.speed import measure_speed

    report = measure_speed(
        options.load_model(model, device, dtype),
        read,
        wanted.labels,
        threshold=threshold,
        rounds=rounds,
        compare=not alone,
        tell=tell,
    )
    if json:
        print(dump_json(report.to_dict()))
    else:
        show(str(report))
    return 0 if report.agreement is None or report.agreement.ok else 1
