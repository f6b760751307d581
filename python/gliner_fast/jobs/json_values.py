"""Arrow values -> JSON: what JSON has no kind for becomes text, and the same text on every machine.

Times are ISO 8601 (`2026-11-23T02:00:00.000000`), decimals their digits, durations whole numbers of their unit, bytes
Base64, UUIDs their usual 36 characters, maps lists of [key, value]; a number that is not finite is null, and so is a
time beyond the years -32,766 to 32,766, where Arrow has no text for it, or a wrong one.
"""

from __future__ import annotations

import base64
import json
import math
import uuid
from typing import Any

from gliner_fast.jobs._arrow import pa, pc

try:
    import orjson
except ModuleNotFoundError as error:
    raise ImportError("jobs on files need orjson: pip install 'gliner-fast[jobs]'") from error


# Seconds from 1970 to the beginnings of these years: Arrow counts years in 16 bits, and a time zone moves them.
_FIRST, _LAST = -1_096_162_243_200, 971_827_891_200
_PARTS_OF_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def read_json_rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a table, which has columns, as objects for `dump_json`.

    Raises:
        UnicodeDecodeError: a string that is not UTF-8, which Arrow does not check by itself.
    """
    names = table.column_names
    return [dict(zip(names, values, strict=True)) for values in zip(*map(_read_column, table.columns), strict=True)]


def without_json(kind: pa.DataType) -> str | None:
    """Why the values of a type cannot be written as JSON; None where they can."""
    types = pa.types
    if types.is_struct(kind):
        names = [field.name for field in kind]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            return f"its objects have two fields {twice!r}"
        return next(filter(None, (without_json(field.type) for field in kind)), None)
    if types.is_map(kind):
        return without_json(kind.key_type) or without_json(kind.item_type)
    if _is_list(kind):
        return without_json(kind.value_type)
    if _has_zone(kind):
        try:
            pa.array([0], kind).cast(pa.string())
        except pa.ArrowInvalid:
            return f"nobody here knows the time zone {kind.tz!r}"
    return None


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
    if _has_zone(column.type):
        column = _without_far_times(column)
    plain = _plain(column.type)
    if plain == column.type:
        values: list[Any] = column.to_pylist()
        return values
    return [_with_iso_times(value, column.type) for value in column.cast(plain).to_pylist()]


def _has_zone(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind) and kind.tz is not None


def _without_far_times(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Null in place of those of a time zone that Arrow has no text for: it gives a wrong one, or an error."""
    unit = _PARTS_OF_SECOND[column.type.unit]
    since = column.cast(pa.int64())
    limits = (max(_FIRST * unit, -(2**63)), min(_LAST * unit, 2**63 - 1))
    is_near = pc.and_(pc.greater_equal(since, limits[0]), pc.less_equal(since, limits[1]))
    return pc.if_else(is_near, column, pa.scalar(None, column.type))


def _plain(kind: pa.DataType, *, is_within: bool = False) -> pa.DataType:
    """The type to read values from: Python's own times are coarser than Arrow's, and pandas' need pandas.

    Those of a time zone that lie within lists and the like are read as numbers, each of which is then looked at.
    """
    types = pa.types
    if types.is_temporal(kind):
        return pa.int64() if types.is_duration(kind) or (is_within and _has_zone(kind)) else pa.string()
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
    return field.with_type(_plain(field.type, is_within=True))


def _with_iso_times(value: Any, kind: pa.DataType) -> Any:
    """Puts a T between date and time of day, where Arrow puts a space; `kind` is what the values were.

    A time that Arrow has no text for ("<value out of range: 123>") is null.
    """
    if value is None or (isinstance(value, str) and pa.types.is_temporal(kind) and value.startswith("<")):
        return None
    if pa.types.is_timestamp(kind):
        is_read = isinstance(value, str)
        return value.replace(" ", "T", 1) if is_read else _read_column(pa.chunked_array([pa.array([value], kind)]))[0]
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
# orjson would write dates and dataclasses by itself: they are refused, as by the encoders above.
_LINE = orjson.OPT_APPEND_NEWLINE | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS


def _without_infinities(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_infinities(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_infinities(item) for item in value]
    return value
