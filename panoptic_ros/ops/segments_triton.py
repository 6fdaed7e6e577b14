"""Where the segments of a map of slots are, on CUDA, from the ends of their runs along the rows.

What is added up are whole numbers, so their order does not matter.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_PIXELS = 1024  # of a row, a program


@triton.jit
def _extents(slots, found, rows, columns, number, pixels: tl.constexpr):
    """Add the runs in a part of a row to the sums, and lift the maxima, of their slots.

    ``found`` has, for each slot: area, sum of x, sum of y, and as largest values columns - x1,
    rows - y1, x2 + 1, y2 + 1. A run from x1 to x2 counts as what is before x2 + 1 less what is
    before x1.
    """
    row = tl.program_id(1)
    x = tl.program_id(0) * pixels + tl.arange(0, pixels)
    line = slots + row.to(tl.int64) * columns
    slot = tl.load(line + x, x < columns, 0)
    before = tl.load(line + x - 1, (x > 0) & (x <= columns), -1)
    after = tl.load(line + x + 1, x + 1 < columns, -1)
    starts = (slot > 0) & (slot != before)
    ends = (slot > 0) & (slot != after)
    of_slot = found + (slot - 1).to(tl.int64)
    x1 = x.to(tl.int64)
    x2 = x1 + 1
    y = tl.cast(row, tl.int64)
    tl.atomic_add(of_slot, -x1, starts, sem="relaxed")
    tl.atomic_add(of_slot, x2, ends, sem="relaxed")
    tl.atomic_add(of_slot + number, -(x1 * (x1 - 1) // 2), starts, sem="relaxed")
    tl.atomic_add(of_slot + number, x2 * (x2 - 1) // 2, ends, sem="relaxed")
    tl.atomic_add(of_slot + 2 * number, -x1 * y, starts, sem="relaxed")
    tl.atomic_add(of_slot + 2 * number, x2 * y, ends, sem="relaxed")
    tl.atomic_max(of_slot + 3 * number, columns - x1, starts, sem="relaxed")
    tl.atomic_max(of_slot + 4 * number, tl.zeros_like(x1) + (rows - y), starts, sem="relaxed")
    tl.atomic_max(of_slot + 5 * number, x2, ends, sem="relaxed")
    tl.atomic_max(of_slot + 6 * number, tl.zeros_like(x1) + (y + 1), starts, sem="relaxed")


@triton.jit
def _facts(slot, found, class_ids, scores, thing_ids, area_limit, number, things):
    """Return class, score and area of slots, whether they are things, and present."""
    there = slot < number
    class_id = tl.load(class_ids + slot, there, 0)
    area = tl.load(found + slot, there, 0)
    is_thing = class_id < 0
    for index in range(0, things):
        is_thing = is_thing | (class_id == tl.load(thing_ids + index))
    enough = is_thing | (area >= tl.load(area_limit))
    present = (class_id > 0) & (area > 0) & enough
    return class_id, tl.load(scores + slot, there, 0.0), area, is_thing, present


@triton.jit
def _label(
    found,
    class_ids,
    scores,
    thing_ids,
    area_limit,
    of_slot,
    table,
    rows,
    columns,
    number,
    things,
    divisor,
    most,
    padded: tl.constexpr,
):
    """Number the instances of every class by score and write the table, in one program."""
    slot = tl.arange(0, padded)
    there = slot < number
    class_id, score, area, is_thing, present = _facts(
        slot, found, class_ids, scores, thing_ids, area_limit, number, things
    )
    rank = tl.zeros([padded], tl.int32)
    for start in range(0, padded, 16):
        other = start + tl.arange(0, 16)
        its_class, its_score, _, _, is_present = _facts(
            other, found, class_ids, scores, thing_ids, area_limit, number, things
        )
        equal = (its_score[None, :] == score[:, None]) & (other[None, :] < slot[:, None])
        before = (its_score[None, :] > score[:, None]) | equal
        before = before & (its_class[None, :] == class_id[:, None]) & is_present[None, :]
        rank += tl.sum(before.to(tl.int32), axis=1)
    instance = tl.where(is_thing & (rank < most), rank + 1, 0)
    label = tl.where(present, class_id * divisor + instance, 0)
    tl.store(of_slot + 1 + slot, label.to(tl.int32).to(tl.int16), there)
    shown = tl.where(present, area, 0)
    whole = tl.maximum(area, 1).to(tl.float64)
    out = table + slot * 9
    sum_x = tl.load(found + number + slot, there, 0).to(tl.float64)
    sum_y = tl.load(found + 2 * number + slot, there, 0).to(tl.float64)
    tl.store(out, label.to(tl.float64), there)
    tl.store(out + 1, shown.to(tl.float64), there)
    first_x = columns - tl.load(found + 3 * number + slot, there, 0)
    first_y = rows - tl.load(found + 4 * number + slot, there, 0)
    tl.store(out + 2, first_x.to(tl.float64), there)
    tl.store(out + 3, first_y.to(tl.float64), there)
    last_x = tl.load(found + 5 * number + slot, there, 0) - 1
    last_y = tl.load(found + 6 * number + slot, there, 0) - 1
    tl.store(out + 4, last_x.to(tl.float64), there)
    tl.store(out + 5, last_y.to(tl.float64), there)
    tl.store(out + 6, score.to(tl.float64), there)
    tl.store(out + 7, sum_x / whole, there)
    tl.store(out + 8, sum_y / whole, there)


@torch.library.custom_op("panoptic_ros::label_segments", mutates_args=())
def label_segments(
    slots: Tensor,
    class_ids: Tensor,
    scores: Tensor,
    thing_ids: Tensor,
    area_limit: Tensor,
    divisor: int,
    most: int,
) -> tuple[Tensor, Tensor]:
    """Label and measure the segments of a map; see ``segments.encode_segments``.

    Args:
        slots: int32, (H, W), 0..S.
        class_ids: int64, (S,).
        scores: float32, (S,).
        thing_ids: int64, (N_things,).
        area_limit: int64, 0-dimensional.
        divisor: Of labels.
        most: Instances of a class that are numbered.

    Returns:
        int16, (S + 1,), the label of each value of the map; and the table, float64, (S, 9).
    """
    number, (rows, columns) = len(class_ids), slots.shape
    found = torch.zeros(7, number, dtype=torch.int64, device=slots.device)
    of_slot = torch.zeros(number + 1, dtype=torch.int16, device=slots.device)
    table = torch.zeros(number, 9, dtype=torch.float64, device=slots.device)
    if number:
        _extents[(triton.cdiv(columns, _PIXELS), rows)](
            slots.contiguous(), found, rows, columns, number, _PIXELS
        )
        _label[(1,)](
            found,
            class_ids.contiguous(),
            scores.contiguous(),
            thing_ids.contiguous(),
            area_limit,
            of_slot,
            table,
            rows,
            columns,
            number,
            len(thing_ids),
            divisor,
            most,
            triton.next_power_of_2(number),
            num_warps=4,
        )
    return of_slot, table


@label_segments.register_fake
def _(
    slots: Tensor,
    class_ids: Tensor,
    scores: Tensor,
    thing_ids: Tensor,
    area_limit: Tensor,
    divisor: int,
    most: int,
) -> tuple[Tensor, Tensor]:
    number = len(class_ids)
    of_slot = slots.new_empty(number + 1, dtype=torch.int16)
    return of_slot, slots.new_empty(number, 9, dtype=torch.float64)
