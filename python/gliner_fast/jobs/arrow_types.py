"""Types of Arrow columns: which hold texts or labels, and what entities and relations are stored as."""

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
_END = pa.struct(
    [
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("text", pa.string()),
        ("type", pa.string()),
        ("entity_idx", pa.int64()),
    ]
)
RELATION_FIELDS = [("head", _END), ("tail", _END), ("relation", pa.string()), ("score", pa.float32())]


def entities_type() -> pa.DataType:
    """Type of a column of lists of entities."""
    return pa.list_(pa.struct(ENTITY_FIELDS))


def relations_type() -> pa.DataType:
    """Type of a column of lists of relations."""
    return pa.list_(pa.struct(RELATION_FIELDS))


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type without what is the file's own affair: dictionaries, which tell what came before, and views.

    Also within lists, structs and maps: Arrow cannot take single rows of a list of views.
    """
    types = pa.types
    if types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if types.is_string_view(kind):
        return pa.string()
    if types.is_binary_view(kind):
        return pa.binary()
    return _plain_inside(kind)


def _plain_inside(kind: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_list(kind):
        return pa.list_(_plain_field(kind.value_field))
    if types.is_large_list(kind):
        return pa.large_list(_plain_field(kind.value_field))
    if types.is_fixed_size_list(kind):
        return pa.list_(_plain_field(kind.value_field), kind.list_size)
    if types.is_struct(kind):
        return pa.struct([_plain_field(field) for field in kind])
    if types.is_map(kind):
        return pa.map_(_plain_field(kind.key_field), _plain_field(kind.item_field), keys_sorted=kind.keys_sorted)
    return kind


def _plain_field(field: pa.Field) -> pa.Field:
    return field.with_type(plain_type(field.type))


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
