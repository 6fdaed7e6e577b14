"""The clusters of cells and pixels: the nearest centre, the slot of a pixel, the score."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from panoptic_ros.ops.upsampling import enlarge


class Classes(NamedTuple):
    """The classes of the pixels and of the cells that they lie in.

    Attributes:
        pixels: int16, (H, W).
        cells: int16, (ceil(H / stride), ceil(W / stride)).
        stride: Pixels per cell, along rows and columns.
        others: On CPUs the pixels that are not of the class of their cell, few as a rule:
            int64, (M,), index into ``pixels``, and the cell of each. None elsewhere, where
            finding them would wait for the device.
    """

    pixels: Tensor
    cells: Tensor
    stride: int
    others: tuple[Tensor, Tensor] | None

    @classmethod
    def of(cls, pixels: Tensor, cells: Tensor, stride: int) -> Classes:
        """Compare the classes of pixels and cells."""
        if pixels.device.type != "cpu":
            return cls(pixels, cells, stride, None)
        differs = pixels != enlarge(cells, stride, pixels.shape)
        places = torch.from_numpy(np.flatnonzero(differs.numpy()))
        row = torch.div(places, pixels.shape[1], rounding_mode="floor")
        cell_row = torch.div(row, stride, rounding_mode="floor")
        column = places - row * pixels.shape[1]
        cell_column = torch.div(column, stride, rounding_mode="floor")
        return cls(pixels, cells, stride, (places, cell_row * cells.shape[1] + cell_column))

    def other(self) -> Tensor:
        """Return the class of the pixels that are not of the class of their cell: (M,)."""
        return self.pixels.view(-1)[self.others[0]].long()


def nearest_of_class(
    features: Tensor, bandwidths: Tensor, centers: Tensor, groups: Tensor, classes: Classes
) -> Tensor:
    """Return the nearest centre of every thing class for every cell.

    Args:
        features: (D, N), embeddings.
        bandwidths: (T,), of the thing classes.
        centers: (K, D), in bandwidths.
        groups: int64, (K,), their classes; -1 for none.
        classes: Of cells and pixels; those from T on are no things.

    Returns:
        int64, (T, N), index of the centre, -1 where a class has none; on CPUs anything where no
        cell or pixel asks for it.
    """
    if classes.others is None:
        from panoptic_ros.ops import nearest_triton

        return nearest_triton.nearest_of_class(features, bandwidths, centers, groups)
    every = torch.arange(classes.cells.numel())
    own = classes.cells.flatten().long()
    wanted = torch.cat((own, classes.other())), torch.cat((every, classes.others[1]))
    return _nearest_wanted(features, bandwidths, centers, groups, wanted)


def _nearest_everywhere(
    features: Tensor, bandwidths: Tensor, centers: Tensor, groups: Tensor
) -> Tensor:
    """Return the nearest centre of every class for every cell, the plain form."""
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


def paint_clusters(classes: Classes, nearest: Tensor, of_cluster: Tensor) -> Tensor:
    """Return the slot of every pixel: that of its cluster, or of its class if that is no thing.

    Args:
        classes: Of pixels and cells.
        nearest: int64, (T, N), the cluster of each thing class in each cell, -1 for none.
        of_cluster: int64, (K,), slots of the clusters, 0 for void.

    Returns:
        int16 or int32, (H, W); class T + i has slot K + 1 + i.
    """
    if classes.others is None:
        from panoptic_ros.ops import nearest_triton

        return nearest_triton.paint_clusters(classes.pixels, nearest, of_cluster, classes.stride)
    every, cells = torch.arange(classes.cells.numel()), classes.cells
    own = _slots_of(cells.flatten().long(), every, nearest, of_cluster).view(cells.shape)
    slots = enlarge(own, classes.stride, classes.pixels.shape)
    places, of_place = classes.others
    slots.view(-1)[places] = _slots_of(classes.other(), of_place, nearest, of_cluster)
    return slots


def _slots_of(classes: Tensor, cells: Tensor, nearest: Tensor, of_cluster: Tensor) -> Tensor:
    """Return the slots of classes in cells: int16, (M,)."""
    things, clusters = len(nearest), len(of_cluster)
    or_none = F.pad(of_cluster, (0, 1))  # the last for none, -1
    of_thing = or_none[nearest[classes.clamp(max=things - 1), cells]]
    of_stuff = clusters + 1 + classes - things
    return torch.where(classes < things, of_thing, of_stuff).to(torch.int16)


def cluster_scores(logits: Tensor, groups: Tensor, clusters: Tensor, number: int) -> Tensor:
    """Return the mean probability of the class over the cells of every cluster: (number,), 0..1.

    Args:
        logits: (C, M), of cells.
        groups: int64, (M,), -1 for a cell that takes no part.
        clusters: int64, (M,), the cluster of each cell, 0..number - 1, or -1.
        number: Of clusters.
    """
    if logits.device.type != "cpu":
        from panoptic_ros.ops import nearest_triton

        return nearest_triton.cluster_scores(logits, groups, clusters, number)
    return _mean_probability(logits, groups, clusters, number)


def _mean_probability(logits: Tensor, groups: Tensor, clusters: Tensor, number: int) -> Tensor:
    """Do so, the plain form."""
    logits = logits.float()
    probability = 1 / (logits - logits.amax(0)).exp().sum(0)  # of the best class
    takes_part = (groups >= 0) & (clusters >= 0)
    sums = probability.new_zeros(2, number)
    sums[0].scatter_add_(0, clusters.clamp(min=0), probability * takes_part)
    sums[1].scatter_add_(0, clusters.clamp(min=0), takes_part.float())
    return sums[0] / sums[1].clamp(min=1)
