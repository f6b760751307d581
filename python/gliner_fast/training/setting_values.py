"""Values of settings, from YAML, a command line or Python, as the types of a dataclass's fields have them."""

from __future__ import annotations

import dataclasses
import difflib
import os
import types
import typing
from collections.abc import KeysView, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class ConfigError(ValueError):
    """A setting of a training run is unknown or cannot be; the message names it."""


def read_changes(changes: Sequence[str]) -> dict[str, Any]:
    """Settings given as NAME=VALUE, the value in YAML.

    Raises:
        ConfigError: one has another form.
    """
    import yaml  # type: ignore[import-untyped]

    read = {}
    for change in changes:
        name, equals, value = change.partition("=")
        if not name or not equals:
            raise ConfigError(f"--set {change}: expected NAME=VALUE, such as steps=500")
        try:
            read[name] = yaml.safe_load(value)
        except RecursionError as error:
            raise ConfigError(f"--set {name}: its value is nested deeper than YAML is read") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {change}: {value!r} is not YAML: quote it, or close its brackets") from error
    return read


def read_fields(cls: type, settings: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Values for a dataclass of settings, checked against the types of its fields.

    Raises:
        ConfigError: an unknown name, one that is missing, or a value of a wrong type.
    """
    hints = typing.get_type_hints(cls)
    for name in settings:
        if name not in hints:
            near = difflib.get_close_matches(str(name), hints, n=1)
            meant = f": did you mean {near[0]}?" if near else f": expected one of {', '.join(hints)}"
            raise ConfigError(f"{place}{name} is not a setting{meant}")
    for own in dataclasses.fields(cls):
        if own.name not in settings and own.default is own.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{place}{own.name} is missing")
    return {name: read_value(place + name, value, hints[name]) for name, value in settings.items()}


def normalise(settings: DataclassInstance) -> None:
    """Puts every value into the form that its field has, so that it can be written, and compared with what was read.

    Raises:
        ConfigError: one cannot be.
    """
    for name, hint in typing.get_type_hints(type(settings)).items():
        # The class is frozen for others.
        object.__setattr__(settings, name, read_value(name, getattr(settings, name), hint))


def read_value(name: str, value: Any, hint: Any) -> Any:
    """One value as the type of its field has it; a dataclass among the types has a class method `read` for its own.

    Raises:
        ConfigError: it cannot be.
    """
    value = _unwrapped(value)
    if get_origin(hint) in (types.UnionType, typing.Union):
        choices = [choice for choice in get_args(hint) if choice is not type(None)]
        if value is None and len(choices) < len(get_args(hint)):
            return None
        # Of several types all but the last are words with a meaning, such as "file".
        hint = next((choice for choice in choices if value in get_args(choice)), choices[-1])
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ConfigError(f"{name} is {value!r}: expected one of {', '.join(map(str, get_args(hint)))}")
        return next(own for own in get_args(hint) if own == value)
    if get_origin(hint) is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} is {value!r}: expected names with their values")
        key_hint, value_hint = get_args(hint)
        return {
            _read_plain(f"{name}: {key}", key, key_hint): read_value(f"{name}[{key!r}]", each, value_hint)
            for key, each in value.items()
        }
    if get_origin(hint) is tuple:
        values = [value] if isinstance(value, (str, Mapping)) or dataclasses.is_dataclass(value) else value
        if not isinstance(values, (list, tuple)):
            raise ConfigError(f"{name} is {value!r}: expected a list")
        return tuple(read_value(f"{name}[{index}]", each, get_args(hint)[0]) for index, each in enumerate(values))
    read_own = getattr(hint, "read", None)
    return read_own(name, value) if read_own is not None else _read_plain(name, value, hint)


def _unwrapped(value: Any) -> Any:
    """What YAML would have in the place of a value from Python."""
    if hasattr(value, "tolist"):  # numbers and arrays of numpy, columns of pandas
        return value.tolist()
    if isinstance(value, KeysView):
        return list(value)
    if isinstance(value, AbstractSet):
        return sorted(value, key=str)
    if isinstance(value, Enum):  # those of transformers
        return value.value
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _read_plain(name: str, value: Any, hint: type) -> Any:
    expected = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}[hint]
    if hint is float and isinstance(value, str):
        # YAML 1.1, and so PyYAML, reads 1e-5 as a string: it wants 1.0e-5.
        try:
            return float(value)
        except ValueError:
            pass
    if hint is float and type(value) is int:
        return float(value)
    if hint is int and type(value) is float and value.is_integer():
        return int(value)
    if hint is bool and type(value) is int and value in (0, 1):
        return bool(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{name} is {value!r}: expected {expected}")
    return hint(value)  # YAML has no place for what is derived from it
