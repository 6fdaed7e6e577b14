"""What Panoptic FCN trains on (Li et al., CVPR 2021, sections 3.1, 4.1 and A.1)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from panoptic_ros.networks.panoptic_fcn.masks import STRIDE
from panoptic_ros.truth import PanopticTarget

_MIN_OVERLAP = 0.7  # of boxes within the Gaussian radius
_CHUNK = 16  # masks reduced at a time


class ThingTargets(NamedTuple):
    """N instances of one image.

    Attributes:
        masks: float32, (N, H/4, W/4), 0..1: bilinearly reduced, soft at their borders.
        classes: int64, (N,), index of the thing class.
        centers: float32, (N, 2), mass center (row, column) in cells of ``masks``.
        boxes: float32, (N, 2), height and width of the tight box in pixels.
    """

    masks: Tensor
    classes: Tensor
    centers: Tensor
    boxes: Tensor

    def within(self, scales: tuple[int, int]) -> ThingTargets:
        """Return the instances whose square root of the box area lies in ``scales``, inclusive."""
        size = self.boxes.prod(1).sqrt()
        return self.only((size >= scales[0]) & (size <= scales[1]))

    def only(self, wanted: Tensor) -> ThingTargets:
        """Return the instances that a bool tensor (N,) marks."""
        return ThingTargets(*(field[wanted] for field in self))


def thing_targets(target: PanopticTarget, classes: Tensor) -> ThingTargets:
    """Describe the single things of an image.

    Instances too small to leave a cell at stride 4 are left out: they have no mask to learn.

    Args:
        target: The truth.
        classes: int64, (S,), index of the thing class of each of its segments.
    """
    instances = target.instances
    masks = reduce_masks(target.masks(instances))
    occupied = masks > 0
    count = occupied.flatten(1).sum(1)
    rows, columns = (torch.arange(n, device=masks.device) for n in masks.shape[1:])
    centers = torch.stack(
        ((occupied.sum(2) * rows).sum(1) / count, (occupied.sum(1) * columns).sum(1) / count), 1
    )
    x1, y1, x2, y2 = target.boxes[instances].unbind(1)
    boxes = torch.stack((y2 - y1, x2 - x1), dim=1)
    return ThingTargets(masks, classes[instances], centers, boxes).only(count > 0)


def stuff_target(target: PanopticTarget, channels: Tensor, number: int) -> Tensor:
    """Return the region of every stuff channel at stride 4: float32, (number, H/4, W/4), 0..1.

    Args:
        target: The truth.
        channels: int64, (S,), channel of each of its segments.
        number: N_st.
    """
    semantic = torch.cat((channels.new_full((1,), -1), channels))[target.slots]
    return reduce_masks(semantic == torch.arange(number, device=semantic.device)[:, None, None])


def reduce_masks(masks: Tensor) -> Tensor:
    """Reduce masks (N, H, W) bilinearly to stride 4: float32, (N, H/4, W/4)."""
    size = (masks.shape[1] // STRIDE, masks.shape[2] // STRIDE)
    chunks = [
        F.interpolate(chunk[:, None].float(), size=size, mode="bilinear")[:, 0]
        for chunk in masks.split(_CHUNK)
    ]
    return torch.cat(chunks)


def center_heatmap(things: ThingTargets, classes: int, size: tuple[int, int]) -> Tensor:
    """Draw Y_th of one level: a Gaussian per instance, the larger value where two meet (Eq. 1).

    As in CornerNet a Gaussian ends at its radius; sigma = (2 r + 1) / 3 (A.1).

    Args:
        things: Instances of this level.
        classes: N_th.
        size: Rows and columns of the level.

    Returns:
        float32, (N_th, *size).
    """
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
    index = things.classes[:, None, None].expand_as(gaussians)
    return gaussians.new_zeros(classes, *size).scatter_reduce(0, index, gaussians, "amax")


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


def region_map(stuff: Tensor, size: tuple[int, int]) -> Tensor:
    """Reduce Y_st (N_st, H/4, W/4) to a level of ``size``; what is below 0.5 becomes 0."""
    regions = F.interpolate(stuff[None], size=size, mode="bilinear")[0].clamp(max=1)
    return torch.where(regions < 0.5, 0, regions)
