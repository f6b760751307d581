"""Arrow values -> JSON: what JSON has no kind for becomes text, and the same text on every machine.

Times are ISO 8601 (`2026-11-23T02:00:00.000000`), decimals their digits, durations whole numbers of their unit, bytes
Base64, UUIDs their usual 36 characters, maps lists of [key, value]; a number that is not finite is null.
"""

from __future__ import annotations

import base64
import json
import math
import uuid
from typing import Any

from gliner_fast.jobs._arrow import pa

try:
    import orjson
except ModuleNotFoundError as error:
    raise ImportError("jobs on files need orjson: pip install 'gliner-fast[jobs]'") from error


def read_json_rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a table, which has columns, as objects for `dump_json`.

    Raises:
        UnicodeDecodeError: a string that is not UTF-8, which Arrow does not check by itself.
    """
    names = table.column_names
    return [dict(zip(names, values, strict=True)) for values in zip(*map(_read_column, table.columns), strict=True)]


def dump_json(value: Any) -> str:
    """One line of JSON; characters beyond ASCII stand as they are."""
    try:
        return _ENCODER.encode(value)
    except ValueError:
        return _ENCODER.encode(_without_infinities(value))


def dump_json_line(value: Any) -> bytes:
    """The same, and its line break, without blanks and several times as fast."""
    try:
        return orjson.dumps(value, default=_encode_other, option=_LINE)
    except TypeError:  # what it does not know: whole numbers beyond 64 bits, deep nesting
        return _DENSE_ENCODER.encode(_without_infinities(value)).encode() + b"\n"


def _read_column(column: pa.ChunkedArray) -> list[Any]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    plain = _plain(column.type)
    if plain == column.type:
        values: list[Any] = column.to_pylist()
        return values
    return [_with_iso_times(value, column.type) for value in column.cast(plain).to_pylist()]


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type to read values from: Python's own times are coarser than Arrow's, and pandas' need pandas."""
    types = pa.types
    if types.is_temporal(kind):
        return pa.int64() if types.is_duration(kind) else pa.string()
    if types.is_decimal(kind):
        return pa.string()
    if types.is_struct(kind):
        return pa.struct([_plain_field(field) for field in kind])
    if types.is_map(kind):
        return pa.map_(_plain_field(kind.key_field), _plain_field(kind.item_field))
    if _is_list(kind):
        return pa.list_(_plain_field(kind.value_field))
    return kind


def _plain_field(field: pa.Field) -> pa.Field:
    return field.with_type(_plain(field.type))


def _with_iso_times(value: Any, kind: pa.DataType) -> Any:
    """Puts a T between date and time of day, where Arrow puts a space; `kind` is what the values were."""
    if value is None:
        return None
    if pa.types.is_timestamp(kind):
        return value.replace(" ", "T", 1)
    if pa.types.is_struct(kind):
        return {field.name: _with_iso_times(value[field.name], field.type) for field in kind}
    if pa.types.is_map(kind):
        return [[_with_iso_times(key, kind.key_type), _with_iso_times(item, kind.item_type)] for key, item in value]
    if _is_list(kind):
        return [_with_iso_times(item, kind.value_type) for item in value]
    return value


def _is_list(kind: pa.DataType) -> bool:
    return any(is_kind(kind) for is_kind in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))


def _encode_other(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, uuid.UUID):
        return str(value)
    raise TypeError(f"{value!r} ({type(value).__name__}) has no form in JSON")


# Made once: json.dumps would make one for each row.
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_encode_other)
_DENSE_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_encode_other, separators=(",", ":"))
# Of what has no kind in JSON it is to take no more than the others do.
_LINE = orjson.OPT_APPEND_NEWLINE | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS


def _without_infinities(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_infinities(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_infinities(item) for item in value]
    return value
