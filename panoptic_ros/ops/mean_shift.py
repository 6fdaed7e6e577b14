"""Mean-shift clustering with bin seeding, in fixed shapes on the device.

The accelerated mean shift of PanoNet (section III-D), which scikit-learn calls
``MeanShift(bin_seeding=True)``: a flat kernel, seeds from a grid of the points' own spacing,
centres within a bandwidth of a fuller one dropped.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from panoptic_ros.ops.constants import constant

_HASH_PRIMES = (73856093, 19349663, 83492791, 50331653, 25165843, 12582917)
_BUCKETS = 1 << 16
_ARRIVED = 1e-3  # a shorter step is the last one: scikit-learn's rule


def mean_shift(
    points: Tensor,
    groups: Tensor,
    max_centers: int = 128,
    iterations: int = 30,
    min_size: int = 1,
) -> tuple[Tensor, Tensor]:
    """Find the centres of the clusters of points, each group on its own, with bandwidth 1.

    Divide points by their bandwidth before.

    Args:
        points: float, (N, D).
        groups: int64, (N,): points of different groups never meet; -1 takes no part.
        max_centers: Seeds, hence centres, at most: the fullest cells of the grid.
        iterations: Steps of every seed. A seed that has arrived stays where it is; on CPUs it
            takes no more steps, and seeds that have met go on as one.
        min_size: Centres with fewer points within their bandwidth are dropped.

    Returns:
        Centres, float32, (max_centers, D), fullest first, and the group of each, int64,
        (max_centers,), -1 where there is no centre.
    """
    points = points.float()
    if len(points) == 0:
        return points.new_zeros(max_centers, points.shape[1]), groups.new_full((max_centers,), -1)
    centers, center_groups = _seeds(points, groups, max_centers)
    climb = _climb_by_group if points.device.type == "cpu" else _climb_on_cuda
    centers, count = climb(centers, center_groups, points, groups, iterations)
    center_groups = center_groups.where(count >= max(min_size, 1), -1)
    return _drop_duplicates(centers, center_groups, count)


def _climb_together(
    centers: Tensor, center_groups: Tensor, points: Tensor, groups: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """Move all centres at once, in fixed shapes; return them and the points of each: (K,)."""
    same = (center_groups[:, None] == groups[None]) & (groups >= 0)[None]
    for _ in range(iterations):
        centers = _step(centers, points, same)
    return centers, _within(centers, points, same).sum(1)


def _climb_on_cuda(
    centers: Tensor, center_groups: Tensor, points: Tensor, groups: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """Do the same with one kernel a step."""
    from panoptic_ros.ops.mean_shift_triton import climb

    return climb(centers, center_groups, points, groups, iterations)


def _climb_by_group(
    centers: Tensor, center_groups: Tensor, points: Tensor, groups: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """Do the same among the points of one group after the other, for CPUs."""
    of_group = groups.to(torch.int16).numpy()
    order = np.argsort(of_group, kind="stable")  # radix sort
    points, of_group = points.index_select(0, torch.from_numpy(order)), of_group[order]
    count = torch.zeros(len(centers))
    for group in center_groups[center_groups >= 0].unique().tolist():
        own = torch.nonzero(center_groups == group).flatten()
        start, stop = np.searchsorted(of_group, (group, group + 1))
        members = points[start:stop]
        centers[own] = _climb(centers[own], members, iterations)
        count[own] = _within(centers[own], members).sum(1)
    return centers, count


def _climb(centers: Tensor, points: Tensor, iterations: int) -> Tensor:
    """Move the centres of one group until they have arrived, on CPUs: (K, D)."""
    index = torch.arange(len(centers))
    goes_as = moving = index  # each goes as itself, or as the first that it has met
    alone = torch.ones_like(index, dtype=torch.bool)
    for _ in range(iterations):
        before, after = centers[moving], _step(centers[moving], points)
        centers[moving] = after
        moving = moving[(after - before).norm(dim=1) > _ARRIVED]
        if len(moving) == 0:
            break
        met = torch.cdist(centers, centers, compute_mode="donot_use_mm_for_euclid_dist")
        first = ((met <= _ARRIVED) & alone[:, None]).to(torch.uint8).argmax(0)
        goes_as = first[goes_as]
        alone &= first == index
        moving = moving[alone[moving]]
    return centers[goes_as]


def _seeds(points: Tensor, groups: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Take the fullest cells of a grid of spacing 1 as seeds.

    Cells are told apart by a hash, since they are many in 12 dimensions: if two share a bucket
    the one of the later point stands for both.
    """
    cells = points.round()
    columns = range(cells.shape[1] + 1)
    products = [_HASH_PRIMES[i % len(_HASH_PRIMES)] * (i + 1) for i in columns]
    factors = constant(products, points.device, torch.float64)
    keys = cells.double() @ factors[:-1] + groups * factors[-1]  # whole numbers below 2**53
    bucket = keys.long() % _BUCKETS
    takes_part = groups >= 0
    fill = torch.zeros(_BUCKETS, dtype=torch.int64, device=points.device)
    fill.scatter_add_(0, bucket, takes_part.long())
    last = torch.full_like(fill, -1)
    index = torch.arange(len(points), device=points.device)
    last.scatter_reduce_(0, bucket, index.where(takes_part, -1), "amax")
    count, chosen = fill.topk(number)
    point = last[chosen].clamp(min=0)
    return cells[point], groups[point].where(count > 0, -1)


