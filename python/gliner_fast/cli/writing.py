"""The files that commands write: looked at before the work, and whole or as they were."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gliner_fast.cli.reading import InputError
from gliner_fast.whole_files import write_whole

STDOUT = "-"


def check_outputs(
    outputs: Mapping[str, Path | None], inputs: Iterable[tuple[str, Path | None]] = (), *, overwrite: bool = False
) -> None:
    """Asks whether files can be written, before hours are spent on what goes into them.

    Args:
        outputs: by their options; "-" is standard output.
        inputs: what must not be written over, whatever is asked.
        overwrite: outputs may take the place of earlier files.

    Raises:
        InputError: a folder is missing, a folder has the name, it is an input or another output, or it
            is there already; or two go to standard output.
    """
    streams = [name for name, file in outputs.items() if str(file) == STDOUT]
    if len(streams) > 1:
        raise InputError(f"{' and '.join(streams)} would share stdout: give one of them a file")
    taken = {file.resolve(): name for name, file in inputs if file is not None}
    for name, file in outputs.items():
        if file is None or str(file) == STDOUT:
            continue
        if not file.parent.is_dir():
            raise InputError(f"{file} cannot be written: there is no folder {file.parent}")
        if not file.exists() or file.is_file():  # devices and pipes hold nothing that could be lost
            other = taken.setdefault(file.resolve(), name)
            if other != name:
                raise InputError(f"{other} and {name} are the same file, {file}: name another one")
            if file.exists() and not overwrite:
                raise InputError(f"{file} exists: choose another name for {name}, or overwrite it (--overwrite)")
        elif file.is_dir():
            raise InputError(f"{file} is a folder: {name} needs the name of a file")


def write_text(file: Path, text: str) -> None:
    """Writes a file as a whole; "-" is standard output.

    Raises:
        OSError: it cannot be written; names it.
    """
    if str(file) == STDOUT:
        print(text, end="")
    else:
        write_whole(file, text.encode())


def write_record(file: Path, record: dict[str, Any]) -> None:
    """Writes a record as JSON; "-" is standard output."""
    write_text(file, dump_json(record, indent=1) + "\n")


def dump_json(value: Any, *, indent: int | None = None) -> str:
    """JSON in which characters stand as they are; all of it is escaped where one is a lone surrogate, not in UTF-8."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text
