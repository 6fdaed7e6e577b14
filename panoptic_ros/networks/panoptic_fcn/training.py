"""Panoptic FCN's training (sections 3.1 and 3.4): the losses of positions and masks, Eq. 9.

The images of a batch are worked on together, as far as their instances differ in number: on a GPU
a step takes as long as its operations are many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from panoptic_ros.networks.panoptic_fcn.kernels import LEVELS, pool_kernels
from panoptic_ros.networks.panoptic_fcn.network import PanopticFCN
from panoptic_ros.networks.panoptic_fcn.targets import (
    ThingTargets,
    center_heatmap,
    region_map,
    stuff_target,
    thing_targets,
)
from panoptic_ros.ops.dynamic_kernels import soft_masks
from panoptic_ros.truth import PanopticTarget, TargetBatch

_INSIDE = 0.1  # a cell belongs to an instance above this part of its mask, in training


def loss(
    network: PanopticFCN, images: Tensor, targets: Sequence[PanopticTarget]
) -> dict[str, Tensor]:
    """Return lambda_pos L_pos and lambda_seg L_seg (Eq. 9), each for things and for stuff.

    L_pos of things and L_seg are divided by the number of pairs of instance (or stuff class)
    and level in the batch, L_pos of stuff by the cells of its level and the batch size.
    """
    raw = network(images)
    batch = TargetBatch.of(targets)
    things = thing_targets(batch, network.class_index(batch.class_ids, network.thing_ids))
    stuff = stuff_target(batch, stuff_channels(network, batch.class_ids), network.regions)
    with torch.autocast(images.device.type, enabled=False):
        raw = {name: maps.float() for name, maps in raw.items()}
        of_things, pairs = _thing_losses(network, raw, things)
        of_stuff, stuff_pairs = _stuff_losses(network, raw, stuff)
    return {
        "position_things": network.position_weight * of_things[0] / max(pairs, 1),
        "position_stuff": network.position_weight * of_stuff[0] / len(targets),
        "segmentation_things": network.segmentation_weight * of_things[1] / max(pairs, 1),
        "segmentation_stuff": network.segmentation_weight * of_stuff[1] / max(stuff_pairs, 1),
    }


def _thing_losses(
    network: PanopticFCN, raw: Mapping[str, Tensor], things: ThingTargets
) -> tuple[tuple[Tensor, Tensor], int]:
    """Return the sums of Eq. 2 and of the dice over the pairs of instance and level; the pairs."""
    levels, members = torch.nonzero(things.within(network.scale_ranges)).unbind(1)
    of_level = torch.bincount(levels, minlength=len(LEVELS)).tolist()
    centers, kernels, shares = [], [], []
    for level, here in zip(LEVELS, members.split(of_level), strict=True):
        logits, on_level = raw[f"centers_{level}"], things.only(here)
        centers.append(center_loss(logits, on_level))
        sampled, share = sample_kernels(
            logits, raw[f"kernels_{level}"], on_level, network.positives
        )
        missing = network.positives - share.shape[1]  # a level with fewer cells than that
        kernels.append(F.pad(sampled, (0, 0, 0, missing)))
        shares.append(F.pad(share, (0, missing)))
    images = things.images[members]
    order = images.argsort(stable=True)
    dice = mask_losses(
        network.thing_embedding(torch.cat(kernels)[order]),
        raw["encoding"],
        things.masks[members[order]][:, None],
        torch.bincount(images, minlength=len(raw["encoding"])).tolist(),
    )
    segmentation = (torch.cat(shares)[order] * dice).sum()
    return (torch.stack(centers).sum(), segmentation), len(members)


def _stuff_losses(
    network: PanopticFCN, raw: Mapping[str, Tensor], stuff: Tensor
) -> tuple[tuple[Tensor, Tensor], int]:
    """Return the sums of Eq. 2 and of the dice over the pairs of class and level; the pairs."""
    regions, pooled, present = [], [], []
    for level in LEVELS:
        logits = raw[f"regions_{level}"]
        region = region_map(stuff, logits.shape[2:])
        regions.append(region_loss(logits, region))
        pooled.append(pool_kernels(raw[f"kernels_{level}"], region > 0, network.own_mean))
        present.append((region > 0).flatten(2).any(2))
    images, levels, channels = torch.nonzero(torch.stack(present, dim=1)).unbind(1)
    dice = mask_losses(
        network.stuff_embedding(torch.stack(pooled, dim=1)[images, levels, channels]),
        raw["encoding"],
        stuff[images, channels],
        torch.bincount(images, minlength=len(stuff)).tolist(),
    )
    return (torch.stack(regions).sum(), dice.sum()), len(images)


def stuff_channels(network: PanopticFCN, class_ids: Tensor) -> Tensor:
    """Return the region channel of category ids (S,), -1 for unknown ones: int64, (S,)."""
    stuff = network.class_index(class_ids, network.stuff_ids)
    things = network.class_index(class_ids, network.thing_ids)
    if network.merged:
        return torch.where(things >= 0, 0, torch.where(stuff >= 0, stuff + 1, -1))
    return torch.where(things >= 0, things + len(network.stuff_ids), stuff)


def sample_kernels(
    centers: Tensor, kernels: Tensor, things: ThingTargets, number: int
) -> tuple[Tensor, Tensor]:
    """Sample k kernels of each instance where its class scores best, and their w_k (Eq. 7).

    Args:
        centers: (B, N_th, h, w), logits.
        kernels: (B, C, h, w), weights before their embedding.
        things: N instances of this level.
        number: k; fewer where the level has fewer cells.

    Returns:
        Kernels (N, k, C) and their shares (N, k), which sum to 1; to 0 for an instance that
        covers no cell of this level.
    """
    masks = F.interpolate(things.masks[:, None], size=centers.shape[2:], mode="bilinear")[:, 0]
    scores = centers[things.images, things.classes].sigmoid() * (masks > _INSIDE)
    best, cells = scores.flatten(1).topk(min(number, centers[0, 0].numel()))
    shares = best / best.sum(1, keepdim=True).clamp(min=1e-8)
    return kernels.flatten(2).mT[things.images[:, None], cells], shares


def center_loss(centers: Tensor, things: ThingTargets) -> Tensor:
    """Return the focal loss of the center maps, summed over the cells (Eq. 2).

    Args:
        centers: (B, N_th, h, w), logits.
        things: Instances of this level.
    """
    return sigmoid_focal_loss(centers, center_heatmap(things, centers.shape)).sum()


def region_loss(regions: Tensor, truth: Tensor) -> Tensor:
    """Return the focal loss of the region maps, averaged over the cells (Eq. 2), summed.

    Args:
        regions: (B, N_st, h, w), logits.
        truth: (B, N_st, h, w), of ``region_map``.
    """
    return sigmoid_focal_loss(regions, truth).mean((2, 3)).sum()


def mask_losses(
    kernels: Tensor, encoding: Tensor, truth: Tensor, of_image: Sequence[int]
) -> Tensor:
    """Return the dice loss of the masks that kernels make (Eq. 8): (P, ...).

    Args:
        kernels: float32, (P, ..., C_e), in the order of the images.
        encoding: F_e, float32, (B, C_e, H/4, W/4).
        truth: Soft masks, 0..1, (P, ..., H/4, W/4) where ... may be 1.
        of_image: How many of P belong to each image.
    """
    images = zip(kernels.split(of_image), encoding, truth.split(of_image), strict=True)
    return torch.cat([dice_loss(soft_masks(k, features), masks) for k, features, masks in images])


def dice_loss(masks: Tensor, targets: Tensor) -> Tensor:
    """Return the dice loss of soft masks (..., h, w) against soft targets: (...)."""
    overlap = (masks * targets).sum((-2, -1))
    total = (masks**2).sum((-2, -1)) + (targets**2).sum((-2, -1))
    return 1 - 2 * overlap / total.clamp(min=1e-8)
