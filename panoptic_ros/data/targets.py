"""From id maps to the truth that the networks train on, and how segments are measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from panoptic_ros.prediction import Category
from panoptic_ros.truth import PanopticTarget


def target_from_ids(
    id_map: np.ndarray, segments_info: Sequence[Mapping[str, Any]], categories: Sequence[Category]
) -> PanopticTarget:
    """Turn an id map and its COCO segments_info into a training target.

    Args:
        id_map: Integers, (H, W); 0 is void.
        segments_info: Entries with ``id``, ``category_id`` and, where set, ``iscrowd``. An entry
            without a pixel is left out.
        categories: The class table of the data set.

    Raises:
        ValueError: An id of the map is not listed, or a category is not in the table.
    """
    is_thing = {category.id: category.is_thing for category in categories}
    segments = sorted(segments_info, key=lambda segment: segment["id"])
    if unknown := {s["category_id"] for s in segments} - set(is_thing):
        raise ValueError(f"category ids {sorted(unknown)} are not in the class table")
    ids = np.array([0] + [s["id"] for s in segments])
    slots = np.searchsorted(ids, id_map)
    if not np.array_equal(ids[np.minimum(slots, len(segments))], id_map):
        unlisted = np.setdiff1d(id_map, ids)
        raise ValueError(f"ids {unlisted[:5].tolist()} of the map are not in segments_info")
    return compact_target(
        torch.from_numpy(slots),
        torch.tensor([s["category_id"] for s in segments], dtype=torch.int64),
        torch.tensor([is_thing[s["category_id"]] for s in segments], dtype=torch.bool),
        torch.tensor([bool(s.get("iscrowd", 0)) for s in segments], dtype=torch.bool),
    )


def compact_target(
    slots: Tensor, class_ids: Tensor, is_thing: Tensor, is_crowd: Tensor
) -> PanopticTarget:
    """Drop segments without a pixel, number the others densely in their order, box them tightly.

    Args:
        slots: int64, (H, W): 0 is void, k belongs to entry k - 1 of the others.
        class_ids: int64, (S,).
        is_thing: bool, (S,).
        is_crowd: bool, (S,).
    """
    areas, boxes = measure_segments(slots, class_ids.numel())
    present = areas > 0
    number = torch.where(present, present.cumsum(0), 0)
    return PanopticTarget(
        slots=torch.cat((number.new_zeros(1), number))[slots],
        class_ids=class_ids[present],
        is_thing=is_thing[present],
        is_crowd=is_crowd[present],
        boxes=boxes[present].float(),
    )


def measure_segments(slots: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Measure the segments of a slot map in two counting passes over its pixels.

    Args:
        slots: int64, (H, W), values 0 (void) to ``number``.
        number: How many slots there are.

    Returns:
        Areas, int64, (number,), and tight boxes (x1, y1, x2, y2), int64, (number, 4), x2 and y2
        exclusive. Boxes of slots without a pixel mean nothing.
    """
    height, width = slots.shape
    by_row = _count(slots * height + torch.arange(height)[:, None], number, height)
    by_column = _count(slots * width + torch.arange(width), number, width)
    x1, x2 = _extent(by_column)
    y1, y2 = _extent(by_row)
    return by_row.sum(1), torch.stack((x1, y1, x2, y2), dim=1)


def _count(index: Tensor, number: int, lines: int) -> Tensor:
    """Count the pixels of every slot but void on each line: int64, (number, lines)."""
    counts = torch.bincount(index.flatten(), minlength=(number + 1) * lines)
    return counts.view(number + 1, lines)[1:]


def _extent(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first occupied line of every slot, and the one after the last."""
    occupied = (counts > 0).to(torch.uint8)
    return occupied.argmax(1), counts.shape[1] - occupied.flip(1).argmax(1)
