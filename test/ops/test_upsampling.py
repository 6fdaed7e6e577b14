"""Tiled argmax and nearest resize against PyTorch's own interpolation."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from panoptic_ros.ops import upsampling
from panoptic_ros.ops.upsampling import (
    Step,
    channel_argmax,
    enlarge,
    resize_nearest,
    upsampled_argmax,
)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(1)


def whole_argmax(logits, *steps, covered=None):
    maps = logits[None].float()
    for step in steps:
        maps = F.interpolate(maps, scale_factor=step.scale, mode="bilinear")
        maps = maps[..., : step.size[0], : step.size[1]]
    if covered is not None:
        maps[:, 0] -= covered.float()
    return maps[0].argmax(0)


def scene(channels, height, width, generator):
    """Logits of boxes that are each of one class, with noise: few cells disagree."""
    owner = torch.zeros(height, width, dtype=torch.long)
    for index in range(6):
        y, x = (int(torch.randint(0, n - 4, (), generator=generator)) for n in (height, width))
        owner[y : y + 9, x : x + 12] = index % channels
    logits = F.one_hot(owner, channels).movedim(-1, 0) * 5.0
    return logits + torch.randn(logits.shape, generator=generator)


@pytest.mark.parametrize("make", ["noise", "scene"])
@pytest.mark.parametrize("channels", [1, 3, 11])
@pytest.mark.parametrize("scale", [(4.0, 4.0), (8.0, 8.0), (3.7, 7.4)])
@pytest.mark.parametrize("size", [(1.0, 1.0), (0.8, 0.7), (0.31, 1.0)])
def test_is_the_argmax_of_the_whole(make, channels, scale, size, generator):
    logits = torch.randn(channels, 30, 40, generator=generator)
    if make == "scene":
        logits = scene(channels, 30, 40, generator)
    size = tuple(int(n * s * part) for n, s, part in zip((30, 40), scale, size, strict=True))
    step = Step(scale, size)
    covered = torch.rand(size, generator=generator) > 0.5
    assert torch.equal(upsampled_argmax(logits, step).long(), whole_argmax(logits, step))
    known = upsampled_argmax(logits, step, best=channel_argmax(logits))
    assert torch.equal(known.long(), whole_argmax(logits, step))
    result = upsampled_argmax(logits, step, covered=covered).long()
    assert torch.equal(result, whole_argmax(logits, step, covered=covered))


@pytest.mark.parametrize("elements", [1, 60_000])
def test_every_pixel_a_few_channels_at_a_time(monkeypatch, elements, generator):
    """The plain form, which is also used where nearly all cells disagree."""
    monkeypatch.setattr(upsampling, "_ELEMENTS_AT_ONCE", elements)
    logits = torch.randn(7, 20, 30, generator=generator)
    steps = Step((4.0, 4.0), (75, 118)), Step.to((90, 70), (75, 118))
    result = upsampling._argmax_everywhere(logits, steps)
    assert torch.equal(result.long(), whole_argmax(logits, *steps))


def test_many_equal_logits_give_the_first():
    assert (upsampled_argmax(torch.ones(6, 8, 8), Step((4.0, 4.0), (32, 32))) == 0).all()


def test_half_precision_is_up_sampled_in_single():
    logits = torch.randn(4, 6, 6, generator=torch.Generator().manual_seed(2)).bfloat16()
    step = Step((8.0, 8.0), (48, 48))
    assert torch.equal(upsampled_argmax(logits, step), upsampled_argmax(logits.float(), step))


def test_channel_argmax_is_the_first_of_the_highest():
    logits = torch.tensor([[1.0, 2.0, -3.0], [1.0, 5.0, -2.0], [0.0, 5.0, -1.0]])
    assert channel_argmax(logits).tolist() == [0, 1, 2]


def test_enlarge_repeats_cells():
    cells = torch.tensor([[1, 2], [3, 4]])
    assert enlarge(cells, 3, (4, 5)).tolist() == [[1, 1, 1, 2, 2]] * 3 + [[3, 3, 3, 4, 4]]


@pytest.mark.parametrize("size", [(7, 9), (14, 18), (5, 4), (20, 23)])
def test_resize_nearest_is_pytorchs(size):
    indices = torch.randint(0, 200, (7, 9), generator=torch.Generator().manual_seed(3))
    expected = F.interpolate(indices[None, None].float(), size=size, mode="nearest-exact")[0, 0]
    assert torch.equal(resize_nearest(indices, size), expected.long())
