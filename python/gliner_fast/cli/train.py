"""`gliner-fast train`: a run as a configuration file says, that can be killed and goes on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from gliner_fast.cli.reading import InputError
from gliner_fast.cli.showing import show as show_text
from gliner_fast.cli.showing import tell

# What has no default, in settings that are shown without a file.
_FIRST = {"output_dir": "runs/first"}


def train(
    config: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG.yaml", help="Settings; what it leaves out is the paper's."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting to change; repeatable. The value is YAML."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in output_dir, if there is one.")
    ] = False,
    show: Annotated[
        bool,
        typer.Option("--show", help="Print all settings, with their meaning, and exit; CONFIG.yaml may be left out."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; errors only.")] = False,
) -> None:
    """Train a model on your own data, from a checkpoint or from a bare encoder.

    Kill it at any moment: with --resume it goes on from its last checkpoint (they
    are save_steps apart), and the weights are those of an unbroken run. The
    folder of the model to use, the best one or the last, is printed at the end.

    [bold]gliner-fast train config.yaml --set steps=500 --set lr_encoder=5e-6[/bold]

    A configuration needs three lines; paths are seen from where you are, and
    gliner-fast data --help has the formats of annotated sentences:

    output_dir: runs/first
    model: urchade/gliner_small-v2.1  (or built-in; or encoder: ...)
    train: annotated.jsonl
    """
    from gliner_fast.training.config import TrainingConfig
    from gliner_fast.training.setting_values import read_changes

    changed = read_changes(changes or [])
    if config is not None:
        settings = TrainingConfig.from_yaml(config, changed)
    elif show:
        settings = TrainingConfig.from_mapping({**_FIRST, **changed}, "--set")
    else:
        raise InputError("no CONFIG.yaml: name a file of settings; --show prints one to start from")
    if show:
        show_text(settings.to_described_yaml().removesuffix("\n"))
        return

    from gliner_fast.training.trainer import train as run

    try:
        report = run(settings, resume=resume, tell=None if quiet else tell)
    except KeyboardInterrupt:
        if any(Path(settings.output_dir).glob("checkpoint-*[0-9]")):
            tell("gliner-fast: stopped. With --resume it goes on from the last checkpoint.")
        else:
            tell(
                "gliner-fast: stopped before the first checkpoint, which save_steps puts at "
                f"{settings.checkpoint_interval:,}."
            )
        raise
    from accelerate import PartialState  # type: ignore[import-untyped]

    if not PartialState().is_main_process:
        return  # of several processes one tells
    if not quiet:
        best = "" if report.best is None else f"; best F1 {report.best.f1:.2%} at step {report.best.step:,}"
        # Without a loss nothing was left to do.
        did = "trained before" if math.isnan(report.loss) else f"loss {report.loss:,.6g}"
        tell(f"{report.steps:,} steps, {did}{best}, {report.seconds:,.0f} s")
    show_text(str(report.model))
