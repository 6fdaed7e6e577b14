"""From dense scores to a fixed number of boxes, for the networks that have a detector.

Every image of a batch gets the same number of slots, best box first; what an image does not fill
has score 0. So nothing behind the detector has a shape that depends on the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import nms

from panoptic_ros.ops.slots import places_in_use

# Wider than any image, and a power of two, so that a shift by it loses next to nothing.
_GROUP_STRIDE = 2.0**16


class Candidates(NamedTuple):
    """The best pairs of location and class, M per image.

    Attributes:
        values: (B, M), what ``top_candidates`` was given, in its dtype.
        locations: int64, (B, M), position among the A locations of all levels.
        labels: int64, (B, M), class index.
    """

    values: Tensor
    locations: Tensor
    labels: Tensor


class Detections(NamedTuple):
    """K boxes per image, best first; empty slots are all zero.

    Attributes:
        boxes: float32, (B, K, 4), (x1, y1, x2, y2) in pixels of the network input.
        labels: int64, (B, K), class index.
        scores: float32, (B, K), 0..1; 0 marks an empty slot.
        locations: int64, (B, K), position among the A locations, to gather what else the
            network says there.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    locations: Tensor

    @property
    def valid(self) -> Tensor:
        """Which slots hold a box: bool, (B, K)."""
        return self.scores > 0


def per_anchor(maps: Tensor, outputs: int) -> Tensor:
    """Give every anchor of a level a row: (B, anchors * outputs, h, w) to (B, A, outputs).

    The A = h * w * anchors are ordered by row, column and anchor.
    """
    return maps.permute(0, 2, 3, 1).reshape(maps.shape[0], -1, outputs)


def top_candidates(values: Tensor, level_sizes: Sequence[int], per_level: int) -> Candidates:
    """Take the best ``per_level`` pairs of location and class from each pyramid level.

    Args:
        values: (B, A, C), scores or logits, the levels one behind the other.
        level_sizes: Locations of each level; their sum is A.
        per_level: Upper limit; a level with fewer pairs gives them all.
    """
    classes = values.shape[-1]
    best, pairs, start = [], [], 0
    for level in values.split(list(level_sizes), dim=1):
        flat = level.flatten(1)
        top = flat.topk(min(per_level, flat.shape[1]), dim=1)
        best.append(top.values)
        pairs.append(top.indices + start * classes if start else top.indices)
        start += level.shape[1]
    pair = torch.cat(pairs, dim=1)
    return Candidates(torch.cat(best, dim=1), pair // classes, pair % classes)


def suppress(
    candidates: Candidates, boxes: Tensor, scores: Tensor, iou_threshold: float, slots: int
) -> Detections:
    """Non-maximum suppression within each class of each image, for the whole batch in one call.

    Args:
        candidates: Locations and labels of the boxes.
        boxes: float32, (B, M, 4), coordinates 0 or more.
        scores: float32, (B, M); 0 or less for what is not to be used.
        iou_threshold: A box that overlaps a better one of its class by more than this goes; of
            equal scores the first is the better.
        slots: Boxes per image to return.
    """
    among = boxes, candidates.labels, scores, iou_threshold
    on_cpu = scores.device.type == "cpu"
    keep = _keep_on_cpu(*among) if on_cpu else _keep_on_cuda(*among, slots)
    survivors = torch.where(keep, scores, 0)
    if slots > scores.shape[1]:
        survivors = F.pad(survivors, (0, slots - scores.shape[1]))
    best, order = survivors.sort(dim=1, descending=True, stable=True)
    best, order = best[:, :slots], order[:, :slots]
    valid = best > 0
    order = order * valid
    return Detections(
        boxes.gather(1, order[..., None].expand(-1, -1, 4)) * valid[..., None],
        candidates.labels.gather(1, order) * valid,
        best,
        candidates.locations.gather(1, order) * valid,
    )


def keep_greedily(boxes: Tensor, labels: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Return which boxes stay, the plain form: bool, (B, M); see ``suppress``."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
    labels = labels.gather(1, order)
    low = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    high = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    union = area[:, :, None] + area[:, None] - intersection
    near = (intersection > threshold * union) & (labels[:, :, None] == labels[:, None])
    keep = scores.gather(1, order) > 0
    for index in range(keep.shape[1]):
        gone = near[:, index] & keep[:, index, None]
        gone[:, : index + 1] = False
        keep = keep & ~gone
    return torch.zeros_like(keep).scatter(1, order, keep)


def _keep_on_cpu(boxes: Tensor, labels: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Do the same with torchvision, which knows no classes: they are shifted apart.

    In float64 the shift changes no overlap, so an image's boxes do not depend on its batch.
    """
    images = torch.arange(len(scores))[:, None]
    groups = images * (labels.max() + 1) + labels
    shifted = boxes.double()
    shifted[..., 0::2] += groups[..., None] * _GROUP_STRIDE
    used = places_in_use(scores.flatten() > 0)
    kept = nms(shifted.view(-1, 4)[used], scores.flatten()[used].double(), threshold)
    keep = torch.zeros(scores.numel(), dtype=torch.bool)
    keep[used[kept]] = True
    return keep.view(scores.shape)


def _keep_on_cuda(
    boxes: Tensor, labels: Tensor, scores: Tensor, threshold: float, most: int
) -> Tensor:
    """Do the same in fixed slots, without a wait, for the ``most`` best at least."""
    from panoptic_ros.ops.suppression_triton import greedy_keep

    best, order = scores.sort(dim=1, descending=True, stable=True)
    boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4)).float()
    keep = greedy_keep(boxes, labels.gather(1, order), best, threshold, most)
    return torch.zeros_like(keep).scatter(1, order, keep)
