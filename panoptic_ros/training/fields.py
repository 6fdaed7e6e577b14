"""Turns mappings read from YAML into dataclasses, with errors that name the field."""

from __future__ import annotations

import dataclasses
import os
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class RecipeError(ValueError):
    """A recipe cannot be used; the message names the field and what is expected there."""


def parse(kind: type[T], fields: Any, where: str) -> T:
    """Build the dataclass ``kind`` from a mapping, converting each value to its field's type.

    Raises:
        RecipeError: A field is unknown, missing or of another type, or ``kind`` refuses it.
    """
    if not isinstance(fields, Mapping):
        raise RecipeError(f"{where}: expected a mapping of fields, got {fields!r}")
    types_by_name = typing.get_type_hints(kind)
    known = {field.name: field for field in dataclasses.fields(kind)}
    if unknown := [str(name) for name in fields if name not in known]:
        raise RecipeError(
            f"{where}: unknown field {', '.join(unknown)}; known are {', '.join(known)}"
        )
    required = {name for name, field in known.items() if not _has_default(field)}
    if missing := required - set(fields):
        raise RecipeError(f"{where}: missing field {', '.join(sorted(missing))}")
    values = {
        name: convert(value, types_by_name[name], f"{where}.{name}")
        for name, value in fields.items()
    }
    try:
        return kind(**values)
    except ValueError as error:
        raise RecipeError(f"{where}: {error}") from error


def _has_default(field: dataclasses.Field) -> bool:
    return (
        field.default is not dataclasses.MISSING
        or field.default_factory is not dataclasses.MISSING
    )


def convert(value: Any, kind: Any, where: str) -> Any:
    """Return ``value`` as ``kind``: a plain type, tuple[X, ...], X | None or a dataclass."""
    if dataclasses.is_dataclass(kind):
        return parse(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return convert(value, next(a for a in arguments if a is not types.NoneType), where)
    if origin is tuple:
        return _tuple(value, arguments, where)
    if kind is dict or origin is dict:
        if isinstance(value, Mapping):
            return dict(value)
    elif kind is float:
        number = _number(value)
        if number is not None:
            return number
    elif kind is Any or (isinstance(value, kind) and isinstance(value, bool) == (kind is bool)):
        return value
    raise RecipeError(f"{where}: expected {_name(kind)}, got {value!r}")


def _tuple(value: Any, arguments: tuple, where: str) -> tuple:
    if not isinstance(value, list | tuple):
        raise RecipeError(f"{where}: expected a list, got {value!r}")
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        raise RecipeError(f"{where}: expected {len(arguments)} values, got {list(value)!r}")
    return tuple(
        convert(item, kind, f"{where}[{i}]")
        for i, (item, kind) in enumerate(zip(value, arguments, strict=True))
    )


def _number(value: Any) -> float | None:
    """Read a number; YAML 1.1 takes ``1e-3`` (without a point) for a string."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _name(kind: Any) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(
        kind, "a mapping"
    )


def expand(value: Any) -> Any:
    """Replace ``${NAME}`` by the environment variable NAME in every text of a nested value.

    Raises:
        RecipeError: The variable is not set.
    """
    if isinstance(value, Mapping):
        return {key: expand(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [expand(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"\$\{(\w+)\}", lambda match: _variable(match[1], value), value)
    return value


def _variable(name: str, text: str) -> str:
    if name not in os.environ:
        raise RecipeError(
            f"the recipe uses {text!r}, but the environment variable {name} is not set; set it "
            f"to the folder or file meant, for example export {name}=/data/{name.lower()}"
        )
    return os.environ[name]


def differences(a: Any, b: Any, name: str = "") -> Iterator[str]:
    """Yield the dotted names of what differs between two nested values."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in a.keys() | b.keys():
            yield from differences(a.get(key), b.get(key), f"{name}.{key}" if name else key)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (first, second) in enumerate(zip(a, b, strict=True)):
            yield from differences(first, second, f"{name}[{index}]")
    elif a != b:
        yield name
