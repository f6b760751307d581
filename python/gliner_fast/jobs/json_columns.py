"""JSON values -> Arrow columns, whose types are decided once from the first rows and hold for all the others.

A column of one kind of value gets that kind: bool, int64, float64 (fractions, and whole numbers among them), string, or
a list of these. Any other (objects, mixed kinds, very deep lists, nothing but null) holds each value as JSON text,
which takes whatever comes later: a struct would refuse or lose the keys that the first rows did not have. Times stay
the strings they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gliner_fast.errors import shown
from gliner_fast.jobs._arrow import pa
from gliner_fast.jobs.json_values import dump_json
from gliner_fast.jobs.records import BadRow

# Marks a column of JSON text, which readers could not tell from strings.
_JSON_TEXT = {"gliner_fast": "json"}

# Lists in lists that become a type: Parquet counts two or three levels for each, and readers give up at 100.
_DEEPEST_LISTS = 16

_WAYS_OUT = "name the columns to pass through (--columns), or write JSON lines, which take any value"


def plan_json_columns(rows: Sequence[Mapping[str, Any]], names: Sequence[str] | None) -> pa.Schema:
    """Decides the columns' types from the first rows; `names` None takes every key, in the order of appearance."""
    if names is None:
        names = list(dict.fromkeys(key for row in rows for key in row))
    fields = []
    for name in names:
        kind = _infer([row.get(name) for row in rows])
        fields.append(pa.field(name, pa.string(), metadata=_JSON_TEXT) if kind is None else pa.field(name, kind))
    return pa.schema(fields)


def is_misfit(reason: str) -> bool:
    """Whether a row was rejected for what it passes through alone, as the first rows were otherwise."""
    return reason.endswith(_WAYS_OUT)


class JsonColumns:
    """Puts the values of rows into the columns of a planned schema."""

    def __init__(self, schema: pa.Schema, *, is_closed: bool) -> None:
        """Prepares for a schema; where it `is_closed`, rows may not have other keys (all columns pass through)."""
        self._schema = schema
        # Told once: to ask the schema for its fields takes longer than to parse a row.
        self._columns = [(field.name, None if _is_json_text(field) else _fits(field.type)) for field in schema]
        self._names = frozenset(schema.names) if is_closed else None

    def read(self, row: Mapping[str, Any]) -> list[Any]:
        """The row's values in the order of the schema, null where it has none.

        Raises:
            BadRow: a value of another type than the column, or a key that no column is planned for.
        """
        if self._names is not None and not self._names.issuperset(row):
            unknown = next(key for key in row if key not in self._names)
            raise BadRow(
                f"{unknown!r} is not among the columns of the first rows ({', '.join(map(repr, self._schema.names))}): "
                f"{_WAYS_OUT}"
            )
        values = []
        for name, fits in self._columns:
            value = row.get(name)
            if value is not None and fits is None:
                value = dump_json(value)
            elif value is not None and fits is not None and not fits(value):
                kind = self._schema.field(name).type
                raise BadRow(f"{name!r} is {shown(value)}: expected {kind}, as in the first rows: {_WAYS_OUT}")
            values.append(value)
        return values

    def gather(self, rows: Sequence[Sequence[Any]]) -> pa.Table:
        """Makes a table of rows as `read` gave them."""
        columns = zip(*rows, strict=True) if rows else [()] * len(self._schema)
        arrays = [pa.array(values, field.type) for values, field in zip(columns, self._schema, strict=True)]
        return pa.Table.from_arrays(arrays, schema=self._schema)


def _infer(values: Iterable[Any], depth: int = 0) -> pa.DataType | None:
    """The type that holds all values, which lie in `depth` lists, exactly; None for JSON text."""
    there = [value for value in values if value is not None]
    for kind in (pa.bool_(), pa.int64(), pa.float64(), pa.string()):
        if there and all(map(_fits(kind), there)):
            return kind
    if there and depth < _DEEPEST_LISTS and all(isinstance(value, list) for value in there):
        inner = _infer((item for value in there for item in value), depth + 1)
        return None if inner is None else pa.list_(inner)
    return None


def _fits(kind: pa.DataType) -> Callable[[Any], bool]:
    """Returns what tells whether a JSON value other than null stands for itself in a column of this type."""
    if pa.types.is_boolean(kind):
        return lambda value: isinstance(value, bool)
    if pa.types.is_int64(kind):
        return lambda value: type(value) is int and -(2**63) <= value < 2**63
    if pa.types.is_float64(kind):
        return lambda value: type(value) is float or (type(value) is int and abs(value) <= 2**53)
    if pa.types.is_string(kind):
        return lambda value: isinstance(value, str)
    item_fits = _fits(kind.value_type)
    return lambda value: isinstance(value, list) and all(item is None or item_fits(item) for item in value)


def _is_json_text(field: pa.Field) -> bool:
    return {key.decode(): value.decode() for key, value in (field.metadata or {}).items()} == _JSON_TEXT
