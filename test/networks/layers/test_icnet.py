"""ICNet's shapes and counts, as its authors' prototxt has them."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from panoptic_ros.networks.layers.icnet import ICNet, TrunkCascade


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


def trunk_maps(size=(64, 96), channels=(24, 40, 112, 320)):
    generator = torch.Generator().manual_seed(1)
    sides = [tuple(side // stride for side in size) for stride in (4, 8, 16, 32)]
    return [
        torch.randn(2, c, *s, generator=generator) for c, s in zip(channels, sides, strict=True)
    ]


def test_a_cascade_on_a_trunk_has_outputs_at_a_quarter_eighth_and_sixteenth():
    maps = trunk_maps()
    cascade = TrunkCascade([m.shape[1] for m in maps], 5, width=0.25).eval()
    outputs = cascade.cascade(maps)
    assert [tuple(o.shape) for o in outputs] == [(2, 5, 16, 24), (2, 5, 8, 12), (2, 5, 4, 6)]
    torch.testing.assert_close(cascade(maps), outputs[0])


def test_a_cascade_on_a_trunk_counts_as_by_hand():
    """Width 0.5: 128 pooled and 64 fused channels, batch norms with weight and bias."""
    cascade = TrunkCascade([24, 40, 112, 320], 5, width=0.5)
    reduce = 320 * 128 + 2 * 128
    coarse = [9 * c * 64 + 2 * 64 for c in (128, 64, 64)]
    fine = [c * 64 + 2 * 64 for c in (112, 40, 24)]
    assert count(cascade) == reduce + sum(coarse) + sum(fine) + 3 * (64 * 5 + 5)


def test_every_map_of_a_trunk_reaches_the_output_of_a_cascade():
    cascade = TrunkCascade([24, 40, 112, 320], 5, width=0.25)
    maps = [m.requires_grad_() for m in trunk_maps()]
    cascade(maps).square().sum().backward()
    assert all(float(m.grad.abs().sum()) > 0 for m in maps)
