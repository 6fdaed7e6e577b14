"""The losses of Panoptic FCN (Li et al., CVPR 2021, section 3.4), of one level of one image."""

from __future__ import annotations

from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from panoptic_ros.networks.panoptic_fcn.masks import soft_masks
from panoptic_ros.networks.panoptic_fcn.targets import ThingTargets, center_heatmap


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
