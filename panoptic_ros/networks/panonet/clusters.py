"""Which cluster each cell and pixel of PanoNet belongs to (section III-D)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from panoptic_ros.ops.upsampling import enlarge


def pixels_of_other_class(
    pixel_class: Tensor, cell_class: Tensor, stride: int
) -> tuple[Tensor, Tensor]:
    """Find the pixels that are not of the class of their cell, few as a rule.

    Args:
        pixel_class: int16, (H, W).
        cell_class: int16, (ceil(H / stride), ceil(W / stride)).
        stride: Pixels per cell, along rows and columns.

    Returns:
        The pixels, int64, (M,), index into ``pixel_class``, and the cell of each. On CUDA all
        pixels, since how many there are is known only to the host.
    """
    width = pixel_class.shape[1]
    if pixel_class.is_cuda:
        pixels = torch.arange(pixel_class.numel(), device=pixel_class.device)
    else:
        differs = pixel_class != enlarge(cell_class, stride, pixel_class.shape)
        pixels = torch.from_numpy(np.flatnonzero(differs.numpy()))
    row = torch.div(pixels, width, rounding_mode="floor")
    cell_row = torch.div(row, stride, rounding_mode="floor")
    cell_column = torch.div(pixels - row * width, stride, rounding_mode="floor")
    return pixels, cell_row * cell_class.shape[1] + cell_column


def nearest_of_class(
    features: Tensor,
    bandwidths: Tensor,
    centers: Tensor,
    groups: Tensor,
    wanted: Tensor | None = None,
) -> Tensor:
    """Return the nearest centre of every thing class for every cell.

    Args:
        features: (D, N), embeddings.
        bandwidths: (T,), of the thing classes.
        centers: (K, D), in bandwidths.
        groups: int64, (K,), their classes; -1 for none.
        wanted: bool, (at least T, N): by class, the cells whose nearest is wanted, if not all.

    Returns:
        int64, (T, N), index of the centre; -1 where a class has none or it is not wanted.
    """
    shape = (len(bandwidths), features.shape[1])
    nearest = torch.full(shape, -1, device=features.device)
    for index, bandwidth in enumerate(bandwidths):
        if wanted is None:
            distance = torch.cdist(features.T / bandwidth, centers)
            allowed = groups == index
            place = distance.masked_fill(~allowed, torch.inf).argmin(1)
            nearest[index] = torch.where(allowed.any(), place, -1)
        elif (own := torch.nonzero(groups == index).flatten()).numel():
            cells = torch.nonzero(wanted[index]).flatten()
            points = features.index_select(1, cells).T / bandwidth
            nearest[index, cells] = own[torch.cdist(points, centers[own]).min(1).indices]
    return nearest


def cluster_scores(logits: Tensor, groups: Tensor, clusters: Tensor, number: int) -> Tensor:
    """Return the mean probability of the class over the cells of every cluster: (number,), 0..1.

    Args:
        logits: float32, (C, M), of cells.
        groups: int64, (M,), -1 for a cell that takes no part.
        clusters: int64, (M,), the cluster of each cell, 0..number - 1, or -1.
        number: Of clusters.
    """
    probability = 1 / (logits - logits.amax(0)).exp().sum(0)  # of the best class
    takes_part = (groups >= 0) & (clusters >= 0)
    sums = probability.new_zeros(2, number)
    sums[0].scatter_add_(0, clusters.clamp(min=0), probability * takes_part)
    sums[1].scatter_add_(0, clusters.clamp(min=0), takes_part.float())
    return sums[0] / sums[1].clamp(min=1)
