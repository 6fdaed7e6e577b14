"""Small FPSNets for the tests."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml
from torch import nn

from panoptic_ros.data.categories import parse_categories
from panoptic_ros.networks import build_network
from panoptic_ros.networks.fpsnet.network import FPSNet

CONFIGURATIONS = Path(__file__).parents[3] / "config" / "networks"
SMALL = {
    "backbone": "resnet18_half",
    "fpn_channels": 16,
    "head_channels": 16,
    "head_depth": 1,
    "feature_channels": 16,
    "panoptic_channels": 16,
    "panoptic_depth": 2,
    "num_attention": 3,
    "candidates": 50,
}
THINGS, STUFF = [24, 26], [7, 23]


def small(stuff=STUFF, **settings):
    torch.manual_seed(0)
    return FPSNet(THINGS, stuff, **{**SMALL, **settings}).eval()


def configured(name):
    config = yaml.safe_load((CONFIGURATIONS / f"{name}.yaml").read_text())
    settings = dict(config["network"])
    categories = parse_categories(config["categories"])
    return build_network(settings.pop("name"), categories, **settings)


def eager(**settings):
    """A network with random weights that sees many boxes."""
    network = small(num_attention=20, **settings)
    nn.init.normal_(network.detector.classification[-1].weight, std=0.3)
    nn.init.constant_(network.detector.classification[-1].bias, 0.0)
    return network
