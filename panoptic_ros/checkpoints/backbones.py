"""ImageNet classifiers of torchvision, as a start for training.

Only the trunk is loaded; the rest of the network keeps its fresh weights. The trunk expects RGB
images with ImageNet's mean and standard deviation, which therefore become the input format of the
model that is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from panoptic_ros.input_format import InputFormat
from panoptic_ros.model_zoo import ModelConfig
from panoptic_ros.networks.layers.resnet import ResNet

CONFIGURATIONS = ("dense_detection_cityscapes",)  # unless the user names another with a ResNet


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave the classifier out; the names of the trunk are torchvision's already."""
    return {key: value for key, value in state.items() if not key.startswith("fc.")}


def part(network: nn.Module) -> nn.Module:
    """Return the ResNet of a network.

    Raises:
        ValueError: It has none.
    """
    trunk = next((module for module in network.modules() if isinstance(module, ResNet)), None)
    if trunk is None:
        raise ValueError(f"{type(network).__name__} has no ResNet to load ImageNet weights into")
    return trunk


def adapt(config: ModelConfig) -> ModelConfig:
    """Give the configuration the input format of torchvision's classifiers."""
    image = InputFormat(resolution=config.input.resolution, resize=config.input.resize)
    card = {"description": f"{config.name} with an ImageNet trunk: a start for training"}
    return replace(config, input=image, card=card)
