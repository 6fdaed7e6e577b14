"""How large Panoptic FCN's configurations are."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from panoptic_ros.networks.panoptic_fcn.heads import ModulatedDeformConv

from .test_network import config

# What is counted


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("coco", 36_999_511),
        ("coco_star", 38_837_710),
        ("cityscapes", 36_752_876),
    ],
)
def test_parameters(name, expected):
    with torch.device("meta"):
        net = config(name).build()
    assert sum(parameter.numel() for parameter in net.parameters()) == expected


def test_the_small_variant_has_at_most_six_million_parameters():
    assert sum(parameter.numel() for parameter in config("small").build().parameters()) <= 6e6


@pytest.mark.parametrize(
    ("name", "expected"), [("coco", 657.7e9), ("cityscapes", 646.9e9), ("coco_star", 885.6e9)]
)
def test_multiply_adds_at_1024x2048(name, expected):
    deformable = []  # not counted by torch: 9 taps of all inputs for every output

    def count(module, _, output):
        deformable.append(output.numel() * module.conv.weight[0].numel())

    with torch.device("meta"):
        net = config(name).build().eval()
        for module in net.modules():
            if isinstance(module, ModulatedDeformConv):
                module.register_forward_hook(count)
        with FlopCounterMode(display=False) as counter:
            net(torch.empty(1, 3, 1024, 2048))
    counted = counter.get_total_flops() / 2 + sum(deformable)
    assert counted == pytest.approx(expected, rel=0.02)
