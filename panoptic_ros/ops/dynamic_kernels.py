"""Where kernels are, and what masks they make, for networks that write things into kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

_MASKS_AT_ONCE = 32


class Pooled(NamedTuple):
    """What lies in the region of every channel, on L levels.

    Attributes:
        kernels: float32, (L, B, N, C), sums over the cells of the region.
        scores: float32, (L, B, N), sums likewise.
        cells: float32, (L, B, N), how many these are.
    """

    kernels: Tensor
    scores: Tensor
    cells: Tensor


def soft_masks(kernels: Tensor, encoding: Tensor) -> Tensor:
    """Convolve the encoded feature with kernels (Panoptic FCN, eq. 5).

    Args:
        kernels: float32, (..., C_e).
        encoding: (C_e, h, w), of any precision.

    Returns:
        Probabilities, float32, (..., h, w).
    """
    logits = kernels @ encoding.flatten(1).float()
    return logits.sigmoid().unflatten(-1, encoding.shape[1:])


def mask_scores(kernels: Tensor, encoding: Tensor, threshold: float) -> Tensor:
    """Average the soft mask of each kernel where it is above ``threshold``.

    Args:
        kernels: float32, (B, N, C_e).
        encoding: (B, C_e, h, w).
        threshold: 0..1.

    Returns:
        (B, N), 0 where no pixel is above.
    """
    if kernels.device.type != "cpu":
        from panoptic_ros.ops import dynamic_kernels_triton

        return dynamic_kernels_triton.mask_scores(kernels, encoding, threshold)
    return _mask_scores(kernels, encoding, threshold)


def _mask_scores(kernels: Tensor, encoding: Tensor, threshold: float) -> Tensor:
    """Do so for some masks after the other, the plain form."""
    images = []
    for weights, features in zip(kernels, encoding, strict=True):
        features = features.float()  # once, not for every chunk
        scores = []
        for chunk in weights.split(_MASKS_AT_ONCE):
            masks = soft_masks(chunk, features)
            inside = masks > threshold
            scores.append((masks * inside).sum((1, 2)) / (inside.sum((1, 2)) + 1e-6))
        images.append(torch.cat(scores))
    return torch.stack(images)


def center_peaks(centers: Tensor, window: int) -> Tensor:
    """Return smoothed scores where they are peaks, 0 elsewhere.

    Scores are the mean of themselves and their average over a window; peaks are the highest of
    their 3x3 neighbours.

    Args:
        centers: Logits of any precision, (B, N, h, w).
        window: Side of the window, odd.

    Returns:
        float32, (B, N, h, w), 0..1.
    """
    if centers.device.type != "cpu":
        from panoptic_ros.ops import dynamic_kernels_triton

        return dynamic_kernels_triton.center_peaks(centers, window)
    return _center_peaks(centers, window)


def _center_peaks(centers: Tensor, window: int) -> Tensor:
    """Do so, the plain form."""
    scores = centers.float().sigmoid()
    scores = (scores + F.avg_pool2d(scores, window, 1, window // 2)) / 2
    return scores * (scores == F.max_pool2d(scores, 3, 1, 1))


def pool_regions(regions: Sequence[Tensor], kernels: Sequence[Tensor]) -> Pooled:
    """Sum kernels and scores of the cells where a channel is the highest of its level.

    Args:
        regions: Logits of any precision, (B, N, h, w), of each level.
        kernels: (B, C, h, w), of each level.
    """
    if regions[0].device.type != "cpu":
        from panoptic_ros.ops import dynamic_kernels_triton

        return Pooled(*dynamic_kernels_triton.pool_regions(list(regions), list(kernels)))
    return _pool_regions(regions, kernels)


def _pool_regions(regions: Sequence[Tensor], kernels: Sequence[Tensor]) -> Pooled:
    """Do so, the plain form."""
    levels = []
    for logits, weights in zip(regions, kernels, strict=True):
        scores = logits.float().sigmoid()
        channels = torch.arange(scores.shape[1], device=scores.device)
        own = scores.argmax(1, keepdim=True) == channels[:, None, None]
        total = own.flatten(2).float() @ weights.float().flatten(2).mT
        levels.append((total, (own * scores).sum((2, 3)), own.sum((2, 3)).float()))
    return Pooled(*(torch.stack(part) for part in zip(*levels, strict=True)))
