"""ICNet's shapes and counts, as its authors' prototxt has them."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from panoptic_ros.networks.layers.icnet import ICNet


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_parameters():
    branch = ICNet(3, 19)
    assert count(branch) - count(branch.guides) == 6_699_987
    assert count(branch.guides) == 7_334


@pytest.mark.parametrize(
    ("size", "quarter", "eighth", "sixteenth"),
    [
        ((1024, 2048), (256, 512), (128, 256), (64, 128)),
        ((1025, 2049), (257, 513), (129, 257), (65, 129)),
        ((96, 64), (24, 16), (12, 8), (6, 4)),
    ],
)
def test_output_sizes(size, quarter, eighth, sixteenth):
    with torch.device("meta"):
        branch, image = ICNet(3, 19).eval(), torch.zeros(1, 3, *size)
    assert branch(image).shape == (1, 19, *quarter)
    assert [o.shape[2:] for o in branch.cascade(image)] == [quarter, eighth, sixteenth]


def test_multiply_adds_at_the_native_size():
    with torch.device("meta"):
        branch, image = ICNet(3, 19).eval(), torch.zeros(1, 3, 1025, 2049)
    with FlopCounterMode(display=False) as counter:
        branch(image)
    assert counter.get_total_flops() / 2 == pytest.approx(30.1e9, rel=0.02)


def test_the_classifier_may_come_before_the_zoom():
    torch.manual_seed(0)
    branch = ICNet(3, 5, width=0.25).eval()
    image = torch.rand(1, 3, 64, 96)
    fused2, _, _ = branch._features(image)
    zoomed = torch.nn.functional.interpolate(fused2, scale_factor=2.0, mode="bilinear")
    torch.testing.assert_close(branch(image), branch.classifier(zoomed), rtol=1e-4, atol=1e-4)
