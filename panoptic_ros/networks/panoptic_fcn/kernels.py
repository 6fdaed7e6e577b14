"""The kernels of Panoptic FCN: found, fused, turned into masks (sections 3.1, 3.2, 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from panoptic_ros.ops.dynamic_kernels import center_peaks, pool_regions
from panoptic_ros.ops.upsampling import Step, upsampled_argmax
from panoptic_ros.truth import FrameSize

STRIDE = 4  # of the encoded feature
LEVELS = ("p3", "p4", "p5", "p6", "p7")
_SMOOTHING = (3, 3, 3, 5, 5)  # window of the average that center maps are blended with, per level


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
        _peaks(raw[f"centers_{level}"], raw[f"kernels_{level}"], window, number)
        for level, window in zip(LEVELS, _SMOOTHING, strict=True)
    ]
    weights, classes, scores = (torch.cat(field, dim=1) for field in zip(*found, strict=True))
    return Kernels(weights.float(), classes, torch.where(scores > threshold, scores, 0))


def _peaks(
    centers: Tensor, kernels: Tensor, window: int, number: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the kernels of any precision, classes and scores of the best peaks of a level."""
    peaks = center_peaks(centers, window)
    number = min(peaks[0, 0].numel(), number)
    per_class, cells = peaks.flatten(2).topk(number)
    best, index = per_class.flatten(1).topk(number)
    cell = cells.flatten(1).gather(1, index)[:, None]
    weights = kernels.flatten(2).gather(2, cell.expand(-1, kernels.shape[1], -1))
    return weights.mT, index // number, best


def stuff_kernels(
    raw: Mapping[str, Tensor], threshold: float, own_mean: bool = False
) -> list[Kernels]:
    """Pool one kernel for each level and stuff channel over its region.

    Args:
        raw: What ``PanopticFCN.forward`` returned.
        threshold: Mean scores at or below it leave their slot empty, 0..1.
        own_mean: See ``pool_kernels``.

    Returns:
        For each level N_st slots, in the order of the channels; weights (B, N_st, C) before their
        embedding.
    """
    regions = [raw[f"regions_{level}"] for level in LEVELS]
    pooled = pool_regions(regions, [raw[f"kernels_{level}"] for level in LEVELS])
    own_cells = pooled.cells.clamp(min=1)
    scores = pooled.scores / own_cells
    scores = torch.where(scores > threshold, scores, 0)
    cells = own_cells if own_mean else pooled.cells.sum(-1, keepdim=True)
    weights = pooled.kernels / cells[..., None]
    channels = torch.arange(scores.shape[-1], device=scores.device).expand_as(scores[0])
    return [Kernels(*item) for item in zip(weights, [channels] * len(LEVELS), scores, strict=True)]


def pool_kernels(kernels: Tensor, regions: Tensor, own_mean: bool) -> Tensor:
    """Sum the kernels in regions, over the number of all cells: (..., N, C).

    Args:
        kernels: float32, (..., C, h, w).
        regions: bool, (..., N, h, w).
        own_mean: Over the number of the region's own cells instead.
    """
    regions = regions.flatten(-2).float()
    total = regions @ kernels.flatten(-2).mT
    return total / (regions.sum(-1, keepdim=True).clamp(min=1) if own_mean else regions.shape[-1])


def fuse_things(things: Kernels, threshold: float) -> Kernels:
    """Merge the kernels of one object (section 3.2, Eq. 4).

    Two kernels of one class are the same object from a cosine similarity of ``threshold``. Each
    goes to the first, that is best, kernel it equals; who is that to itself stays, as the mean of
    those that went to it. The others become empty.

    Args:
        things: Best first.
        threshold: -1..1.
    """
    number = things.scores.shape[1]
    slots = torch.arange(number, device=things.scores.device)
    directions = F.normalize(things.weights, dim=2, eps=1e-8)
    same = directions @ directions.transpose(1, 2) >= threshold
    same &= things.classes[:, :, None] == things.classes[:, None, :]
    same = same.triu() | torch.eye(number, dtype=torch.bool, device=same.device)
    first = same.to(torch.uint8).argmax(dim=1)
    groups = (first[:, None, :] == slots[:, None]) & (things.scores > 0)[:, None, :]
    groups = groups.float()
    weights = groups @ things.weights / groups.sum(2, keepdim=True).clamp(min=1)
    return things._replace(weights=weights, scores=torch.where(first == slots, things.scores, 0))


def fuse_stuff(levels: Sequence[Kernels]) -> Kernels:
    """Average the kernels and scores of each stuff channel over the levels that found it."""
    weights = torch.stack([level.weights for level in levels])
    scores = torch.stack([level.scores for level in levels])
    found = (scores > 0)[..., None]
    count = found.sum(0).clamp(min=1)
    return Kernels(
        (weights * found).sum(0) / count, levels[0].classes, scores.sum(0) / count[..., 0]
    )


def steps_to(size: FrameSize) -> list[Step]:
    """Return how masks at stride 4 are up-sampled.

    Bilinearly to the network input, whose padding is cut off, and from there to the output: the
    order matters to the last pixel.
    """
    steps = [Step((STRIDE, STRIDE), size.valid)]
    if size.output != size.valid:
        steps.append(Step.to(size.output, size.valid))
    return steps


def best_mask(masks: Tensor, values: Tensor, size: FrameSize) -> Tensor:
    """Return the value of the strongest mask of each pixel: int16, ``size.output``.

    Args:
        masks: Soft masks at stride 4, (N, h, w); without any, all pixels are 0.
        values: int, (N,).
        size: Of the image.
    """
    nothing = masks.new_zeros(1, *masks.shape[1:])
    index = upsampled_argmax(torch.cat((nothing, masks)), *steps_to(size))
    values = torch.cat((values.new_zeros(1), values)).to(index.dtype)
    return values.index_select(0, index.flatten().int()).view(size.output)
