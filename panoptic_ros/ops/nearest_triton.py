"""Which cluster cells and pixels belong to, on CUDA, and how sure the clusters are."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_CELLS = 64
_PIXELS = 1024
_PROGRAMS = 128  # that share the cells of the scores
_ONE = tl.constexpr(float(2**30))  # of sums of probabilities; whole numbers have no order


@triton.jit
def _nearest(
    features,
    bandwidths,
    centers,
    groups,
    nearest,
    stride_d,
    stride_n,
    number,
    dimensions,
    centers_number,
    classes,
    padded: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
):
    """Find the nearest centre of every class for some cells, from products as in mean shift."""
    center = tl.arange(0, padded)
    column = tl.arange(0, width)
    cell = tl.program_id(0) * block + tl.arange(0, block)
    group = tl.load(groups + center, center < centers_number, -1)
    scale = 1.0 / tl.load(bandwidths + tl.maximum(group, 0))
    at = centers + center[:, None] * dimensions + column[None, :]
    there = (center < centers_number)[:, None] & (column < dimensions)[None, :]
    own = tl.load(at, there, 0.0).to(tl.float32)
    at = features + column[:, None].to(tl.int64) * stride_d + cell[None, :] * stride_n
    there = (column < dimensions)[:, None] & (cell < number)[None, :]
    values = tl.load(at, there, 0.0).to(tl.float32)
    products = tl.dot(own * scale[:, None], values, input_precision="tf32x3")
    squares = tl.sum(values * values, axis=0)[None, :] * (scale * scale)[:, None]
    distance = squares + tl.sum(own * own, axis=1)[:, None] - 2 * products
    for index in range(0, classes):
        of_class = group == index
        found = tl.max(of_class.to(tl.int32), axis=0)
        place = tl.argmin(tl.where(of_class[:, None], distance, float("inf")), axis=0)
        place = tl.where(found > 0, place, -1).to(tl.int64)
        tl.store(nearest + tl.cast(index, tl.int64) * number + cell, place, cell < number)


@torch.library.custom_op("panoptic_ros::nearest_of_class", mutates_args=())
def nearest_of_class(
    features: Tensor, bandwidths: Tensor, centers: Tensor, groups: Tensor
) -> Tensor:
    """Return the nearest centre of every class for every cell; see ``ops.nearest``.

    Args:
        features: float of any precision, (D, N), with any strides.
        bandwidths: float32, (T,).
        centers: float32, (K, D), in bandwidths.
        groups: int64, (K,), classes; -1 for none.

    Returns:
        int64, (T, N), -1 where a class has no centre.
    """
    dimensions, number = features.shape
    classes, of_center = len(bandwidths), len(groups)
    nearest = torch.empty(classes, number, dtype=torch.int64, device=features.device)
    if number and classes:
        _nearest[(triton.cdiv(number, _CELLS),)](
            features,
            bandwidths.contiguous(),
            centers.contiguous(),
            groups.to(torch.int32).contiguous(),
            nearest,
            *features.stride(),
            number,
            dimensions,
            of_center,
            classes,
            max(16, triton.next_power_of_2(of_center)),
            max(16, triton.next_power_of_2(dimensions)),
            _CELLS,
        )
    return nearest


@nearest_of_class.register_fake
def _(features: Tensor, bandwidths: Tensor, centers: Tensor, groups: Tensor) -> Tensor:
    return groups.new_empty(len(bandwidths), features.shape[1])


@triton.jit
def _paint(
    pixel_class,
    nearest,
    of_cluster,
    slots,
    columns,
    cells,
    cells_across,
    clusters,
    classes,
    stride,
    pixels: tl.constexpr,
):
    """Give the pixels of a part of a row the slots of their clusters and classes."""
    row = tl.program_id(1)
    x = tl.program_id(0) * pixels + tl.arange(0, pixels)
    inside = x < columns
    place = row.to(tl.int64) * columns + x
    own = tl.load(pixel_class + place, inside, 0).to(tl.int32)
    is_thing = inside & (own < classes)
    cell = row // stride * cells_across + x // stride
    cluster = tl.load(nearest + own.to(tl.int64) * cells + cell, is_thing, -1)
    slot = tl.load(of_cluster + cluster, is_thing & (cluster >= 0), 0).to(tl.int32)
    slot = tl.where(own < classes, slot, clusters + 1 + own - classes)
    tl.store(slots + place, slot, inside)


@torch.library.custom_op("panoptic_ros::paint_clusters", mutates_args=())
def paint_clusters(
    pixel_class: Tensor, nearest: Tensor, of_cluster: Tensor, stride: int
) -> Tensor:
    """Return the slot of every pixel: that of its cluster, or of its class if that is no thing.

    Args:
        pixel_class: int16, (H, W).
        nearest: int64, (T, N), the cluster of each class in each cell, -1 for none.
        of_cluster: int64, (K,), slots of the clusters.
        stride: Pixels per cell along rows and columns.

    Returns:
        int32, (H, W); class T + i has slot K + 1 + i.
    """
    rows, columns = pixel_class.shape
    slots = torch.empty(rows, columns, dtype=torch.int32, device=pixel_class.device)
    _paint[(triton.cdiv(columns, _PIXELS), rows)](
        pixel_class.contiguous(),
        nearest,
        of_cluster.contiguous(),
        slots,
        columns,
        nearest.shape[1],
        triton.cdiv(columns, stride),
        len(of_cluster),
        len(nearest),
        stride,
        _PIXELS,
    )
    return slots


@paint_clusters.register_fake
def _(pixel_class: Tensor, nearest: Tensor, of_cluster: Tensor, stride: int) -> Tensor:
    return torch.empty_like(pixel_class, dtype=torch.int32)


@triton.jit
def _score(
    logits,
    groups,
    clusters,
    sums,
    channels,
    stride_c,
    stride_n,
    number,
    clusters_number,
    padded: tl.constexpr,
    block: tl.constexpr,
):
    """Add the probability of the best class of the cells of a program to their clusters."""
    every = tl.arange(0, padded)
    total = tl.zeros([padded], tl.int64)
    count = tl.zeros([padded], tl.int64)
    for start in range(tl.program_id(0) * block, number, tl.num_programs(0) * block):
        cell = start + tl.arange(0, block)
        there = cell < number
        cluster = tl.load(clusters + cell, there, -1)
        cluster = tl.where(tl.load(groups + cell, there, -1) >= 0, cluster, -1)
        if tl.max(cluster, axis=0) >= 0:
            highest = tl.full([block], float("-inf"), tl.float32)
            rest = tl.zeros([block], tl.float32)
            for channel in range(0, channels):
                at = logits + tl.cast(channel, tl.int64) * stride_c + cell * stride_n
                value = tl.load(at, there, 0.0).to(tl.float32)
                new = tl.maximum(highest, value)
                rest = rest * tl.exp(highest - new) + tl.exp(value - new)
                highest = new
            share = (1.0 / rest * _ONE + 0.5).to(tl.int64)
            own = cluster[:, None] == every[None, :]
            total += tl.sum(tl.where(own, share[:, None], 0), axis=0)
            count += tl.sum(own.to(tl.int64), axis=0)
    tl.atomic_add(sums + every, total, count > 0, sem="relaxed")
    tl.atomic_add(sums + clusters_number + every, count, count > 0, sem="relaxed")


@torch.library.custom_op("panoptic_ros::cluster_scores", mutates_args=())
def cluster_scores(logits: Tensor, groups: Tensor, clusters: Tensor, number: int) -> Tensor:
    """Return the mean probability of the best class over the cells of every cluster.

    Args:
        logits: float of any precision, (C, M), with any strides.
        groups: int64, (M,), -1 for a cell that takes no part.
        clusters: int64, (M,), 0..number - 1, or -1.
        number: Of clusters.

    Returns:
        float32, (number,), 0..1, 0 for a cluster without cells.
    """
    sums = torch.zeros(2, number, dtype=torch.int64, device=logits.device)
    cells = len(clusters)
    _score[(max(1, min(_PROGRAMS, triton.cdiv(cells, _CELLS))),)](
        logits,
        groups.contiguous(),
        clusters.contiguous(),
        sums,
        len(logits),
        *logits.stride(),
        cells,
        number,
        triton.next_power_of_2(number),
        _CELLS,
    )
    return (sums[0].double() / (float(2**30) * sums[1].clamp(min=1))).float()


@cluster_scores.register_fake
def _(logits: Tensor, groups: Tensor, clusters: Tensor, number: int) -> Tensor:
    return logits.new_empty(number, dtype=torch.float32)
