"""What dense detection should predict: targets of the locations and the pixels (section 4.1)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from panoptic_ros.networks.dense_detection.boxes import SIZE_LIMITS, grid_locations
from panoptic_ros.truth import PanopticTarget


class LocationTargets(NamedTuple):
    """What the A locations of all levels should predict (section 4.1).

    Attributes:
        segments: int64, (A,), the segment whose box the location predicts, -1 for background.
        class_ids: int64, (A,), its category id, 0 for background.
        offsets: (A, 4), from the location to the left, top, right and bottom side of its box
            (eq. 8); 0 for background.
        ignored: bool, (A,), locations in crowds, which are no negatives.
    """

    segments: Tensor
    class_ids: Tensor
    offsets: Tensor
    ignored: Tensor


def assign_locations(
    target: PanopticTarget, locations: Tensor, limits: Tensor | None = None
) -> LocationTargets:
    """Assign to each location the instance whose mask it is in, if its size fits the level.

    Args:
        target: Truth of one image.
        locations: (A, 2), x and y in pixels; those outside of the image are background.
        limits: (A, 2), smallest and largest offset for the location's level (eq. 9).
    """
    x, y = locations.long().unbind(1)
    height, width = target.slots.shape
    slots = target.slots[y.clamp(max=height - 1), x.clamp(max=width - 1)]
    slots = torch.where((x < width) & (y < height), slots, 0)
    x1, y1, x2, y2 = F.pad(target.boxes, (0, 0, 1, 0))[slots].unbind(1)
    offsets = torch.stack((x - x1, y - y1, x2 - x, y2 - y), dim=1)

    crowd = F.pad(target.is_thing & target.is_crowd, (1, 0))[slots]
    foreground = F.pad(target.is_thing & ~target.is_crowd, (1, 0))[slots]
    if limits is not None:
        reach = offsets.amax(1)
        foreground = foreground & (limits[:, 0] <= reach) & (reach <= limits[:, 1])
    class_ids = F.pad(target.class_ids, (1, 0))[slots]
    return LocationTargets(
        torch.where(foreground, slots - 1, -1),
        torch.where(foreground, class_ids, 0),
        torch.where(foreground[:, None], offsets, 0),
        crowd,
    )


def levelness_target(target: PanopticTarget) -> Tensor:
    """Return the level (1..5) of each pixel's box by eq. 9, at H/4: int64, (H/4, W/4).

    0 is background, -1 a crowd. A box on the limit of two levels belongs to the lower one.
    """
    height, width = (side // 4 for side in target.slots.shape)
    truth = assign_locations(target, grid_locations(height, width, 4, target.slots.device))
    limits = truth.offsets.new_tensor(SIZE_LIMITS[1:-1])
    level = 1 + torch.bucketize(truth.offsets.amax(1), limits)
    level = torch.where(truth.segments >= 0, level, 0)
    return torch.where(truth.ignored, -1, level).view(height, width)


def centerness_target(offsets: Tensor) -> Tensor:
    """Return how central a location is in its box, 0..1 (eq. 10): (N,) from offsets (N, 4)."""
    left, top, right, bottom = offsets.unbind(1)
    horizontal = torch.minimum(left, right) / torch.maximum(left, right)
    vertical = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return (horizontal * vertical).sqrt()
