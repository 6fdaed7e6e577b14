"""Panoptic FCN's training (sections 3.1 and 3.4): targets of positions and masks, Eq. 9."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from panoptic_ros.networks.panoptic_fcn.kernels import LEVELS, STRIDE, pool_kernels, soft_masks
from panoptic_ros.networks.panoptic_fcn.network import PanopticFCN
from panoptic_ros.truth import PanopticTarget

_MIN_OVERLAP = 0.7  # of boxes within the Gaussian radius
_CHUNK = 16  # masks reduced at a time
_INSIDE = 0.1  # a cell belongs to an instance above this part of its mask, in training


def loss(
    network: PanopticFCN, images: Tensor, targets: Sequence[PanopticTarget]
) -> dict[str, Tensor]:
    """Return lambda_pos L_pos and lambda_seg L_seg (Eq. 9), each for things and for stuff.

    L_pos of things and L_seg are divided by the number of pairs of instance (or stuff class)
    and level in the batch, L_pos of stuff by the cells of its level and the batch size.
    """
    raw = network(images)
    with torch.autocast(images.device.type, enabled=False):
        terms = [
            _image_loss(network, {name: maps[i].float() for name, maps in raw.items()}, target)
            for i, target in enumerate(targets)
        ]
    centers, regions, things, stuff = zip(*terms, strict=True)
    things, stuff = torch.cat(things), torch.cat(stuff)
    pairs = max(len(things), 1)
    return {
        "position_things": network.position_weight * sum(centers) / pairs,
        "position_stuff": network.position_weight * sum(regions) / len(targets),
        "segmentation_things": network.segmentation_weight * things.sum() / pairs,
        "segmentation_stuff": network.segmentation_weight * stuff.sum() / max(len(stuff), 1),
    }


def _image_loss(
    network: PanopticFCN, raw: dict[str, Tensor], target: PanopticTarget
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return both sums of Eq. 2 and the dice of every pair of instance (class) and level."""
    things = thing_targets(target, network.class_index(target.class_ids, network.thing_ids))
    stuff = stuff_target(target, stuff_channels(network, target.class_ids), network.regions)
    encoding = raw["encoding"]
    center_losses, region_losses, thing_dice, stuff_dice = [], [], [], []
    for level, scales in zip(LEVELS, network.scale_ranges, strict=True):
        centers, regions, kernels = (
            raw[f"{name}_{level}"] for name in ("centers", "regions", "kernels")
        )
        here, region = things.within(scales), region_map(stuff, regions.shape[1:])
        center_losses.append(center_loss(centers, here))
        region_losses.append(region_loss(regions, region))

        sampled, shares = sample_kernels(centers, kernels, here, network.positives)
        dice = mask_loss(network.thing_embedding(sampled), encoding, here.masks[:, None])
        thing_dice.append((shares * dice).sum(1))

        present = (region > 0).flatten(1).any(1)
        pooled = pool_kernels(kernels, region[present] > 0)
        stuff_dice.append(mask_loss(network.stuff_embedding(pooled), encoding, stuff[present]))
    return sum(center_losses), sum(region_losses), torch.cat(thing_dice), torch.cat(stuff_dice)


def stuff_channels(network: PanopticFCN, class_ids: Tensor) -> Tensor:
    """Return the region channel of category ids (S,), -1 for unknown ones: int64, (S,)."""
    stuff = network.class_index(class_ids, network.stuff_ids)
    things = network.class_index(class_ids, network.thing_ids)
    if network.merged:
        return torch.where(things >= 0, 0, torch.where(stuff >= 0, stuff + 1, -1))
    return torch.where(things >= 0, things + len(network.stuff_ids), stuff)


# Targets


class ThingTargets(NamedTuple):
    """N instances of one image.

    Attributes:
        masks: float32, (N, H/4, W/4), 0..1: bilinearly reduced, soft at their borders.
        classes: int64, (N,), index of the thing class.
        centers: float32, (N, 2), mass center (row, column) in cells of ``masks``.
        boxes: float32, (N, 2), height and width of the tight box in pixels.
    """

    masks: Tensor
    classes: Tensor
    centers: Tensor
    boxes: Tensor

    def within(self, scales: tuple[int, int]) -> ThingTargets:
        """Return the instances whose square root of the box area lies in ``scales``, inclusive."""
        size = self.boxes.prod(1).sqrt()
        return self.only((size >= scales[0]) & (size <= scales[1]))

    def only(self, wanted: Tensor) -> ThingTargets:
        """Return the instances that a bool tensor (N,) marks."""
        return ThingTargets(*(field[wanted] for field in self))


def thing_targets(target: PanopticTarget, classes: Tensor) -> ThingTargets:
    """Describe the single things of an image.

    Instances too small to leave a cell at stride 4 are left out: they have no mask to learn.

    Args:
        target: The truth.
        classes: int64, (S,), index of the thing class of each of its segments.
    """
    instances = target.instances
    masks = reduce_masks(target.masks(instances))
    occupied = masks > 0
    count = occupied.flatten(1).sum(1)
    rows, columns = (torch.arange(n, device=masks.device) for n in masks.shape[1:])
    centers = torch.stack(
        ((occupied.sum(2) * rows).sum(1) / count, (occupied.sum(1) * columns).sum(1) / count), 1
    )
    x1, y1, x2, y2 = target.boxes[instances].unbind(1)
    boxes = torch.stack((y2 - y1, x2 - x1), dim=1)
    return ThingTargets(masks, classes[instances], centers, boxes).only(count > 0)


