"""The nearest centre of every cell and class, and the pixels that ask for another class."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from panoptic_ros.ops.upsampling import enlarge


def nearest_of_class(
    features: Tensor,
    bandwidths: Tensor,
    centers: Tensor,
    groups: Tensor,
    wanted: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Return the nearest centre of every thing class for every cell.

    Args:
        features: (D, N), embeddings.
        bandwidths: (T,), of the thing classes.
        centers: (K, D), in bandwidths.
        groups: int64, (K,), their classes; -1 for none.
        wanted: Classes and cells, int64, (M,) each, whose nearest is asked for, if not all;
            classes from T on ask for nothing.

    Returns:
        int64, (T, N), index of the centre, -1 where a class has none; what is not wanted may be
        anything.
    """
    if wanted is not None and features.device.type == "cpu":
        return _nearest_wanted(features, bandwidths, centers, groups, wanted)
    nearest = []
    for index, bandwidth in enumerate(bandwidths):
        distance = torch.cdist(features.T / bandwidth, centers)
        allowed = groups == index
        place = distance.masked_fill(~allowed, torch.inf).argmin(1)
        nearest.append(torch.where(allowed.any(), place, -1))
    return torch.stack(nearest)


def _nearest_wanted(
    features: Tensor,
    bandwidths: Tensor,
    centers: Tensor,
    groups: Tensor,
    wanted: tuple[Tensor, Tensor],
) -> Tensor:
    """Do the same where it is asked for, and among the centres of the class alone."""
    number = max(len(bandwidths), int(wanted[0].max()) + 1 if len(wanted[0]) else 0)
    asked = torch.zeros(number, features.shape[1], dtype=torch.bool)
    asked[wanted] = True
    nearest = torch.full((len(bandwidths), features.shape[1]), -1)
    for index, bandwidth in enumerate(bandwidths):
        if (own := torch.nonzero(groups == index).flatten()).numel():
            cells = torch.nonzero(asked[index]).flatten()
            points = features.index_select(1, cells).T / bandwidth
            nearest[index, cells] = own[torch.cdist(points, centers[own]).min(1).indices]
    return nearest


def pixels_of_other_class(
    pixel_class: Tensor, cell_class: Tensor, stride: int
) -> tuple[Tensor, Tensor]:
    """Find the pixels that are not of the class of their cell, few as a rule.

    Args:
        pixel_class: int16, (H, W).
        cell_class: int16, (ceil(H / stride), ceil(W / stride)).
        stride: Pixels per cell, along rows and columns.

    Returns:
        The pixels, int64, (M,), index into ``pixel_class``, and the cell of each. Elsewhere than
        on CPUs all pixels, since how many there are is known only to the device.
    """
    width = pixel_class.shape[1]
    if pixel_class.device.type == "cpu":
        differs = pixel_class != enlarge(cell_class, stride, pixel_class.shape)
        pixels = torch.from_numpy(np.flatnonzero(differs.numpy()))
    else:
        pixels = torch.arange(pixel_class.numel(), device=pixel_class.device)
    row = torch.div(pixels, width, rounding_mode="floor")
    cell_row = torch.div(row, stride, rounding_mode="floor")
    cell_column = torch.div(pixels - row * width, stride, rounding_mode="floor")
    return pixels, cell_row * cell_class.shape[1] + cell_column
