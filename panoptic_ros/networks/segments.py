"""From the segment map of a network to the label image and its table, on the device.

Everything here has fixed shapes and needs no host synchronisation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from panoptic_ros.networks.base import SegmentMap
from panoptic_ros.prediction import LABEL_DIVISOR, MAX_INSTANCES


class EncodedSegments(NamedTuple):
    """A label image and the table of its segments.

    Attributes:
        labels: int16, (H, W): the bits of the uint16 label image.
        table: float64, (S, 9), a row per slot: label, area, x1, y1, x2, y2 (inclusive box),
            score, centre x, centre y. Rows of area 0 are empty.
    """

    labels: Tensor
    table: Tensor


def encode_segments(
    segments: SegmentMap, thing_ids: Tensor, stuff_area_limit: int = 0
) -> EncodedSegments:
    """Number the instances of each class by score, best first, and measure every segment.

    Stuff of fewer than ``stuff_area_limit`` pixels becomes void (panopticapi's rule). Instances
    beyond ``MAX_INSTANCES`` of one class get instance 0: the lowest scores.

    Args:
        segments: Slots (H, W) with values 0..S, and what is in each of the S slots.
        thing_ids: Category ids that are things, (N_things,).
        stuff_area_limit: In pixels of the label image.
    """
    slots, class_ids, scores = segments
    number = class_ids.numel()
    rows = _count_along(slots, number + 1, dim=0)[:, 1:]
    columns = _count_along(slots, number + 1, dim=1)[:, 1:]
    area = rows.sum(0)
    is_thing = torch.isin(class_ids, thing_ids)
    present = (class_ids > 0) & (area > 0) & (is_thing | (area >= stuff_area_limit))
    area = torch.where(present, area, 0)

    instance = torch.where(is_thing, _rank_within_class(class_ids, scores, present) + 1, 0)
    instance = torch.where(instance <= MAX_INSTANCES, instance, 0)
    label = torch.where(present, class_ids * LABEL_DIVISOR + instance, 0)
    labels = torch.cat((label.new_zeros(1), label)).to(torch.int32).to(torch.int16)[slots]

    x1, x2, center_x = _extent(columns)
    y1, y2, center_y = _extent(rows)
    table = torch.stack(
        [v.double() for v in (label, area, x1, y1, x2, y2, scores, center_x, center_y)], dim=1
    )
    return EncodedSegments(labels, table)


def _count_along(slots: Tensor, number: int, dim: int) -> Tensor:
    """Count the pixels of every slot in each row (dim 0) or column (dim 1): int64, (n, number)."""
    n = slots.shape[dim]
    line = torch.arange(n, device=slots.device) * number
    index = (slots + (line[:, None] if dim == 0 else line)).flatten()
    if slots.is_cuda:  # bincount synchronises with the host there
        counts = torch.zeros(n * number, dtype=torch.int64, device=slots.device)
        counts.scatter_add_(0, index, torch.ones_like(index))
    else:
        counts = torch.bincount(index, minlength=n * number)
    return counts.view(n, number)


def _rank_within_class(class_ids: Tensor, scores: Tensor, present: Tensor) -> Tensor:
    """Count, for every slot, the present slots of its class that come before it by score."""
    order = torch.argsort(scores, descending=True, stable=True)
    position = torch.empty_like(order)
    position[order] = torch.arange(order.numel(), device=order.device)
    before = position[:, None] < position[None, :]
    same = class_ids[:, None] == class_ids[None, :]
    return (before & same & present[:, None]).sum(0)


def _extent(counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return first line, last line and mean line of every slot from its counts (lines, S)."""
    lines = torch.arange(counts.shape[0], device=counts.device)
    occupied = (counts > 0).to(torch.uint8)
    first = occupied.argmax(0)
    last = counts.shape[0] - 1 - occupied.flip(0).argmax(0)
    total = counts.sum(0).clamp(min=1)
    return first, last, (counts * lines[:, None]).sum(0) / total
