"""What Panoptic FCN learns of a batch: its things and stuff at stride 4 and on each level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from panoptic_ros.networks.panoptic_fcn.kernels import STRIDE
from panoptic_ros.truth import TargetBatch

_MIN_OVERLAP = 0.7  # of boxes within the Gaussian radius


def middle_pixels(slots: Tensor) -> Tensor:
    """Return the four pixels in the middle of each cell at stride 4, int16, (B, 4, H/4, W/4).

    Their mean is what bilinear reduction gives.

    Args:
        slots: (B, H, W), of a ``TargetBatch``; sides are multiples of 4.
    """
    grid = slots.short().unflatten(2, (-1, STRIDE)).unflatten(1, (-1, STRIDE))
    middle = slice(STRIDE // 2 - 1, STRIDE // 2 + 1)
    return grid[:, :, middle, :, middle].permute(0, 2, 4, 1, 3).flatten(1, 2)


class ThingTargets(NamedTuple):
    """N instances of a batch, in the order of the images.

    Attributes:
        images: int64, (N,), the image of each.
        masks: float32, (N, H/4, W/4), 0..1: bilinearly reduced, soft at their borders.
        classes: int64, (N,), index of the thing class.
        centers: float32, (N, 2), mass center (row, column) in cells of ``masks``.
        boxes: float32, (N, 2), height and width of the tight box in pixels.
    """

    images: Tensor
    masks: Tensor
    classes: Tensor
    centers: Tensor
    boxes: Tensor

    def within(self, scale_ranges: Sequence[tuple[int, int]]) -> Tensor:
        """Return whose root of the box area lies in which of L ranges, inclusive: bool, (L, N)."""
        size = self.boxes.prod(1).sqrt()
        return torch.stack([(size >= low) & (size <= high) for low, high in scale_ranges])

    def only(self, wanted: Tensor) -> ThingTargets:
        """Return the instances at some places, int64, (M,)."""
        return ThingTargets(*(field[wanted] for field in self))


def thing_targets(batch: TargetBatch, classes: Tensor) -> ThingTargets:
    """Describe the single things of a batch.

    Instances too small to leave a cell at stride 4 are left out: they have no mask to learn.

    Args:
        batch: The truth.
        classes: int64, (S,), index of the thing class of each segment.
    """
    chosen = torch.nonzero(batch.is_single).flatten()
    images = batch.images[chosen]
    own = middle_pixels(batch.slots)[images] == (chosen + 1)[:, None, None, None]
    masks = own.sum(1, dtype=torch.float32) / 4
    occupied = masks > 0
    count = occupied.flatten(1).sum(1)
    rows, columns = (torch.arange(n, device=masks.device) for n in masks.shape[1:])
    centers = torch.stack(
        ((occupied.sum(2) * rows).sum(1) / count, (occupied.sum(1) * columns).sum(1) / count), 1
    )
    x1, y1, x2, y2 = batch.boxes[chosen].unbind(1)
    boxes = torch.stack((y2 - y1, x2 - x1), dim=1)
    things = ThingTargets(images, masks, classes[chosen], centers, boxes)
    return things.only(torch.nonzero(count).flatten())


def stuff_target(batch: TargetBatch, channels: Tensor, number: int) -> Tensor:
    """Return the region of every stuff channel at stride 4: float32, (B, number, H/4, W/4), 0..1.

    Args:
        batch: The truth.
        channels: int64, (S,), channel of each of its segments.
        number: N_st.
    """
    semantic = torch.cat((channels.new_full((1,), -1), channels))[
        middle_pixels(batch.slots).long()
    ]
    own = semantic[:, None] == torch.arange(number, device=semantic.device)[:, None, None, None]
    return own.sum(2, dtype=torch.float32) / 4


def center_heatmap(things: ThingTargets, shape: Sequence[int]) -> Tensor:
    """Draw Y_th of one level: a Gaussian per instance, the larger value where two meet (Eq. 1).

    As in CornerNet a Gaussian ends at its radius; sigma = (2 r + 1) / 3 (A.1).

    Args:
        things: Instances of this level.
        shape: Of the result: images, N_th, rows and columns of the level.

    Returns:
        float32, (B, N_th, h, w).
    """
    batch, classes, *size = shape
    stride4 = torch.tensor(things.masks.shape[1:], device=things.boxes.device)
    scale = torch.tensor(size, device=stride4.device) / stride4
    centers = (things.centers * scale).long()
    radius = gaussian_radius(*(things.boxes / STRIDE * scale).unbind(1)).long()[:, None, None]
    rows, columns = (torch.arange(n, device=stride4.device) for n in size)
    dy = rows[None, :, None] - centers[:, 0, None, None]
    dx = columns[None, None, :] - centers[:, 1, None, None]
    sigma = (2 * radius + 1) / 3
    gaussians = torch.exp(-(dx**2 + dy**2) / (2 * sigma**2))
    gaussians = gaussians * ((dx.abs() <= radius) & (dy.abs() <= radius))
    index = (things.images * classes + things.classes)[:, None, None].expand_as(gaussians)
    heatmap = gaussians.new_zeros(batch * classes, *size)
    return heatmap.scatter_reduce(0, index, gaussians, "amax").view(*shape)


def gaussian_radius(height: Tensor, width: Tensor) -> Tensor:
    """Return CornerNet's radius of a box, in its original form that the official code keeps.

    (The roots are divided by 2 instead of 2a, so that radii come out larger than derived.)
    """
    total, area, least = height + width, height * width, _MIN_OVERLAP
    equations = (
        (1.0, total, area * (1 - least) / (1 + least)),
        (4.0, 2 * total, (1 - least) * area),
        (4 * least, -2 * least * total, (least - 1) * area),
    )
    roots = [(b + (b**2 - 4 * a * c).sqrt()) / 2 for a, b, c in equations]
    return torch.stack(roots).amin(0).clamp(min=0)


def region_map(stuff: Tensor, size: Sequence[int]) -> Tensor:
    """Reduce Y_st (B, N_st, H/4, W/4) to a level of ``size``; what is below 0.5 becomes 0."""
    regions = F.interpolate(stuff, size=tuple(size), mode="bilinear").clamp(max=1)
    return torch.where(regions < 0.5, 0, regions)
