"""What a parameter is: a field of a dataclass with a description and what it takes."""

from __future__ import annotations

import re
from dataclasses import Field, field
from enum import Enum
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor


class Applies(Enum):
    """When a new value takes effect."""

    AT_ONCE = "Changes at once."
    RELOAD = "At run time the new model loads beside the old one, then takes over."
    UNCONFIGURED = "Changes only while the node is unconfigured."
    START = "Read once at start."


def parameter(
    default: Any,
    description: str,
    applies: Applies,
    limits: tuple[float, float] | None = None,
    words: tuple[str, ...] = (),
    pattern: str = "",
    expected: str = "",
) -> Any:
    """Describe one parameter: a number within ``limits``, one of ``words``, or a ``pattern``.

    ``expected`` says in words what fits, where that does not follow from the others.
    """
    return field(
        default=default,
        metadata={
            "description": description,
            "applies": applies,
            "limits": limits,
            "words": words,
            "pattern": pattern,
            "expected": expected,
        },
    )


def describe(entry: Field) -> ParameterDescriptor:
    """Return the descriptor of a field of ``Parameters``, as ``ros2 param describe`` shows it."""
    limits = entry.metadata["limits"]
    descriptor = ParameterDescriptor(
        name=entry.name,
        description=f"{entry.metadata['description']} {entry.metadata['applies'].value}",
        additional_constraints=_expected(entry),
        read_only=entry.metadata["applies"] is Applies.START,
        # Whole numbers are fine where a float is expected (max_rate: 10); rclpy would refuse them.
        dynamic_typing=isinstance(entry.default, float),
    )
    if limits:
        low = min(limits[0], entry.default)  # -1, where it stands for the model's own value
        if isinstance(entry.default, float):
            allowed = FloatingPointRange(from_value=low, to_value=limits[1])
            descriptor.floating_point_range = [allowed]
        else:
            allowed = IntegerRange(from_value=low, to_value=limits[1], step=1)
            descriptor.integer_range = [allowed]
    return descriptor


def checked(entry: Field, value: Any) -> Any:
    """Return ``value`` in the type of its field; raises ValueError when it does not fit."""
    limits, words, pattern = (entry.metadata[key] for key in ("limits", "words", "pattern"))
    default = entry.default
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if isinstance(default, tuple) and isinstance(value, (list, tuple)):
        value = tuple(value)
    texts = value if isinstance(value, tuple) else (value,)
    fits = type(value) is type(default)
    if fits and limits:
        fits = limits[0] <= value <= limits[1] or value == default
    if fits and words:
        fits = value in words
    if fits and pattern:
        fits = all(isinstance(text, str) and re.fullmatch(pattern, text) for text in texts)
    if fits and isinstance(value, tuple):
        fits = len(value) > 0 and len(set(value)) == len(value)
    if not fits:
        shown = list(value) if isinstance(value, tuple) else value
        raise ValueError(f"{entry.name} is {shown!r}; expected {_expected(entry)}")
    return value


def _expected(entry: Field) -> str:
    """Return in words what values a field takes."""
    if limits := entry.metadata["limits"]:
        kind = "a number" if isinstance(entry.default, float) else "a whole number"
        own = "" if limits[0] <= entry.default <= limits[1] else f", or {entry.default}"
        return f"{kind} in {limits[0]}..{limits[1]}{own}"
    if words := entry.metadata["words"]:
        return f"one of {', '.join(words)}"
    if isinstance(entry.default, bool):
        return "true or false"
    return entry.metadata["expected"] or entry.metadata["description"].split(";")[0].rstrip(".")
