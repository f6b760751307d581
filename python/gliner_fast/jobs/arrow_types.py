"""Types of Arrow columns: which hold texts or labels, and what entities are stored as."""

from __future__ import annotations

from typing import Any

from gliner_fast.jobs._arrow import pa

# Offsets count Unicode code points, as Entity's do.
ENTITY_FIELDS = [
    ("start", pa.int64()),
    ("end", pa.int64()),
    ("text", pa.string()),
    ("label", pa.string()),
    ("score", pa.float32()),
]


def entities_type() -> pa.DataType:
    """Type of a column of lists of entities."""
    return pa.list_(pa.struct(ENTITY_FIELDS))


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type without what is the file's own affair: dictionaries, which tell what came before, and views."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.string()
    return pa.binary() if pa.types.is_binary_view(kind) else kind


def holds_strings(kind: pa.DataType) -> bool:
    """Whether a column of this type can be one of texts."""
    types, plain = pa.types, plain_type(kind)
    # A column of nothing but null has no type of its own.
    return any(is_kind(plain) for is_kind in (types.is_null, types.is_string, types.is_large_string))


def holds_labels(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold each row's own labels."""
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return holds_strings(kind.value_type)
    if types.is_map(kind):
        return holds_strings(kind.key_type) and holds_strings(kind.item_type)
    if types.is_struct(kind):
        return all(holds_strings(field.type) for field in kind)
    return holds_strings(kind)


def as_labels(value: Any) -> Any:
    """A value of such a column, as `to_pylist` gives it, as JSON would have it."""
    if isinstance(value, dict):  # a struct has all keys in all rows
        return {label: description for label, description in value.items() if description is not None}
    if isinstance(value, list) and value and all(isinstance(pair, tuple) for pair in value):
        return dict(value)  # a map
    return value
