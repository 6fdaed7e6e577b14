"""Tiled argmax and nearest resize against PyTorch's own interpolation."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from panoptic_ros.networks import upsampling
from panoptic_ros.networks.upsampling import resize_nearest, upsampled_argmax


@pytest.mark.parametrize("tile", [1, 3000, 2**24])
@pytest.mark.parametrize("stride", [4, 8])
@pytest.mark.parametrize("size", [(1.0, 1.0), (0.8, 0.7), (0.31, 1.0)])
def test_tiles_give_the_argmax_of_the_whole(monkeypatch, tile, stride, size):
    monkeypatch.setattr(upsampling, "_TILE_ELEMENTS", tile)
    logits = torch.randn(5, 10, 12, generator=torch.Generator().manual_seed(1))
    height, width = round(10 * stride * size[0]), round(12 * stride * size[1])
    whole = F.interpolate(logits[None], scale_factor=stride, mode="bilinear")[0]
    expected = whole[:, :height, :width].argmax(0)
    assert torch.equal(upsampled_argmax(logits, stride, (height, width)), expected)


def test_half_precision_is_up_sampled_in_single():
    logits = torch.randn(4, 6, 6, generator=torch.Generator().manual_seed(2)).bfloat16()
    expected = upsampled_argmax(logits.float(), 8, (48, 48))
    assert torch.equal(upsampled_argmax(logits, 8, (48, 48)), expected)


@pytest.mark.parametrize("size", [(7, 9), (14, 18), (5, 4), (20, 23)])
def test_resize_nearest_is_pytorchs(size):
    indices = torch.randint(0, 200, (7, 9), generator=torch.Generator().manual_seed(3))
    expected = F.interpolate(indices[None, None].float(), size=size, mode="nearest-exact")[0, 0]
    assert torch.equal(resize_nearest(indices, size), expected.long())
