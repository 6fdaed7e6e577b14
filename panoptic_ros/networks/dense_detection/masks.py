"""The parameter-free masks of dense detection (Hou, Li et al., CVPR 2020, section 3.2)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from panoptic_ros.networks.dense_detection.boxes import smoothed_giou
from panoptic_ros.ops.masks import Mask, enlarged_masks
from panoptic_ros.ops.upsampling import Step

SIGMA = 0.4  # of eq. 7: a mask is where agreement times probability is at least this
_BELOW_SIGMA = float(np.nextafter(np.float32(SIGMA), np.float32(0)))  # what is above is at least
MASKS_PER_CHUNK = 8


def instance_masks(
    boxes: Tensor, labels: Tensor, dense: Tensor, probability: Tensor, size: tuple[int, int]
) -> Iterator[Mask]:
    """Construct the masks of one image's detections (eq. 5 to 7), a few at a time.

    Args:
        boxes: (K, 4), query boxes.
        labels: int64, (K,), thing class index.
        dense: (D, H/4, W/4, 4), of ``dense_boxes``.
        probability: (N_things, H/4, W/4), semantic probability of the thing classes, 0..1.
        size: Rows and columns of the masks, at most (H, W).

    Yields:
        The mask of each box.
    """
    soft_masks = _soft_masks if boxes.is_cuda else _soft_masks_of_likely_pixels
    for soft in soft_masks(boxes, labels, dense, probability):
        yield from enlarged_masks(soft, _BELOW_SIGMA, [Step((4.0, 4.0), size)])


def _soft_masks(
    boxes: Tensor, labels: Tensor, dense: Tensor, probability: Tensor
) -> Iterator[Tensor]:
    """Multiply agreement and class probability (eq. 7): (n, H/4, W/4) of a few boxes at a time."""
    for start in range(0, len(boxes), MASKS_PER_CHUNK):
        chunk = slice(start, start + MASKS_PER_CHUNK)
        agreement = smoothed_giou(boxes[chunk], dense).amax(1)
        yield agreement * probability[labels[chunk]]


def _soft_masks_of_likely_pixels(
    boxes: Tensor, labels: Tensor, dense: Tensor, probability: Tensor
) -> Iterator[Tensor]:
    """Do the same, but only where the class is likely enough: agreement is at most 1.

    And in the cells around, from which masks are interpolated.
    """
    likely = {}
    for label in labels.unique().tolist():
        around = F.max_pool2d(probability[label][None], 3, stride=1, padding=1)
        pixels = torch.nonzero(around.flatten() > _BELOW_SIGMA).flatten()
        candidates = dense.flatten(1, 2).index_select(1, pixels)[:, :, None]
        likely[label] = pixels, candidates, probability[label].flatten()[pixels]
    for chunk in torch.arange(len(boxes)).split(2 * MASKS_PER_CHUNK):
        chunk_soft = probability.new_zeros(len(chunk), *probability.shape[1:])
        for soft, index in zip(chunk_soft, chunk.tolist(), strict=True):
            pixels, candidates, of_class = likely[int(labels[index])]
            agreement = smoothed_giou(boxes[index : index + 1], candidates).amax(1).flatten()
            soft.view(-1)[pixels] = agreement * of_class
        yield chunk_soft
