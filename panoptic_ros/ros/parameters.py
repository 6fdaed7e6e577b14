"""The parameters of the node: one table that declares, validates and documents them.

``python3 -m panoptic_ros.ros.parameters`` prints config/panoptic.yaml.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from panoptic_ros.engines import ENGINES
from panoptic_ros.ros.parameter_fields import Applies, checked, describe, parameter
from panoptic_ros.tracking.assignment import require_scipy

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.parameter import Parameter


@dataclass(frozen=True)
class Parameters:
    """A valid set of values; making one that is not raises ValueError with the reason."""

    model: str = parameter(
        "fpsnet_small",
        "Name of a model, or path of a model folder.",
        Applies.RELOAD,
        pattern=r".+",
    )
    resolution: str = parameter(
        "",
        "HEIGHTxWIDTH that the network sees, for example 512x1024; empty is the model's own. "
        "The outputs always have the size of the camera image.",
        Applies.RELOAD,
        pattern=r"|\d+x\d+",
    )
    device: str = parameter(
        "auto",
        "auto (CUDA where there is one), cpu, cuda or cuda:N.",
        Applies.RELOAD,
        pattern=r"auto|cpu|cuda(:\d+)?",
    )
    precision: str = parameter(
        "auto",
        "Number format of the network; auto is the fastest safe one of the device. int8 needs "
        "what panoptic quantize writes for a model and a resolution.",
        Applies.RELOAD,
        words=("auto", "fp32", "fp16", "bf16", "int8"),
    )
    engine: str = parameter(
        "auto",
        "What computes the network; auto is the fastest of the device that is installed. "
        "Compiling takes up to minutes the first time and is kept on disk.",
        Applies.RELOAD,
        words=("auto", *ENGINES),
    )
    score_threshold: float = parameter(
        -1.0,
        "Instances below this score are dropped; -1 is the model's own.",
        Applies.AT_ONCE,
        limits=(0.0, 1.0),
    )
    overlap_threshold: float = parameter(
        -1.0,
        "An instance is dropped when better ones cover more than this part of it; "
        "-1 is the model's own.",
        Applies.AT_ONCE,
        limits=(0.0, 1.0),
    )
    stuff_area_limit: int = parameter(
        -1,
        "Stuff classes with fewer pixels in the label image become void; -1 is the model's own.",
        Applies.AT_ONCE,
        limits=(0, 1 << 30),
    )
    tracking: bool = parameter(
        False,
        "Number the instances so that a thing has the same track_id in every image; needs SciPy.",
        Applies.AT_ONCE,
    )
    overlay_opacity: float = parameter(
        0.6,
        "Opacity of the colours in ~/overlay.",
        Applies.AT_ONCE,
        limits=(0.0, 1.0),
    )
    mask_classes: tuple[str, ...] = parameter(
        ("",),
        "Names or ids of the classes that ~/mask shows; the empty name is none, and no ~/mask.",
        Applies.UNCONFIGURED,
        pattern=r"[^\n]*",
        expected="different names or ids of classes, or only the empty one",
    )
    depth: bool = parameter(
        False,
        "Take depth and camera_info, registered to image, for ~/points, ~/instances_3d and the "
        "place and size of instances.",
        Applies.UNCONFIGURED,
    )
    depth_tolerance: float = parameter(
        0.0,
        "Seconds by which the stamps of an image and its depth may differ; 0 is not at all.",
        Applies.AT_ONCE,
        limits=(0.0, 1.0),
    )
    voxel_size: float = parameter(
        0.0,
        "Side in metres of the cubes of which each has one point in ~/points; 0 is a point for "
        "every pixel, with NaN where there is no depth.",
        Applies.AT_ONCE,
        limits=(0.0, 10.0),
    )
    max_rate: float = parameter(
        0.0,
        "Images per second of each camera that are segmented at most, by their stamps; "
        "0 is no limit.",
        Applies.AT_ONCE,
        limits=(0.0, 1000.0),
    )
    lazy: bool = parameter(
        True,
        "Subscribe to and segment the images of a camera only while some output of it has a "
        "subscriber.",
        Applies.AT_ONCE,
    )
    reliability: str = parameter(
        "auto",
        "QoS reliability of the image subscription; auto follows the publishers found.",
        Applies.AT_ONCE,
        words=("auto", "reliable", "best_effort"),
    )
    image_transport: str = parameter(
        "raw",
        "raw subscribes to image, compressed to image/compressed (JPEG or PNG).",
        Applies.UNCONFIGURED,
        words=("raw", "compressed"),
    )
    max_pixels: int = parameter(
        64_000_000,
        "An image that declares more pixels is refused, before anything is allocated for it.",
        Applies.AT_ONCE,
        limits=(1, 1 << 31),
    )
    cameras: tuple[str, ...] = parameter(
        ("",),
        "Names of the cameras: CAMERA/image is segmented to ~/CAMERA/labels and so on. "
        "The empty name is a single camera: image to ~/labels.",
        Applies.UNCONFIGURED,
        pattern=r"|[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*",
        expected="different names of letters, digits, _ and /, at least one",
    )
    autostart: bool = parameter(
        True,
        "Configure and activate without being told to.",
        Applies.START,
    )

    def __post_init__(self) -> None:
        """Check all values; raises ValueError naming the first that does not fit."""
        for entry in fields(self):
            object.__setattr__(self, entry.name, checked(entry, getattr(self, entry.name)))
        if self.tracking:
            require_scipy()

    @property
    def classes_in_mask(self) -> tuple[str, ...]:
        """The names or ids of the classes that ~/mask shows."""
        return tuple(filter(None, self.mask_classes))

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
