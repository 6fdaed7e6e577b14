"""The small configuration of every network, with weights that find something."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from panoptic_ros.model_zoo import ModelConfig, load_config
from panoptic_ros.networks import NETWORKS
from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.truth import PredictionOptions

from ..shared_data import REPOSITORY

SIZES = dict.fromkeys(NETWORKS, (96, 160)) | {"epsnet": (264, 288)}
OPTIONS = PredictionOptions(score_threshold=0.1)

# Layers that say what is there and where, with a scale and a bias: fresh ones find nothing.
HEADS = {
    "fpsnet": {
        "detector.classification.4": (2.0, -2.0),
        "panoptic_head.predictor": (8.0, 0.0),
    },
    "dense_detection": {
        "box_class": (2.0, 0.0),
        "semantic": (4.0, 0.0),
        "offsets": (0.1, 3.5),  # boxes of one size: what agrees with its neighbours makes a mask
    },
    "panonet": {"semantic.classifier": (2.0, 0.0), "instance.classifier": (0.2, 0.0)},
    "epsnet": {"instance_head.classes": (2.0, 0.0)},
    "panoptic_fcn": {
        "position_head.centers": (2.0, 0.0),
        "position_head.regions": (2.0, 0.0),
        "kernel_head.kernels": (2.0, 0.0),
        "thing_embedding": (2.0, 0.0),
    },
}


# A fresh EfficientNet says nearly the same everywhere: no boxes agree with each other, and one
# class is the best of all pixels.
TRUNKS = {"dense_detection": {"backbone": "resnet18_half"}, "panonet": {"backbone": ""}}


class Small(NamedTuple):
    name: str
    config: ModelConfig
    network: PanopticNetwork
    size: tuple[int, int]

    def images(self, number: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(3)
        blobs = torch.randn(number, 3, 6, 9, generator=generator)
        return nn.functional.interpolate(blobs, self.size, mode="bicubic")

    def raw(self, number: int) -> dict[str, torch.Tensor]:
        with torch.inference_mode():
            return self.network(self.images(number))


def build(name: str, **settings) -> Small:
    config = load_config(REPOSITORY / f"config/networks/{name}_small.yaml")
    config = replace(
        config, settings={**config.settings, **TRUNKS.get(name, {}), **settings}, options=OPTIONS
    )
    torch.manual_seed(0)
    network = config.build().eval()
    for path, (scale, bias) in HEADS[name].items():
        head = network.get_submodule(path)
        nn.init.normal_(head.weight, std=scale / head.weight[0].numel() ** 0.5)
        nn.init.constant_(head.bias, bias)
    return Small(name, config, network, SIZES[name])
