"""The steps of mean shift on CUDA: distances, who is within, and sums in one kernel a step.

Sums are of whole numbers, so they do not depend on the order in which blocks of points arrive,
and a centre that has arrived stays exactly where it is. When no centre moves any more, the steps
left return at once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_PROGRAMS = 256  # that share the points of a step
_POINTS = 64  # of a block
_ONE = tl.constexpr(float(2**24))  # of the sums; 2**17 points of up to 2**10 leave 12 bits


@triton.jit
def _mean(sums, before):
    """Return where the sums move centres to; the last column counts the points."""
    column = tl.arange(0, sums.shape[1])[None, :]
    count = tl.sum(tl.where(column == sums.shape[1] - 1, sums, 0), axis=1)[:, None]
    total = sums.to(tl.float64) / (_ONE * tl.maximum(count, 1).to(tl.float64))
    return tl.where(count > 0, total.to(tl.float32), before)


@triton.jit(do_not_specialize=["index"])
def _step(
    path,
    sums,
    center_groups,
    points,
    groups,
    index,
    number,
    dimensions,
    padded: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
):
    """Move the centres to the means of step ``index`` - 1 and sum what is within of them.

    ``path`` (steps, padded, width) and ``sums`` have the coordinates in the first columns, sums
    the counts in the last one.
    """
    center = tl.arange(0, padded)[:, None]
    column = tl.arange(0, width)[None, :]
    place = center * width + column
    size: tl.constexpr = padded * width
    now = tl.load(path + place)  # of step 0
    changed = 1
    if index > 0:
        before = tl.load(path + (index - 1) * size + place)
        last_sums = tl.load(sums + (index - 1) * size + place)
        now = _mean(last_sums, before)
        now = tl.where(column < dimensions, now, 0.0)
        changed = tl.sum(tl.sum((now != before).to(tl.int32), axis=1), axis=0)
        if tl.program_id(0) == 0:
            tl.store(path + index * size + place, now)
            if changed == 0:
                tl.store(sums + index * size + place, last_sums)
    if changed != 0:
        own = tl.load(center_groups + tl.arange(0, padded))[:, None]
        norms = tl.sum(now * now, axis=1)[:, None]
        total = tl.zeros([padded, width], tl.float32)
        for start in range(tl.program_id(0) * block, number, tl.num_programs(0) * block):
            point = start + tl.arange(0, block)
            group = tl.load(groups + point, point < number, -1)
            if tl.max(group, axis=0) >= 0:
                there = (point < number)[:, None] & (column < dimensions)
                at = points + point[:, None] * dimensions + column
                values = tl.load(at, there, 0.0).to(tl.float32)
                products = tl.dot(now, tl.trans(values), input_precision="tf32x3")
                squares = tl.sum(values * values, axis=1)[None, :]
                near = norms + squares - 2 * products <= 1
                near = near & (own == group[None, :]) & (group >= 0)[None, :]
                counted = tl.where(column == width - 1, 1.0, values)
                total += tl.dot(near.to(tl.float32), counted, input_precision="tf32x3")
        rounded = total * _ONE + tl.where(total < 0, -0.5, 0.5)
        whole = tl.where(column == width - 1, total.to(tl.int64), rounded.to(tl.int64))
        tl.atomic_add(sums + index * size + place, whole, whole != 0, sem="relaxed")


@torch.library.custom_op("panoptic_ros::mean_shift_climb", mutates_args=())
def climb(
    centers: Tensor, center_groups: Tensor, points: Tensor, groups: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """Move all centres to the mean of the points within 1 of them, again and again.

    Args:
        centers: float32, (K, D).
        center_groups: int64, (K,).
        points: float32, (N, D).
        groups: int64, (N,), points are seen by the centres of their group; -1 for none.
        iterations: Steps.

    Returns:
        The centres, float32, (K, D), and the points within 1 of each, float32, (K,).
    """
    number, dimensions = centers.shape
    padded = max(16, triton.next_power_of_2(number))
    width = max(16, triton.next_power_of_2(dimensions + 1))
    path = centers.new_zeros(iterations + 1, padded, width, dtype=torch.float32)
    path[0, :number, :dimensions] = centers
    sums = torch.zeros(iterations + 1, padded, width, dtype=torch.int64, device=centers.device)
    own = torch.full((padded,), -2, dtype=torch.int32, device=centers.device)
    own[:number] = center_groups
    programs = max(1, min(_PROGRAMS, triton.cdiv(len(points), _POINTS)))
    points, groups = points.contiguous(), groups.to(torch.int32).contiguous()
    for index in range(iterations + 1):
        _step[(programs,)](
            path,
            sums,
            own,
            points,
            groups,
            index,
            len(points),
            dimensions,
            padded,
            width,
            _POINTS,
            num_warps=8,
        )
    return path[-1, :number, :dimensions].clone(), sums[-1, :number, -1].float()


@climb.register_fake
def _(
    centers: Tensor, center_groups: Tensor, points: Tensor, groups: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(centers), centers.new_empty(len(centers))
