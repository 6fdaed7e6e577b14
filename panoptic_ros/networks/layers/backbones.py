"""The trunks that a network can be built on, by name."""

from __future__ import annotations

from torch import nn

from panoptic_ros.networks.layers.efficientnet_lite import EFFICIENTNETS, EfficientNetLite
from panoptic_ros.networks.layers.resnet import RESNETS, ResNet

Backbone = ResNet | EfficientNetLite


def build_backbone(name: str, norm: str = "batch", stride_in_1x1: bool = False) -> Backbone:
    """Build a trunk that gives C2..C5 and has their ``channels``.

    Args:
        name: A key of ``RESNETS`` or of ``EFFICIENTNETS``.
        norm: ``batch`` or ``frozen``, see ``ResNet``; an EfficientNet has ``batch`` only.
        stride_in_1x1: See ``ResNet``; an EfficientNet has no such choice.

    Raises:
        ValueError: The name is unknown, or an EfficientNet cannot be built so.
    """
    if name in RESNETS:
        return ResNet(name, norm, stride_in_1x1=stride_in_1x1)
    if name not in EFFICIENTNETS:
        known = ", ".join([*RESNETS, *EFFICIENTNETS])
        raise ValueError(f"unknown backbone {name!r}; there are {known}")
    if norm != "batch" or stride_in_1x1:
        raise ValueError(
            f"backbone {name} with norm {norm!r} and stride_in_1x1 {stride_in_1x1}: it has batch "
            "norm and no such strides; use norm: batch and stride_in_1x1: false"
        )
    return EfficientNetLite(name)


def is_backbone(module: nn.Module) -> bool:
    """Return whether a module is one of the trunks."""
    return isinstance(module, Backbone)
