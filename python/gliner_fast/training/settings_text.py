"""A dataclass of settings as YAML, with what its class says of each field if that is wanted."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_COMMENT_WIDTH = 100  # characters


def as_yaml(settings: DataclassInstance) -> str:
    """All fields, in their order."""
    return _dump(dataclasses.asdict(settings))


def as_described_yaml(settings: DataclassInstance, within: Mapping[str, type]) -> str:
    """All fields, the meaning of each above it as a comment.

    Args:
        settings: a dataclass; what stands in quotes below a field is its meaning.
        within: fields that hold other dataclasses, whose fields are told there too.
    """
    meanings = _meanings(type(settings))
    parts = []
    for name, value in dataclasses.asdict(settings).items():
        paragraphs = [meanings[name]] if name in meanings else []
        if name in within:
            paragraphs += [f"{field}: {meaning}" for field, meaning in _meanings(within[name]).items()]
        text = [own.replace("None", "null") for own in paragraphs]  # as YAML has it
        parts += [f"# {line}\n" for own in text for line in textwrap.wrap(own, _COMMENT_WIDTH)]
        parts.append(_dump({name: value}))
    return "".join(parts)


def _meanings(cls: type) -> dict[str, str]:
    """What is said of each field in the quotes below it, which Python keeps in the source alone."""
    try:
        source = inspect.getsource(cls)
    except OSError:
        return {}  # installed without it
    (found,) = ast.parse(source).body
    assert isinstance(found, ast.ClassDef)
    return {
        field.target.id: " ".join(note.value.value.split())
        for field, note in pairwise(found.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(note, ast.Expr) and isinstance(note.value, ast.Constant) and isinstance(note.value.value, str)
    }


def _dump(settings: dict[str, Any]) -> str:
    import yaml  # type: ignore[import-untyped]

    text: str = yaml.safe_dump(_plain(settings), sort_keys=False, allow_unicode=True)
    return text


def _plain(value: Any) -> Any:
    """Tuples as lists, which is what YAML has."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
