"""`gliner-fast extract`: files in, entities out, in a job that can be killed and goes on where it was."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gliner_fast.cli import options
from gliner_fast.cli.reading import (
    InputError,
    WantedLabels,
    read_labels,
    read_relations,
    read_thresholds,
    split_commas,
)
from gliner_fast.cli.showing import tell

if TYPE_CHECKING:
    from gliner_fast.jobs.ray_options import RayOptions
    from gliner_fast.redaction import Redaction

_IN, _OUT, _ROWS = "What goes in", "What comes out", "Rows that are no good"
_JOB, _RAY = "How the job runs", "On Ray"


def extract(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IN...",
            help="Files, folders or globs: .jsonl .parquet .csv .tsv .txt, also .gz and .zst; - is stdin.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="NAME.parquet or NAME.jsonl (.gz, .zst): one file. Any other name: a folder of shards. Not given: "
            "JSON lines to stdout.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    labels: options.Labels = None,
    labels_file: options.LabelsFile = None,
    labels_column: Annotated[
        str | None, typer.Option(help="Column with each row's own labels, instead of --labels.", rich_help_panel=_IN)
    ] = None,
    threshold: options.Threshold = 0.5,
    label_threshold: options.LabelThreshold = None,
    nested: options.Nested = False,
    multi_label: options.MultiLabel = False,
    relations: options.Relations = None,
    adjacency_threshold: options.AdjacencyThreshold = None,
    relation_threshold: options.RelationThreshold = None,
    model: options.Model = None,
    device: options.Devices = "auto",
    dtype: options.Dtype = "fp32",
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Most texts in a batch; chosen by length if not given.", rich_help_panel=_JOB),
    ] = None,
    text_column: Annotated[
        str, typer.Option(help="Column or field that holds the text.", rich_help_panel=_IN)
    ] = "text",
    id_column: Annotated[
        str | None, typer.Option(help="Column that names the rows; always in the output.", rich_help_panel=_IN)
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            help="Input columns to pass through, commas or repeated; if not given all, or none with --layout rows.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    input_format: Annotated[
        options.FileFormat | None,
        typer.Option(
            "--input-format",
            help="Format of the input, whatever its name ends in; stdin is text if not given.",
            rich_help_panel=_IN,
        ),
    ] = None,
    output_format: Annotated[
        Literal["parquet", "jsonl", "jsonl.gz", "jsonl.zst"],
        typer.Option(help="Of the shards in a folder.", rich_help_panel=_OUT),
    ] = "parquet",
    layout: Annotated[
        Literal["list", "rows"],
        typer.Option(
            help="list: each row with a list of its entities; rows: one row an entity, with `row`, its row's number.",
            rich_help_panel=_OUT,
        ),
    ] = "list",
    entities_column: Annotated[str, typer.Option(help="Name of the list's column.", rich_help_panel=_OUT)] = "entities",
    relations_column: Annotated[
        str, typer.Option(help="Name of the column of the row's relations; with --relations.", rich_help_panel=_OUT)
    ] = "relations",
    on_long: Annotated[
        Literal["window", "truncate", "error"],
        typer.Option(
            help="Texts beyond the model's limit: read in overlapping windows, cut, or end the job.",
            rich_help_panel=_ROWS,
        ),
    ] = "window",
    on_error: Annotated[
        Literal["skip", "fail"],
        typer.Option(help="Rows that cannot be used: to a file of rejects, or end the job.", rich_help_panel=_ROWS),
    ] = "skip",
    max_rejects: Annotated[
        int | None, typer.Option(min=0, help="End the job where more rows are rejected.", rich_help_panel=_ROWS)
    ] = None,
    redact: Annotated[
        Literal["label", "mask", "hash"] | None,
        typer.Option(
            help="Write texts with their entities replaced: [PERSON], ███, [PERSON:1f3a...].", rich_help_panel=_OUT
        ),
    ] = None,
    redact_template: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Placeholder, from {LABEL}, {label}, {number} and {hash}.", rich_help_panel=_OUT
        ),
    ] = None,
    redact_key: Annotated[
        str | None,
        typer.Option(
            "--redact-key-env",
            metavar="NAME",
            help="Environment variable that holds the secret of --redact hash.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    rows_per_shard: Annotated[
        int, typer.Option(min=1, help="Rows in a shard; a crash costs the few shards under way.", rich_help_panel=_JOB)
    ] = 4096,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Start anew over an earlier output; where that is this very job, not finished, go on.",
            rich_help_panel=_JOB,
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress and no report.", rich_help_panel=_JOB)
    ] = False,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Where the slices are computed.", rich_help_panel=_RAY)
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="Of a cluster, auto for this machine's; not given: RAY_ADDRESS, or a Ray of its own.",
            rich_help_panel=_RAY,
        ),
    ] = None,
    actors: Annotated[
        int | None, typer.Option(min=1, help="Processes that each hold the model.", rich_help_panel=_RAY)
    ] = None,
    num_cpus: Annotated[
        float | None, typer.Option(help="CPUs, and so threads, of each actor.", rich_help_panel=_RAY)
    ] = None,
    num_gpus: Annotated[float | None, typer.Option(help="GPUs of each actor.", rich_help_panel=_RAY)] = None,
) -> int:
    """Find the entities of all texts in files.

    Kill it at any moment and give the same command again: it goes on where it
    was, and the output is that of an unbroken run. Ctrl-C stops at the next
    slice (the rows of a shard). Bad rows go to OUT.job/rejects.jsonl (of a
    folder: OUT/_job), with file, line and reason.

    Exit code: 0 done; 2 an error, or no row that could be used; 130 stopped, and the same command goes on.

    [bold]gliner-fast extract articles.jsonl -o found.parquet -l person,company --text-column body[/bold]

    [bold]gliner-fast extract 'mails/*.csv.gz' -o found/ --labels-file labels.json --id-column id --layout rows[/bold]

    [bold]gliner-fast extract a.jsonl -o found.jsonl -l person,company --relations "works for" -m RELEX-MODEL[/bold]

    [bold]zcat notes.txt.gz | gliner-fast extract - -l person > found.jsonl[/bold]
    """
    has_own_labels = labels_column is not None and not labels and labels_file is None
    wanted = WantedLabels([], {}) if has_own_labels else read_labels(labels or [], labels_file)
    thresholds = read_thresholds(threshold, label_threshold or [], wanted)
    asked = read_relations(relations, adjacency_threshold, relation_threshold)
    if not inputs:
        if sys.stdin.isatty():
            raise InputError(
                "no input: name files, folders or globs; for texts themselves there is gliner-fast predict"
            )
        inputs = ["-"]

    if redact is None and (redact_template is not None or redact_key is not None):
        raise InputError("--redact-template and --redact-key-env belong to --redact")
    if redact == "hash" and redact_key is None:
        raise InputError(
            "--redact hash needs a key: put it into an environment variable and name that, as in --redact-key-env "
            'MY_KEY; make one with: python -c "import secrets; print(secrets.token_hex(32))"'
        )
    if engine != "ray" and any(value is not None for value in (ray_address, actors, num_cpus, num_gpus)):
        raise InputError("--ray-address, --actors, --num-cpus and --num-gpus belong to --engine ray")

    if engine == "ray":
        from gliner_fast.jobs.ray_options import expect_ray

        expect_ray()
    from gliner_fast.jobs import extract_files
    from gliner_fast.jobs.progress import choose_progress

    report = extract_files(
        inputs,
        sys.stdout.buffer if output in {None, "-"} else output,
        wanted.labels or None,
        model=model,
        threshold=thresholds,
        flat_ner=not nested,
        multi_label=multi_label,
        relations=asked,
        adjacency_threshold=adjacency_threshold,
        relation_threshold=relation_threshold,
        on_long=on_long,
        text_column=text_column,
        id_column=id_column,
        labels_column=labels_column,
        columns=None if columns is None else split_commas(columns),
        input_format=input_format,
        output_format=output_format,
        layout=layout,
        entities_column=entities_column,
        relations_column=relations_column,
        redaction=_redaction(redact, redact_template, redact_key),
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        rows_per_shard=rows_per_shard,
        on_error=on_error,
        max_rejects=max_rejects,
        overwrite=overwrite,
        ray=_ray_options(ray_address, actors, num_cpus, num_gpus) if engine == "ray" else None,
        progress=choose_progress(quiet=quiet),
    )
    if not quiet:
        tell(str(report))
    if report.is_complete and 0 < report.rows == report.rejects:
        see = "" if report.rejects_file is None else f": see {report.rejects_file}"
        which = "the only row could not" if report.rows == 1 else f"not one of the {report.rows:,} rows could"
        raise InputError(f"{which} be used{see}")
    if report.is_complete:
        return 0
    can_go_on = output not in {None, "-"} and inputs != ["-"]
    tell("gliner-fast: stopped." + " The same command goes on from here." * can_go_on)
    return 130


def _redaction(
    style: Literal["label", "mask", "hash"] | None, template: str | None, key_variable: str | None
) -> Redaction | None:
    if style is None:
        return None
    from gliner_fast.redaction import Redaction

    return Redaction.from_options(style, template=template, key_env=key_variable)


def _ray_options(address: str | None, actors: int | None, num_cpus: float | None, num_gpus: float | None) -> RayOptions:
    from gliner_fast.jobs.ray_options import RayOptions

    return RayOptions(address=address, actors=actors, num_cpus=num_cpus, num_gpus=num_gpus)