def _squared_distances(centers: Tensor, points: Tensor) -> Tensor:
    """Squared Euclidean distances: (K, N)."""
    squares = (centers**2).sum(1)[:, None] + (points**2).sum(1)[None]
    return torch.addmm(squares, centers, points.T, alpha=-2)


def _within(centers: Tensor, points: Tensor, same: Tensor | None = None) -> Tensor:
    """1.0 where a point (of the ``same`` group) is within a bandwidth of a centre: (K, N)."""
    near = _squared_distances(centers, points) <= 1
    return (near if same is None else near & same).to(points.dtype)


def _step(centers: Tensor, points: Tensor, same: Tensor | None = None) -> Tensor:
    """Return the mean of the points within a bandwidth of each centre, or the centre: (K, D)."""
    within = _within(centers, points, same)
    count = within.sum(1, keepdim=True)
    return torch.where(count > 0, within @ points / count.clamp(min=1), centers)


def _drop_duplicates(centers: Tensor, groups: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Walk the centres from the fullest on and drop those within a bandwidth of a kept one."""
    order = torch.argsort(count.where(groups >= 0, -1), descending=True, stable=True)
    centers, groups = centers[order], groups[order]
    near = _squared_distances(centers, centers) < 1
    near = (near & (groups[:, None] == groups)).triu(1)
    keep = groups >= 0
    keep_first = _keep_first_on_host if keep.device.type == "cpu" else _keep_first_on_cuda
    keep = keep_first(near, keep)
    return centers, groups.where(keep, -1)


def _keep_first(near: Tensor, keep: Tensor) -> Tensor:
    """Take out what is near an earlier one that is kept: bool, (K,).

    Args:
        near: bool, (K, K), by earlier and later.
        keep: bool, (K,), what there is.
    """
    for index in range(len(keep)):
        keep = keep & ~(near[index] & keep[index])
    return keep


def _keep_first_on_host(near: Tensor, keep: Tensor) -> Tensor:
    """Do the same only for those that there are."""
    near, keep = near.numpy(), keep.numpy().copy()
    for index in np.flatnonzero(keep):
        if keep[index]:
            keep &= ~near[index]
    return torch.from_numpy(keep)


def _keep_first_on_cuda(near: Tensor, keep: Tensor) -> Tensor:
    """Do the same in one operation."""
    from panoptic_ros.ops.walk_triton import keep_first

    return keep_first(near, keep)
