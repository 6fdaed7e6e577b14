"""From the segment map of a network to the label image and its table, on the device.

The plain form has fixed shapes and does not wait for the device.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from panoptic_ros.ops.confidence import pixel_confidence
from panoptic_ros.ops.constants import scalar
from panoptic_ros.prediction import LABEL_DIVISOR, MAX_INSTANCES
from panoptic_ros.truth import SegmentMap


class EncodedSegments(NamedTuple):
    """A label image and the table of its segments.

    Attributes:
        labels: int16, (H, W): the bits of the uint16 label image. With confidence, (2, H, W):
            behind it that of every pixel, 0..255.
        table: float64, (S, 9), a row per slot: label, area, x1, y1, x2, y2 (inclusive box),
            score, centre x, centre y. Rows of area 0 are empty.
    """

    labels: Tensor
    table: Tensor


def encode_segments(
    segments: SegmentMap,
    thing_ids: Tensor,
    stuff_area_limit: int = 0,
    confidence: bool = False,
) -> EncodedSegments:
    """Number the instances of each class by score, best first, and measure every segment.

    Stuff of fewer than ``stuff_area_limit`` pixels becomes void (panopticapi's rule). Instances
    beyond ``MAX_INSTANCES`` of one class get instance 0: the lowest scores.

    Args:
        segments: Slots (H, W) with values 0..S, and what is in each of the S slots.
        thing_ids: Category ids that are things, (N_things,).
        stuff_area_limit: In pixels of the label image.
        confidence: Whether to give that of every pixel, too.
    """
    slots, class_ids, _, _ = segments
    label = _label_on_cpu if slots.device.type == "cpu" else _label_on_cuda
    of_slot, table = label(segments, thing_ids, stuff_area_limit)
    labels = of_slot.index_select(0, slots.flatten()).view(slots.shape)
    if confidence:
        is_thing = _is_thing(class_ids, thing_ids)
        labels = torch.stack((labels, pixel_confidence(segments, ~is_thing, table[:, 1] > 0)))
    return EncodedSegments(labels, table)


def _label_on_cpu(
    segments: SegmentMap, thing_ids: Tensor, stuff_area_limit: int
) -> tuple[Tensor, Tensor]:
    """Return the label of each value of the map, int16 (S + 1,), and the table."""
    extent = _extent_by_runs(segments.slots, segments.class_ids.numel())
    return _label(segments, thing_ids, stuff_area_limit, extent)


def _label_on_cuda(
    segments: SegmentMap, thing_ids: Tensor, stuff_area_limit: int | Tensor
) -> tuple[Tensor, Tensor]:
    """Do the same in one operation."""
    from panoptic_ros.ops.segments_triton import label_segments

    limit = scalar(stuff_area_limit, thing_ids.device, torch.int64)
    return label_segments(*segments[:3], thing_ids, limit, LABEL_DIVISOR, MAX_INSTANCES)


def _label(
    segments: SegmentMap, thing_ids: Tensor, stuff_area_limit: int, extent: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Do the same from the extents of the slots, the plain form."""
    _, class_ids, scores, _ = segments
    area = extent[0]
    is_thing = _is_thing(class_ids, thing_ids)
    present = (class_ids > 0) & (area > 0) & (is_thing | (area >= stuff_area_limit))
    area = torch.where(present, area, 0)

    instance = torch.where(is_thing, _rank_within_class(class_ids, scores, present) + 1, 0)
    instance = torch.where(instance <= MAX_INSTANCES, instance, 0)
    label = torch.where(present, class_ids * LABEL_DIVISOR + instance, 0)
    of_slot = torch.cat((label.new_zeros(1), label)).to(torch.int32).to(torch.int16)
    columns = (label, area, *extent[1:5], scores, *extent[5:])
    return of_slot, torch.stack([v.double() for v in columns], dim=1)


def _is_thing(class_ids: Tensor, thing_ids: Tensor) -> Tensor:
    return (class_ids[:, None] == thing_ids).any(1)  # isin sorts many values, and waits


def _extent_by_counts(slots: Tensor, number: int) -> tuple[Tensor, ...]:
    """Return area, x1, y1, x2, y2, mean x and mean y of every slot, from counts on its lines."""
    x1, x2, mean_x, _ = _lines(slots, number, dim=1)
    y1, y2, mean_y, area = _lines(slots, number, dim=0)
    return area, x1, y1, x2, y2, mean_x, mean_y


def _lines(slots: Tensor, number: int, dim: int) -> tuple[Tensor, ...]:
    """Return first, last and mean row (dim 0) or column (dim 1) of every slot, and its area."""
    n = slots.shape[dim]
    line = torch.arange(n, device=slots.device, dtype=torch.int32)[:, None]
    start = line * (number + 1)
    index = (slots + (start if dim == 0 else start.T)).flatten()
    counts = torch.zeros(n * (number + 1), dtype=torch.int32, device=slots.device)
    counts.index_add_(0, index, torch.ones_like(index))
    counts = counts.view(n, number + 1)[:, 1:]
    occupied = counts > 0
    area = counts.sum(0)
    mean = (counts.double() * line).sum(0) / area.clamp(min=1)
    first = torch.where(occupied, line, n).amin(0)
    return first, torch.where(occupied, line, -1).amax(0), mean, area


def _extent_by_runs(slots: Tensor, number: int) -> tuple[Tensor, ...]:
    """Return the same from the runs along the rows, for CPUs: far fewer than pixels."""
    width = slots.shape[1]
    flat = slots.flatten()
    differs = np.not_equal(flat[1:].numpy(), flat[:-1].numpy())
    starts = np.concatenate(([True], differs))
    starts[::width] = True
    start = torch.from_numpy(np.flatnonzero(starts))
    length = torch.diff(start, append=start.new_tensor([len(flat)]))
    slot = flat[start].long()
    y = torch.div(start, width, rounding_mode="floor")
    x1 = start - y * width
    x2 = x1 + length - 1

    def total(values: Tensor) -> Tensor:
        return torch.bincount(slot, values.double(), minlength=number + 1)

    def extreme(values: Tensor, reduce: str) -> Tensor:
        empty = values.new_zeros(number + 1)
        return empty.scatter_reduce_(0, slot, values, reduce, include_self=False)

    area = total(length)
    boxes = [extreme(v, r) for v, r in ((x1, "amin"), (y, "amin"), (x2, "amax"), (y, "amax"))]
    means = [total(v) / area.clamp(min=1) for v in ((x1 + x2) * length / 2, y * length)]
    return tuple(v[1:] for v in (area.long(), *boxes, *means))


def _rank_within_class(class_ids: Tensor, scores: Tensor, present: Tensor) -> Tensor:
    """Count, for every slot, the present slots of its class that come before it by score."""
    order = torch.argsort(scores, descending=True, stable=True)
    position = torch.empty_like(order)
    position[order] = torch.arange(order.numel(), device=order.device)
    before = position[:, None] < position[None, :]
    same = class_ids[:, None] == class_ids[None, :]
    return (before & same & present[:, None]).sum(0)
