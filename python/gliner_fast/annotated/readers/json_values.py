"""JSON lines, or one JSON list -> values with their places."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from gliner_fast.annotated.example import DataError, Report
from gliner_fast.annotated.readers.source import read_lines

_OPENS_LIST = re.compile(r"\s*\[\s*([\[{\]]|$)")  # but not ["text", {...}], which is a record on a line
_SPACE = re.compile(r"[ \t\n\r]*")
_EXPECTED = "expected one object a line, or one list of them"


def read_values(path: Path, report: Report) -> Iterator[tuple[str, Any]]:
    """Yields the place ("FILE, line N") and the value of each record; blank lines are passed over.

    Args:
        path: the file.
        report: takes lines that are broken JSON.

    Raises:
        DataError: a broken list, behind which nothing can be told apart; or by `report`.
    """
    lines = read_lines(path)
    first = next(((number, line) for number, line in lines if line.strip()), None)
    if first is None:
        return
    if _OPENS_LIST.match(first[1]):
        yield from _read_list("\n".join(line for _, line in chain([first], lines)), path, first[0])
        return
    for number, line in chain([first], lines):
        if line.strip():
            place = f"{path}, line {number}"
            try:
                value = json.loads(line)
            except ValueError as error:
                report(DataError(f"{place}: not JSON ({error}); {_EXPECTED}{_hint(error, line)}"))
            except RecursionError:
                report(DataError(f"{place}: nested deeper than JSON is read; {_EXPECTED}"))
            else:
                yield place, value


def _hint(error: ValueError, line: str) -> str:
    goes_on = isinstance(error, json.JSONDecodeError) and error.pos >= len(line.rstrip())
    return ". Does this one go on in the next line?" if goes_on else ""


def _read_list(text: str, path: Path, first_line: int) -> Iterator[tuple[str, Any]]:
    """The values of a JSON list one by one, so that each has its line."""
    decoder = json.JSONDecoder()
    line, counted = first_line, 0
    at = _skip_space(text, text.index("[") + 1)
    is_first = True
    while text[at : at + 1] != "]":
        if not is_first:
            at = _skip_space(text, at + 1) if text[at : at + 1] == "," else len(text)
        is_first = False
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            wrong = first_line + text.count("\n", 0, error.pos)
            raise DataError(f"{path}, line {wrong}: not JSON ({error.msg}); {_EXPECTED}") from error
        except ValueError as error:  # a number of more than 4,300 digits
            raise DataError(f"{path}, line {line}: not JSON ({error}); {_EXPECTED}") from error
        except RecursionError as error:
            raise DataError(f"{path}, line {line}: nested deeper than JSON is read; {_EXPECTED}") from error
        yield f"{path}, line {line}", value
        at = _skip_space(text, at)
    if text[at + 1 :].strip():
        line += text.count("\n", counted, at)
        raise DataError(f"{path}, line {line}: something follows the end of the list; {_EXPECTED}")


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None, "the pattern matches nothing, too"
    return match.end()
