"""ImageNet classifiers as a start for training: torchvision's ResNets, EfficientNet-Lite.

Only the trunk is loaded; the rest of the network keeps its fresh weights. The trunk expects images
as in its own training, which therefore become the input format of the model that is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from panoptic_ros.input_format import InputFormat
from panoptic_ros.model_zoo import ModelConfig
from panoptic_ros.networks.layers.backbones import EfficientNetLite, is_backbone
from panoptic_ros.networks.layers.efficientnet_lite import EFFICIENTNETS
from panoptic_ros.networks.layers.resnet import RESNETS

CONFIGURATIONS = ("dense_detection_cityscapes", "fpsnet_small")

_CLASSIFIERS = ("fc.", "_fc.", "_conv_head.", "_bn1.")
_LITE_PARTS = {
    "_expand_conv": "expand.0",
    "_bn0": "expand.1",
    "_depthwise_conv": "depthwise.0",
    "_bn1": "depthwise.1",
    "_project_conv": "project.0",
    "_bn2": "project.1",
}


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave the classifier out and give the tensors of the trunk our names.

    Those of a ResNet are torchvision's already; those of an EfficientNet-Lite are as in the
    published .pth files (``_conv_stem``, ``_bn0``, ``_blocks.N...``).
    """
    state = {k: v for k, v in state.items() if not k.startswith(_CLASSIFIERS)}
    if "_conv_stem.weight" not in state:
        return state
    places = _block_places(max(int(k.split(".")[1]) for k in state if k.startswith("_blocks.")))
    return {_lite_name(key, places): value for key, value in state.items()}


def part(network: nn.Module) -> nn.Module:
    """Return the trunk of a network.

    Raises:
        ValueError: It has none.
    """
    trunk = next((module for module in network.modules() if is_backbone(module)), None)
    if trunk is None:
        raise ValueError(
            f"{type(network).__name__} has no trunk to load ImageNet weights into; name a "
            "configuration with a backbone"
        )
    return trunk


def variants(config: ModelConfig) -> list[ModelConfig]:
    """Return the configuration on each trunk of the kind that it has, its own first."""
    own = config.settings["backbone"]
    kind = next(names for names in (RESNETS, EFFICIENTNETS) if own in names)
    names = sorted(kind, key=lambda name: name != own)
    return [replace(config, settings={**config.settings, "backbone": name}) for name in names]


def adapt(config: ModelConfig) -> ModelConfig:
    """Give the configuration the input format of the classifiers of its trunk's kind."""
    image = InputFormat(resolution=config.input.resolution, resize=config.input.resize)
    if str(config.settings.get("backbone", "")).startswith("efficientnet_lite"):
        image = replace(image, mean=(127.0,) * 3, std=(128.0,) * 3)
    card = {"description": f"{config.name} with an ImageNet trunk: a start for training"}
    return replace(config, input=image, card=card)


def _block_places(last: int) -> list[str]:
    """Return ``STAGE.BLOCK`` of every block of the EfficientNet-Lite with that last block.

    Raises:
        ValueError: No variant has as many blocks.
    """
    for name in ("efficientnet_lite0", "efficientnet_lite1"):  # lite2 is as deep as lite1
        stages = EfficientNetLite(name).stages
        places = [f"{s}.{b}" for s, stage in enumerate(stages) for b in range(len(stage))]
        if len(places) == last + 1:
            return places
    raise ValueError(f"no EfficientNet-Lite 0, 1 or 2 has {last + 1} blocks")


def _lite_name(key: str, places: list[str]) -> str:
    if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key):
        block, layer, name = match.groups()
        return f"stages.{places[int(block)]}.{_LITE_PARTS.get(layer, layer)}.{name}"
    return key.replace("_conv_stem.", "stem.0.").replace("_bn0.", "stem.1.")
