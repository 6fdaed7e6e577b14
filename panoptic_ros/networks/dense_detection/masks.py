"""The parameter-free masks of dense detection (Hou, Li et al., CVPR 2020, section 3.2)."""

from __future__ import annotations

from torch import Tensor

from panoptic_ros.ops.agreement import BELOW_SIGMA, soft_masks
from panoptic_ros.ops.masks import EnlargedMasks
from panoptic_ros.ops.upsampling import Step


def instance_masks(
    boxes: Tensor, labels: Tensor, dense: Tensor, probability: Tensor, size: tuple[int, int]
) -> EnlargedMasks:
    """Return the masks of one image's detections (eq. 5 to 7), which are made a few at a time.

    Args:
        boxes: (K, 4), query boxes.
        labels: int64, (K,), thing class index.
        dense: (D, H/4, W/4, 4), of ``dense_boxes``.
        probability: (N_things, H/4, W/4), semantic probability of the thing classes, 0..1.
        size: Rows and columns of the masks, at most (H, W).
    """
    soft = soft_masks(boxes, labels, dense, probability)
    return EnlargedMasks(soft, BELOW_SIGMA, [Step((4.0, 4.0), size)])
