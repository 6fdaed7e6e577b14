"""Anchors and boxes of EPSNet. All are relative to the sides of the input, as in SSD."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from panoptic_ros.ops.constants import constant

VARIANCES = (0.1, 0.2)  # of box centres and of logarithmic box sizes


def make_anchors(
    grids: Sequence[Sequence[int]],
    sizes: Sequence[float],
    ratios: Sequence[float],
    square: bool,
    device: torch.device,
) -> Tensor:
    """Return the anchors of F3..F7, one per ratio and cell, row by row: (A, 4), (cx, cy, w, h).

    Args:
        grids: Rows and columns of each level.
        sizes: Side of the square anchor of each level.
        ratios: Width over height, each relative to the input's side.
        square: Give every anchor the height of its width.
        device: Where to make them.
    """
    levels = []
    for (height, width), size in zip(grids, sizes, strict=True):
        y, x = ((torch.arange(n, device=device) + 0.5) / n for n in (height, width))
        centers = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)
        widths = [size * math.sqrt(ratio) for ratio in ratios]
        heights = widths if square else [size / math.sqrt(ratio) for ratio in ratios]
        sides = constant([*widths, *heights], device).view(2, -1).T
        sides = sides.expand(height, width, -1, -1)
        centers = centers[:, :, None].expand_as(sides)
        levels.append(torch.cat((centers, sides), dim=-1).flatten(0, 2))
    return torch.cat(levels)


def decode_boxes(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Return boxes (x1, y1, x2, y2), (..., 4), of deltas and anchors (cx, cy, w, h)."""
    centers = anchors[..., :2] + VARIANCES[0] * deltas[..., :2] * anchors[..., 2:]
    sides = anchors[..., 2:] * (VARIANCES[1] * deltas[..., 2:]).exp()
    return torch.cat((centers - sides / 2, centers + sides / 2), dim=-1)


def encode_boxes(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Return the deltas (..., 4) that ``decode_boxes`` turns into these boxes."""
    centers = (boxes[..., :2] + boxes[..., 2:]) / 2
    sides = boxes[..., 2:] - boxes[..., :2]
    moved = (centers - anchors[..., :2]) / (VARIANCES[0] * anchors[..., 2:])
    return torch.cat((moved, (sides / anchors[..., 2:]).log() / VARIANCES[1]), dim=-1)


def crop_window(boxes: Tensor, grid: Sequence[int]) -> Tensor:
    """Return where boxes are on the prototype grid, a cell wider on each side.

    Args:
        boxes: (K, 4), corners in any order.
        grid: Rows and columns.

    Returns:
        bool, (K, *grid).
    """
    inside = []
    for axis, cells in ((1, grid[0]), (0, grid[1])):
        pair = boxes[:, axis::2] * cells
        low = (pair.amin(1) - 1).clamp(min=0)[:, None]
        high = (pair.amax(1) + 1).clamp(max=cells)[:, None]
        position = torch.arange(cells, device=boxes.device)
        inside.append((position >= low) & (position < high))
    rows, columns = inside
    return rows[:, :, None] & columns[:, None, :]


def pixel_boxes(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Return boxes in whole pixels, clipped to an image of ``size`` (rows, columns): int64."""
    scale = constant((size[1], size[0]), boxes.device, boxes.dtype)
    corners = boxes.unflatten(-1, (2, 2)) * scale
    low = corners.amin(-2).clamp(min=0)
    high = torch.minimum(corners.amax(-2), scale)
    return torch.cat((low, high), dim=-1).long()


def has_area(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Return whether a box has a pixel in an image of ``size``: bool, (...)."""
    pixels = pixel_boxes(boxes, size)
    return (pixels[..., 2:] > pixels[..., :2]).all(-1)


def pairwise_iou(boxes: Tensor) -> Tensor:
    """Return the IoU of all pairs within each list of boxes: (..., M, 4) to (..., M, M)."""
    low = torch.maximum(boxes[..., :, None, :2], boxes[..., None, :, :2])
    high = torch.minimum(boxes[..., :, None, 2:], boxes[..., None, :, 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    return inter / (area[..., :, None] + area[..., None, :] - inter)
