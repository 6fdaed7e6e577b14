"""Masks made in parts against masks of the whole image."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from panoptic_ros.ops.masks import EnlargedMasks, Mask
from panoptic_ros.ops.merging import merge_panoptic
from panoptic_ros.ops.upsampling import Step


def soft_masks():
    """Random ones that fill the map, patches inside it and at its borders, and nothing."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(12, 20, 30, generator=generator)
    for index, (y, x) in enumerate(((0, 0), (5, 9), (16, 25), (0, 26), (19, 3), (7, 0), (8, 8))):
        patch = torch.zeros(20, 30, dtype=torch.bool)
        patch[y : y + 4, x : x + 6] = True
        masks[index] *= patch
    masks[7], masks[8] = 0, 0
    masks[8, 11, 17] = 1
    return masks


@pytest.mark.parametrize(
    "steps",
    [
        [Step((4.0, 4.0), (80, 120))],
        [Step((4.0, 4.0), (71, 118))],
        [Step.to((74, 229), (20, 30))],
        [Step.to((9, 17), (20, 30))],
        [Step((4.0, 4.0), (71, 118)), Step.to((200, 190), (71, 118))],
        [Step((4.0, 4.0), (71, 118)), Step.to((33, 40), (71, 118))],
    ],
)
@pytest.mark.parametrize("threshold", [0.4, 0.7, 0.99])
def test_parts_are_the_whole_masks(steps, threshold):
    soft, expected = soft_masks(), soft_masks()
    for step in steps:
        expected = F.interpolate(expected[None], scale_factor=step.scale, mode="bilinear")[0]
        expected = expected[:, : step.size[0], : step.size[1]]
    made = list(EnlargedMasks([soft], threshold, steps))
    assert len(made) == len(soft)
    assert min(mask.inside.numel() for mask in made) == 0
    for mask, whole in zip(made, expected, strict=True):
        rounded = (whole - threshold).abs() < 1e-5
        assert ((mask.placed(steps[-1].size) == (whole > threshold)) | rounded).all()


def test_nothing_to_enlarge():
    assert list(EnlargedMasks([torch.zeros(0, 4, 4)], 0.5, [Step((4.0, 4.0), (16, 16))])) == []


def test_parts_merge_like_whole_masks():
    soft, step = soft_masks(), Step((4.0, 4.0), (80, 120))
    whole = torch.stack([mask.placed(step.size) for mask in EnlargedMasks([soft], 0.6, [step])])
    stuff = torch.randint(0, 3, step.size)
    parts = EnlargedMasks([soft], 0.6, [step])
    assert torch.equal(merge_panoptic(parts, stuff, 0.5), merge_panoptic(whole, stuff, 0.5))
    assert isinstance(Mask.whole(whole[0]), Mask)
