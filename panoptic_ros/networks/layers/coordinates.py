"""Coordinate maps that tell convolutions where they are (Liu et al., CoordConv, NeurIPS 2018)."""

from __future__ import annotations

import torch
from torch import Tensor


def coordinate_maps(like: Tensor) -> Tensor:
    """Return the vertical, then the horizontal position of every cell of a feature map.

    Args:
        like: (B, C, H, W); gives size, device and dtype.

    Returns:
        (B, 2, H, W): -1 in the first row (column) to 1 in the last.
    """
    batch, _, height, width = like.shape
    rows = torch.linspace(-1, 1, height, device=like.device, dtype=like.dtype)
    columns = torch.linspace(-1, 1, width, device=like.device, dtype=like.dtype)
    maps = torch.stack((rows[:, None].expand(-1, width), columns.expand(height, -1)))
    return maps.expand(batch, -1, -1, -1)


def append_coordinates(features: Tensor) -> Tensor:
    """Return features (B, C, H, W) with their two coordinate maps behind: (B, C + 2, H, W)."""
    return torch.cat((features, coordinate_maps(features)), dim=1)