def stuff_target(target: PanopticTarget, channels: Tensor, number: int) -> Tensor:
    """Return the region of every stuff channel at stride 4: float32, (number, H/4, W/4), 0..1.

    Args:
        target: The truth.
        channels: int64, (S,), channel of each of its segments.
        number: N_st.
    """
    semantic = torch.cat((channels.new_full((1,), -1), channels))[target.slots]
    return reduce_masks(semantic == torch.arange(number, device=semantic.device)[:, None, None])


def reduce_masks(masks: Tensor) -> Tensor:
    """Reduce masks (N, H, W) bilinearly to stride 4: float32, (N, H/4, W/4)."""
    size = (masks.shape[1] // STRIDE, masks.shape[2] // STRIDE)
    chunks = [
        F.interpolate(chunk[:, None].float(), size=size, mode="bilinear")[:, 0]
        for chunk in masks.split(_CHUNK)
    ]
    return torch.cat(chunks)


def center_heatmap(things: ThingTargets, classes: int, size: tuple[int, int]) -> Tensor:
    """Draw Y_th of one level: a Gaussian per instance, the larger value where two meet (Eq. 1).

    As in CornerNet a Gaussian ends at its radius; sigma = (2 r + 1) / 3 (A.1).

    Args:
        things: Instances of this level.
        classes: N_th.
        size: Rows and columns of the level.

    Returns:
        float32, (N_th, *size).
    """
    stride4 = torch.tensor(things.masks.shape[1:], device=things.boxes.device)
    scale = torch.tensor(size, device=stride4.device) / stride4
    centers = (things.centers * scale).long()
    radius = gaussian_radius(*(things.boxes / STRIDE * scale).unbind(1)).long()[:, None, None]
    rows, columns = (torch.arange(n, device=stride4.device) for n in size)
    dy = rows[None, :, None] - centers[:, 0, None, None]
    dx = columns[None, None, :] - centers[:, 1, None, None]
    sigma = (2 * radius + 1) / 3
    gaussians = torch.exp(-(dx**2 + dy**2) / (2 * sigma**2))
    gaussians = gaussians * ((dx.abs() <= radius) & (dy.abs() <= radius))
    index = things.classes[:, None, None].expand_as(gaussians)
    return gaussians.new_zeros(classes, *size).scatter_reduce(0, index, gaussians, "amax")


def gaussian_radius(height: Tensor, width: Tensor) -> Tensor:
    """Return CornerNet's radius of a box, in its original form that the official code keeps.

    (The roots are divided by 2 instead of 2a, so that radii come out larger than derived.)
    """
    total, area, least = height + width, height * width, _MIN_OVERLAP
    equations = (
        (1.0, total, area * (1 - least) / (1 + least)),
        (4.0, 2 * total, (1 - least) * area),
        (4 * least, -2 * least * total, (least - 1) * area),
    )
    roots = [(b + (b**2 - 4 * a * c).sqrt()) / 2 for a, b, c in equations]
    return torch.stack(roots).amin(0).clamp(min=0)


def region_map(stuff: Tensor, size: tuple[int, int]) -> Tensor:
    """Reduce Y_st (N_st, H/4, W/4) to a level of ``size``; what is below 0.5 becomes 0."""
    regions = F.interpolate(stuff[None], size=size, mode="bilinear")[0].clamp(max=1)
    return torch.where(regions < 0.5, 0, regions)


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


# Losses


def center_loss(centers: Tensor, things: ThingTargets) -> Tensor:
    """Return the focal loss of the center maps, summed over the cells (Eq. 2).

    Args:
        centers: (N_th, h, w), logits.
        things: Instances of this level.
    """
    heatmap = center_heatmap(things, len(centers), tuple(centers.shape[1:]))
    return sigmoid_focal_loss(centers, heatmap).sum()


def region_loss(regions: Tensor, truth: Tensor) -> Tensor:
    """Return the focal loss of the region maps, averaged over the cells (Eq. 2).

    Args:
        regions: (N_st, h, w), logits.
        truth: (N_st, h, w), of ``region_map``.
    """
    return sigmoid_focal_loss(regions, truth).mean((1, 2)).sum()


def mask_loss(kernels: Tensor, encoding: Tensor, truth: Tensor) -> Tensor:
    """Return the dice loss of the masks that kernels make (Eq. 8): (...).

    Args:
        kernels: float32, (..., C_e).
        encoding: F_e, float32, (C_e, H/4, W/4).
        truth: Soft masks, 0..1, broadcast to (..., H/4, W/4).
    """
    return dice_loss(soft_masks(kernels, encoding), truth)


def dice_loss(masks: Tensor, targets: Tensor) -> Tensor:
    """Return the dice loss of soft masks (..., h, w) against soft targets: (...)."""
    overlap = (masks * targets).sum((-2, -1))
    total = (masks**2).sum((-2, -1)) + (targets**2).sum((-2, -1))
    return 1 - 2 * overlap / total.clamp(min=1e-8)
