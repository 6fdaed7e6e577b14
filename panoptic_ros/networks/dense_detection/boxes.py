"""The dense boxes of dense detection: where they are, and how much they agree with others."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

LEVELS = (3, 4, 5, 6, 7)
SIZE_LIMITS = (0.0, 64.0, 128.0, 256.0, 512.0, math.inf)  # m_0..m_5 of eq. 9, those of FCOS


class Grid(NamedTuple):
    """The A locations of all levels, P3 first.

    Attributes:
        locations: float32, (A, 2), the pixel (x, y) that each stands for.
        corners: float32, (A, 2), the first pixel of its cell.
        level_sizes: Locations of each level.
    """

    locations: Tensor
    corners: Tensor
    level_sizes: tuple[int, ...]

    @classmethod
    def of(cls, raw: dict[str, Tensor]) -> Grid:
        """Return the grid of what ``forward`` returned."""
        locations, corners = [], []
        for level in LEVELS:
            offsets = raw[f"offsets_p{level}"]
            locations.append(grid_locations(*offsets.shape[-2:], 2**level, offsets.device))
            corners.append(locations[-1] - 2**level // 2)
        sizes = tuple(len(level) for level in locations)
        return cls(torch.cat(locations), torch.cat(corners), sizes)


def size_limits(grid: Grid) -> Tensor:
    """Return the smallest and largest offset that each location's level is for (eq. 9): (A, 2)."""
    limits = [
        grid.locations.new_tensor(SIZE_LIMITS[i : i + 2]).expand(number, 2)
        for i, number in enumerate(grid.level_sizes)
    ]
    return torch.cat(limits)


def grid_locations(height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """Return the pixel (x, y) that each cell of a map stands for: float32, (height * width, 2)."""
    middle = stride // 2
    y, x = (
        torch.arange(middle, middle + n * stride, stride, dtype=torch.float32, device=device)
        for n in (height, width)
    )
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).view(-1, 2)


def flatten_levels(raw: dict[str, Tensor], name: str) -> Tensor:
    """Return one output at the locations of all levels, in float32: (B, A, C)."""
    levels = torch.cat([raw[f"{name}_p{level}"].flatten(2) for level in LEVELS], 2)
    return levels.float().transpose(1, 2)


def dense_boxes(raw: dict[str, Tensor]) -> Tensor:
    """Return the box of every pixel at H/4: (B, D, H/4, W/4, 4), not clipped.

    With levelness D is 1, the box of the most likely level (eq. 14; background is left out of
    the choice). Without it D is 5: the boxes of all levels.
    """
    height, width = (2 * side for side in raw["semantic"].shape[-2:])
    offsets = torch.stack(
        [
            F.interpolate(raw[f"offsets_p{level}"].float(), size=(height, width), mode="bilinear")
            for level in LEVELS
        ],
        dim=1,
    )
    if "levelness" in raw:
        best = raw["levelness"][:, 1:].argmax(1)
        offsets = offsets.gather(1, best[:, None, None].expand(-1, 1, 4, -1, -1))
    locations = grid_locations(height, width, 4, offsets.device).view(height, width, 2)
    return boxes_from_offsets(locations, offsets.movedim(2, -1))


def boxes_from_offsets(locations: Tensor, offsets: Tensor) -> Tensor:
    """Return boxes (..., 4) from locations (..., 2) and left, top, right, bottom (..., 4)."""
    return torch.cat((locations - offsets[..., :2], locations + offsets[..., 2:]), dim=-1)
