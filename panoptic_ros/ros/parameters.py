"""The parameters of the node: one table that declares, validates and documents them.

``python3 -m panoptic_ros.ros.parameters`` prints config/panoptic.yaml.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from dataclasses import Field, dataclass, field, fields, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from panoptic_ros.engines import ENGINES

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.parameter import Parameter


class Applies(Enum):
    """When a new value takes effect."""

    AT_ONCE = "Changes at once."
    RELOAD = "At run time the new model loads beside the old one, then takes over."
    UNCONFIGURED = "Changes only while the node is unconfigured."
    START = "Read once at start."


def _parameter(
    default: Any,
    description: str,
    applies: Applies,
    limits: tuple[float, float] | None = None,
    words: tuple[str, ...] = (),
    pattern: str = "",
) -> Any:
    """Describe one parameter: a number within ``limits``, one of ``words``, or a ``pattern``."""
    return field(
        default=default,
        metadata={
            "description": description,
            "applies": applies,
            "limits": limits,
            "words": words,
            "pattern": pattern,
        },
    )


@dataclass(frozen=True)
class Parameters:
    """A valid set of values; making one that is not raises ValueError with the reason."""

    model: str = _parameter(
        "fpsnet_small",
        "Name of a model, or path of a model folder.",
        Applies.RELOAD,
        pattern=r".+",
    )
    resolution: str = _parameter(
        "",
        "HEIGHTxWIDTH that the network sees, for example 512x1024; empty is the model's own. "
        "The outputs always have the size of the camera image.",
        Applies.RELOAD,
        pattern=r"|\d+x\d+",
    )
    device: str = _parameter(
        "auto",
        "auto (CUDA where there is one), cpu, cuda or cuda:N.",
        Applies.RELOAD,
        pattern=r"auto|cpu|cuda(:\d+)?",
    )
    precision: str = _parameter(
        "auto",
        "Number format of the network; auto is the fastest safe one of the device. int8 needs "
        "what panoptic quantize writes for a model and a resolution.",
        Applies.RELOAD,
        words=("auto", "fp32", "fp16", "bf16", "int8"),
    )
    engine: str = _parameter(
        "auto",
        "What computes the network; auto is the fastest of the device that is installed. "
        "Compiling takes up to minutes the first time and is kept on disk.",
        Applies.RELOAD,
        words=("auto", *ENGINES),
    )
    score_threshold: float = _parameter(
        -1.0,
        "Instances below this score are dropped; -1 is the model's own.",
        Applies.AT_ONCE,
        limits=(0.0, 1.0),
    )
    overlap_threshold: float = _parameter(
        -1.0,
        "An instance is dropped when better ones cover more than this part of it; "
        "-1 is the model's own.",
        Applies.AT_ONCE,
        limits=(0.0, 1.0),
    )
    stuff_area_limit: int = _parameter(
        -1,
        "Stuff classes with fewer pixels in the label image become void; -1 is the model's own.",
        Applies.AT_ONCE,
        limits=(0, 1 << 30),
    )
    overlay_opacity: float = _parameter(
        0.6,
        "Opacity of the colours in ~/overlay.",
        Applies.AT_ONCE,
        limits=(0.0, 1.0),
    )
    max_rate: float = _parameter(
        0.0,
        "Images per second of each camera that are segmented at most, by their stamps; "
        "0 is no limit.",
        Applies.AT_ONCE,
        limits=(0.0, 1000.0),
    )
    lazy: bool = _parameter(
        True,
        "Subscribe to and segment the images of a camera only while some output of it has a "
        "subscriber.",
        Applies.AT_ONCE,
    )
    reliability: str = _parameter(
        "auto",
        "QoS reliability of the image subscription; auto follows the publishers found.",
        Applies.AT_ONCE,
        words=("auto", "reliable", "best_effort"),
    )
    image_transport: str = _parameter(
        "raw",
        "raw subscribes to image, compressed to image/compressed (JPEG or PNG).",
        Applies.UNCONFIGURED,
        words=("raw", "compressed"),
    )
    max_pixels: int = _parameter(
        64_000_000,
        "An image that declares more pixels is refused, before anything is allocated for it.",
        Applies.AT_ONCE,
        limits=(1, 1 << 31),
    )
    cameras: tuple[str, ...] = _parameter(
        ("",),
        "Names of the cameras: CAMERA/image is segmented to ~/CAMERA/labels and so on. "
        "The empty name is a single camera: image to ~/labels.",
        Applies.UNCONFIGURED,
        pattern=r"|[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*",
    )
    autostart: bool = _parameter(
        True,
        "Configure and activate without being told to.",
        Applies.START,
    )

    def __post_init__(self) -> None:
        """Check all values; raises ValueError naming the first that does not fit."""
        for entry in fields(self):
            object.__setattr__(self, entry.name, _checked(entry, getattr(self, entry.name)))

    def differs(self, other: Parameters, applies: Applies) -> list[str]:
        """Return the names of the parameters of one kind that differ from ``other``."""
        return [
            entry.name
            for entry in fields(self)
            if entry.metadata["applies"] is applies
            and getattr(self, entry.name) != getattr(other, entry.name)
        ]

    def changed(self, parameters: Iterable[Parameter]) -> Parameters:
        """Return a copy with the values of ROS parameters; names not in the table are ignored.

        Raises:
            ValueError: A value does not fit.
        """
        names = {entry.name for entry in fields(self)}
        return replace(self, **{p.name: p.value for p in parameters if p.name in names})


def declare_parameters(node: Node) -> Parameters:
    """Declare all parameters on a node and return their values.

    Raises:
        ValueError: A value from the command line or a file does not fit.
    """
    declared = [
        node.declare_parameter(entry.name, _as_ros_value(entry.default), describe(entry))
        for entry in fields(Parameters)
    ]
    return Parameters().changed(declared)


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


def as_yaml() -> str:
    """Return the defaults of all parameters, explained, as a ROS parameter file."""
    lines = [
        "# All parameters of the node with their defaults.",
        "# Made by `python3 -m panoptic_ros.ros.parameters`; a test compares it with the table.",
        "/**:",
        "  ros__parameters:",
    ]
    for entry in fields(Parameters):
        comment = f"{entry.metadata['description']} {entry.metadata['applies'].value}"
        if words := entry.metadata["words"]:
            comment += f" One of: {', '.join(words)}."
        lines += textwrap.wrap(comment, 99, initial_indent="    # ", subsequent_indent="    # ")
        lines.append(f"    {entry.name}: {_as_yaml_value(entry.default)}")
    return "\n".join(lines) + "\n"


def _checked(entry: Field, value: Any) -> Any:
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
    if isinstance(entry.default, tuple):
        return "different names of letters, digits, _ and /, at least one"
    return entry.metadata["description"].split(";")[0].rstrip(".")


def _as_ros_value(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _as_yaml_value(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_as_yaml_value, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    print(as_yaml(), end="")
