"""Where the boxes that the pixels predict agree with the box of a detection."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SIGMA = 0.4  # of eq. 7: a mask is where agreement times probability is at least this
BELOW_SIGMA = float(np.nextafter(np.float32(SIGMA), np.float32(0)))  # what is above is at least
MASKS_PER_CHUNK = 8


def soft_masks(
    boxes: Tensor, labels: Tensor, dense: Tensor, probability: Tensor
) -> Iterator[Tensor]:
    """Multiply agreement and class probability (dense detection, eq. 7), a few boxes at a time.

    Args:
        boxes: (K, 4), query boxes.
        labels: int64, (K,), thing class index.
        dense: (D, h, w, 4), the boxes of the pixels; the one that agrees most counts.
        probability: (N_things, h, w), of the thing classes, 0..1.

    Yields:
        (n, h, w); where neither it nor a neighbour exceeds ``BELOW_SIGMA`` it may be 0.
    """
    form = _where_likely if boxes.device.type == "cpu" else _on_cuda
    return form(boxes, labels, dense, probability)


def _on_cuda(
    boxes: Tensor, labels: Tensor, dense: Tensor, probability: Tensor
) -> Iterator[Tensor]:
    """Do the same for all boxes at once."""
    from panoptic_ros.ops.agreement_triton import dense_soft_masks

    yield dense_soft_masks(boxes, labels, dense, probability)


def _everywhere(
    boxes: Tensor, labels: Tensor, dense: Tensor, probability: Tensor
) -> Iterator[Tensor]:
    """Multiply agreement and class probability (eq. 7): (n, H/4, W/4) of a few boxes at a time."""
    for start in range(0, len(boxes), MASKS_PER_CHUNK):
        chunk = slice(start, start + MASKS_PER_CHUNK)
        agreement = smoothed_giou(boxes[chunk], dense).amax(1)
        yield agreement * probability[labels[chunk]]


def _where_likely(
    boxes: Tensor, labels: Tensor, dense: Tensor, probability: Tensor
) -> Iterator[Tensor]:
    """Do the same, but only where the class is likely enough, for CPUs: agreement is at most 1.

    And in the cells around, from which masks are interpolated.
    """
    likely = {}
    for label in labels.unique().tolist():
        around = F.max_pool2d(probability[label][None], 3, stride=1, padding=1)
        pixels = torch.nonzero(around.flatten() > BELOW_SIGMA).flatten()
        candidates = dense.flatten(1, 2).index_select(1, pixels)[:, :, None]
        likely[label] = pixels, candidates, probability[label].flatten()[pixels]
    for chunk in torch.arange(len(boxes)).split(2 * MASKS_PER_CHUNK):
        chunk_soft = probability.new_zeros(len(chunk), *probability.shape[1:])
        for soft, index in zip(chunk_soft, chunk.tolist(), strict=True):
            pixels, candidates, of_class = likely[int(labels[index])]
            agreement = smoothed_giou(boxes[index : index + 1], candidates).amax(1).flatten()
            soft.view(-1)[pixels] = agreement * of_class
        yield chunk_soft


def smoothed_giou(queries: Tensor, dense: Tensor) -> Tensor:
    """Return the generalised IoU, intersection and union smoothed by 1, of all pairs.

    The authors' code takes this for the IoU of eq. 6. It lies in -1..1.

    Args:
        queries: (K, 4).
        dense: (D, h, w, 4).

    Returns:
        (K, D, h, w).
    """
    queries = queries[:, None, None, None]
    intersection, union = overlaps(queries, dense)
    low = torch.minimum(queries[..., :2], dense[..., :2])
    high = torch.maximum(queries[..., 2:], dense[..., 2:])
    enclosing = _area(high - low) + 1e-7
    return (intersection + 1) / (union + 1) - (enclosing - union) / enclosing


def overlaps(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return intersection and union of boxes (..., 4), which are broadcast: (...) each."""
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    intersection = _area((high - low).clamp(min=0))
    areas = [_area(boxes[..., 2:] - boxes[..., :2]) for boxes in (first, second)]
    return intersection, areas[0] + areas[1] - intersection


def _area(sides: Tensor) -> Tensor:
    return sides[..., 0] * sides[..., 1]
