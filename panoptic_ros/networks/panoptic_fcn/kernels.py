"""Which kernels of Panoptic FCN count (Li et al., CVPR 2021, sections 3.1 and 3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from panoptic_ros.networks.panoptic_fcn.targets import ThingTargets

LEVELS = ("p3", "p4", "p5", "p6", "p7")
_SMOOTHING = (3, 3, 3, 5, 5)  # window of the average that center maps are blended with, per level
_INSIDE = 0.1  # a cell belongs to an instance above this part of its mask, in training


class Kernels(NamedTuple):
    """N candidates per image in fixed slots.

    Attributes:
        weights: float32, (B, N, C), before or after their embedding.
        classes: int64, (B, N), index of the thing class or stuff channel.
        scores: float32, (B, N), 0..1; 0 marks an empty slot.
    """

    weights: Tensor
    classes: Tensor
    scores: Tensor

    def of_image(self, index: int) -> Kernels:
        """Return the candidates of one image, without the batch dimension."""
        return Kernels(*(field[index] for field in self))

    def take(self, order: Tensor) -> Kernels:
        """Return the candidates (B, M) by position, in that order."""
        index = order[..., None].expand(-1, -1, self.weights.shape[2])
        return Kernels(
            self.weights.gather(1, index),
            self.classes.gather(1, order),
            self.scores.gather(1, order),
        )


def best_first(scores: Tensor) -> Tensor:
    """Return the order of candidates (B, N), best first; equal ones keep theirs."""
    return scores.argsort(dim=1, descending=True, stable=True)


def thing_kernels(raw: Mapping[str, Tensor], number: int, threshold: float) -> Kernels:
    """Take the kernels at the peaks of the center maps, level by level.

    Args:
        raw: What ``PanopticFCN.forward`` returned.
        number: Kernels to take from each level at most.
        threshold: Scores at or below it leave their slot empty, 0..1.

    Returns:
        Up to ``number`` slots per level, P3 first; weights (B, N, C) before their embedding.
    """
    found = [
        _peaks(raw[f"centers_{level}"], raw[f"kernels_{level}"], window, number, threshold)
        for level, window in zip(LEVELS, _SMOOTHING, strict=True)
    ]
    return Kernels(*(torch.cat(field, dim=1) for field in zip(*found, strict=True)))


def _peaks(
    centers: Tensor, kernels: Tensor, window: int, number: int, threshold: float
) -> Kernels:
    scores = centers.float().sigmoid()
    scores = (scores + F.avg_pool2d(scores, window, 1, window // 2)) / 2
    peaks = scores * (scores == F.max_pool2d(scores, 3, 1, 1))
    number = min(peaks[0, 0].numel(), number)
    per_class, cells = peaks.flatten(2).topk(number)
    best, index = per_class.flatten(1).topk(number)
    best = torch.where(best > threshold, best, 0)
    cell = cells.flatten(1).gather(1, index)[:, None]
    weights = kernels.flatten(2).gather(2, cell.expand(-1, kernels.shape[1], -1))
    return Kernels(weights.mT.float(), index // number, best)


def stuff_kernels(raw: Mapping[str, Tensor], threshold: float) -> list[Kernels]:
    """Pool one kernel for each level and stuff channel over its region.

    Args:
        raw: What ``PanopticFCN.forward`` returned.
        threshold: Mean scores at or below it leave their slot empty, 0..1.

    Returns:
        For each level N_st slots, in the order of the channels; weights (B, N_st, C) before their
        embedding.
    """
    found = []
    for level in LEVELS:
        regions = raw[f"regions_{level}"].float().sigmoid()
        channels = torch.arange(regions.shape[1], device=regions.device)
        own = regions.argmax(1, keepdim=True) == channels[:, None, None]
        scores = (own * regions).sum((2, 3)) / own.sum((2, 3)).clamp(min=1)
        scores = torch.where(scores > threshold, scores, 0)
        weights = pool_kernels(raw[f"kernels_{level}"].float(), own)
        found.append(Kernels(weights, channels.expand_as(scores), scores))
    return found


def pool_kernels(kernels: Tensor, regions: Tensor) -> Tensor:
    """Sum the kernels in regions, over the number of all cells: (..., N, C).

    Args:
        kernels: float32, (..., C, h, w).
        regions: bool, (..., N, h, w).
    """
    regions = regions.flatten(-2).float()
    return regions @ kernels.flatten(-2).mT / regions.shape[-1]


def sample_kernels(
    centers: Tensor, kernels: Tensor, things: ThingTargets, number: int
) -> tuple[Tensor, Tensor]:
    """Sample k kernels of each instance where its class scores best, and their w_k (Eq. 7).

    Args:
        centers: (N_th, h, w), logits.
        kernels: (C, h, w), weights before their embedding.
        things: N instances of this level.
        number: k; fewer where the level has fewer cells.

    Returns:
        Kernels (N, k, C) and their shares (N, k), which sum to 1; to 0 for an instance that
        covers no cell of this level.
    """
    masks = F.interpolate(things.masks[:, None], size=centers.shape[1:], mode="bilinear")[:, 0]
    scores = (centers.sigmoid()[things.classes] * (masks > _INSIDE)).flatten(1)
    best, cells = scores.topk(min(number, scores.shape[1]))
    shares = best / best.sum(1, keepdim=True).clamp(min=1e-8)
    return kernels.flatten(1).T[cells], shares
