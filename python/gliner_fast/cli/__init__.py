"""The command line: `gliner-fast predict | extract | verify | bench | evaluate | calibrate | train | data | info`.

Nothing heavy is imported before a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, TextIO

import typer

from gliner_fast.cli import standard_streams
from gliner_fast.cli.bench import bench
from gliner_fast.cli.calibrate import calibrate
from gliner_fast.cli.data import data
from gliner_fast.cli.evaluate import evaluate
from gliner_fast.cli.extract import extract
from gliner_fast.cli.info import info
from gliner_fast.cli.predict import predict
from gliner_fast.cli.showing import tell
from gliner_fast.cli.train import train
from gliner_fast.cli.verify import verify

app = typer.Typer(
    help="Finds the entities that you name, in text: GLiNER's answers, faster.",
    epilog='Start here: [bold]gliner-fast predict "Ada Lovelace lived in London." -l person,city[/bold]',
    add_completion=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command()(predict)
app.command()(extract)
app.command()(verify)
app.command()(bench)
app.command()(evaluate)
app.command()(calibrate)
app.command()(train)
app.add_typer(data, name="data")
app.command()(info)

# ClickException of the click that typer carries under a private name.
_UsageError: type[Exception] = typer.BadParameter.__mro__[2]


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from gliner_fast import __version__

        print(f"gliner-fast {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 1 answers differ (`verify`, `bench`), 2 an error, told in one line.

    Also 2 with a traceback, a fault of our own; 130, stopped by Ctrl-C, and 1, without a word, where the reader of the
    output has gone (`| head`): typer sees to that.

    Args:
        arguments: what to run instead of `sys.argv`.
    """
    with standard_streams.mended(), warnings.catch_warnings():
        warnings.showwarning = _show_warning
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    try:
        code = int(app(args=arguments, prog_name="gliner-fast", standalone_mode=False) or 0)
        if not standard_streams.flush():
            return 1
    except _UsageError as error:
        return _fail(_describe_misuse(error))
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except (ValueError, OSError, ImportError, MemoryError) as error:  # what our own messages come in
        if isinstance(error, OSError) and error.filename == standard_streams.NAME:
            standard_streams.give_up()
        return _fail(_describe(error))
    except Exception as error:  # noqa: BLE001  # Python's own code for it is 1, which says that answers differ
        tell("".join(traceback.format_exception(error)).rstrip())
        return 2
    return code


def _describe_misuse(error: Any) -> str:
    """What is wrong with the arguments; of one that is missing also what is to be given, and in which order."""
    # Without a message it was the help, shown in place of a command's answer.
    message: str = error.format_message() or "no command is named: choose one of those above"
    if hasattr(error, "param_type"):  # MissingParameter
        parameters = error.ctx.command.params
        arguments = [one.metavar or one.name.upper() for one in parameters if one.param_type_name == "argument"]
        message += f" {error.param.help} Usage: {' '.join([error.ctx.command_path, *arguments])} [OPTIONS]"
    return message


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _fail(message: str) -> int:
    tell(f"gliner-fast: error: {' '.join(message.split())}")
    return 2


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    del category, filename, lineno, file, line  # where in our code it was raised is nothing to the user
    tell(f"gliner-fast: warning: {' '.join(str(message).split())}")
