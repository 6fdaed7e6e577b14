"""The training of dense detection (section 4): targets of locations and pixels, losses, eq. 19."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from panoptic_ros.networks.dense_detection.boxes import (
    SIZE_LIMITS,
    Grid,
    boxes_from_offsets,
    dense_boxes,
    flatten_levels,
    grid_locations,
    size_limits,
)
from panoptic_ros.networks.dense_detection.network import DenseDetection
from panoptic_ros.ops.agreement import overlaps
from panoptic_ros.ops.suppression import Detections
from panoptic_ros.prediction import MAX_CLASS_ID
from panoptic_ros.truth import PanopticTarget, TargetBatch

BOOTSTRAP_FRACTION = 0.3


def loss(
    network: DenseDetection, images: Tensor, targets: Sequence[PanopticTarget]
) -> dict[str, Tensor]:
    """Return the six terms of eq. 19 (five without levelness)."""
    raw = {name: value.float() for name, value in network(images).items()}
    grid = Grid.of(raw)
    batch = TargetBatch.of(targets)
    truth = assign_locations(batch, grid.locations, size_limits(grid))
    terms = box_losses(raw, truth, network.thing_ids)
    weights = network.class_weights[network.semantic_ids]
    semantics = semantic_loss(raw["semantic"], batch, network.semantic_ids, weights)
    terms["semantics"] = network.semantic_weight * semantics
    if network.levelness is not None:
        level = levelness_target(batch)
        errors = F.cross_entropy(raw["levelness"], level, ignore_index=-1, reduction="sum")
        terms["levelness"] = errors / (level >= 0).sum().clamp(min=1)
    with torch.no_grad():
        queries = network.detect(raw, [images.shape[-2:]] * len(targets))
    terms["mask"] = mask_loss(dense_boxes(raw), queries, truth, batch)
    return terms


# Targets (section 4.1)


class LocationTargets(NamedTuple):
    """What the A locations of all levels should predict in B images (section 4.1).

    Attributes:
        segments: int64, (B, A), the segment of the batch whose box the location predicts, -1 for
            background.
        class_ids: int64, (B, A), its category id, 0 for background.
        offsets: (B, A, 4), from the location to the left, top, right and bottom side of its box
            (eq. 8); 0 for background.
        ignored: bool, (B, A), locations in crowds, which are no negatives.
    """

    segments: Tensor
    class_ids: Tensor
    offsets: Tensor
    ignored: Tensor


def assign_locations(
    batch: TargetBatch, locations: Tensor, limits: Tensor | None = None
) -> LocationTargets:
    """Assign to each location the instance whose mask it is in, if its size fits the level.

    Args:
        batch: The truth.
        locations: (A, 2), x and y in pixels; those outside of the image are background.
        limits: (A, 2), smallest and largest offset for the location's level (eq. 9).
    """
    x, y = locations.long().unbind(1)
    height, width = batch.slots.shape[1:]
    slots = batch.slots[:, y.clamp(max=height - 1), x.clamp(max=width - 1)]
    slots = torch.where((x < width) & (y < height), slots, 0)
    x1, y1, x2, y2 = F.pad(batch.boxes, (0, 0, 1, 0))[slots].unbind(2)
    offsets = torch.stack((x - x1, y - y1, x2 - x, y2 - y), dim=2)

    crowd = F.pad(batch.is_thing & batch.is_crowd, (1, 0))[slots]
    foreground = F.pad(batch.is_single, (1, 0))[slots]
    if limits is not None:
        reach = offsets.amax(2)
        foreground = foreground & (limits[:, 0] <= reach) & (reach <= limits[:, 1])
    class_ids = F.pad(batch.class_ids, (1, 0))[slots]
    return LocationTargets(
        torch.where(foreground, slots - 1, -1),
        torch.where(foreground, class_ids, 0),
        torch.where(foreground[..., None], offsets, 0),
        crowd,
    )


def levelness_target(batch: TargetBatch) -> Tensor:
    """Return the level (1..5) of each pixel's box by eq. 9, at H/4: int64, (B, H/4, W/4).

    0 is background, -1 a crowd. A box on the limit of two levels belongs to the lower one.
    """
    height, width = (side // 4 for side in batch.slots.shape[1:])
    truth = assign_locations(batch, grid_locations(height, width, 4, batch.slots.device))
    limits = truth.offsets.new_tensor(SIZE_LIMITS[1:-1])
    level = 1 + torch.bucketize(truth.offsets.amax(2), limits)
    level = torch.where(truth.segments >= 0, level, 0)
    return torch.where(truth.ignored, -1, level).unflatten(1, (height, width))


def centerness_target(offsets: Tensor) -> Tensor:
    """Return how central a location is in its box, 0..1 (eq. 10): (N,) from offsets (N, 4)."""
    left, top, right, bottom = offsets.unbind(1)
    horizontal = torch.minimum(left, right) / torch.maximum(left, right)
    vertical = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return (horizontal * vertical).sqrt()


# Losses (section 4.2)


def box_losses(
    raw: Mapping[str, Tensor], truth: LocationTargets, thing_ids: Tensor
) -> dict[str, Tensor]:
    """Return regression (eq. 11), centerness (eq. 12) and focal classification, by name.

    The first two are averaged over the foreground locations, the third over all (section 4.2).

    Args:
        raw: What ``DenseDetection.forward`` returned, in float32.
        truth: Of every image, (B, A, ...).
        thing_ids: Category ids of the box classes, (N_things,).
    """
    foreground = truth.segments >= 0
    number = foreground.sum().clamp(min=1)
    true_offsets = truth.offsets[foreground]
    regression = offset_iou_loss(flatten_levels(raw, "offsets")[foreground], true_offsets)
    centerness = F.binary_cross_entropy_with_logits(
        flatten_levels(raw, "centerness")[..., 0][foreground],
        centerness_target(true_offsets),
        reduction="sum",
    )
    is_class = truth.class_ids[..., None] == thing_ids
    focal = sigmoid_focal_loss(
        flatten_levels(raw, "box_class"), is_class.float(), alpha=0.25, gamma=2
    )
    return {
        "box_reg": regression.sum() / number,
        "center": centerness / number,
        "box_cls": (focal * ~truth.ignored[..., None]).sum() / truth.ignored.numel(),
    }


def offset_iou_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return -log IoU (UnitBox) of boxes around the same location: (N,) from offsets (N, 4).

    Intersection and union are smoothed by 1 square pixel, as in FCOS.
    """
    origin = truth.new_zeros(2)
    boxes = [boxes_from_offsets(origin, offsets) for offsets in (predicted, truth)]
    intersection, union = overlaps(*boxes)
    return -torch.log((intersection + 1) / (union + 1))


def semantic_loss(
    logits: Tensor,
    batch: TargetBatch,
    semantic_ids: Tensor,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the bootstrapped cross-entropy (eq. 15): the mean over the worst 30 % of the pixels.

    Args:
        logits: float32, (B, N, h, w); resized to the targets.
        batch: The truth.
        semantic_ids: Category ids of the channels, (N,).
        weights: What the pixels of each channel count, (N,); the worst are chosen weighted.
    """
    ids = F.pad(batch.class_ids, (1, 0))[batch.slots]
    channel_of = ids.new_full((MAX_CLASS_ID + 1,), -1)
    channel_of[semantic_ids] = torch.arange(len(semantic_ids), device=ids.device)
    truth = channel_of[ids]
    logits = F.interpolate(logits, size=ids.shape[-2:], mode="bilinear")
    losses = F.cross_entropy(logits, truth, weights, ignore_index=-1, reduction="none")
    pixels = losses[truth >= 0]
    worst = math.ceil(BOOTSTRAP_FRACTION * pixels.numel())
    return pixels.topk(worst).values.sum() / max(worst, 1)


def mask_loss(
    dense: Tensor, found: Detections, truth: LocationTargets, batch: TargetBatch
) -> Tensor:
    """Return the explicit mask loss (eq. 16 to 18) at H/4, averaged over the images.

    The query boxes are constants: it is the dense boxes that learn to agree with the query
    inside its mask and to disagree elsewhere. Queries from background locations count as 0.

    Args:
        dense: (B, D, H/4, W/4, 4), of ``dense_boxes``.
        found: The query boxes of every image, without a gradient.
        truth: Of every image, (B, A, ...).
        batch: The truth.
    """
    segments = truth.segments.gather(1, found.locations)
    images, places = torch.nonzero(found.valid & (segments >= 0)).unbind(1)
    segments = segments[images, places]
    masks = batch.slots[:, 2::4, 2::4][images] == (segments + 1)[:, None, None]
    queries, boxes = found.boxes[images, places], batch.boxes[segments]
    errors = mask_errors(queries, dense[images], masks, boxes)
    total = errors.new_zeros(len(dense)).index_add(0, images, errors)
    return (total / found.valid.sum(1).clamp(min=1)).mean()


def mask_errors(queries: Tensor, dense: Tensor, masks: Tensor, boxes: Tensor) -> Tensor:
    """Return beta / N * (E_FP + E_FN) of each query box (eq. 16 to 18): (K,).

    Args:
        queries: (K, 4), boxes without a gradient.
        dense: (K, D, H/4, W/4, 4), of ``dense_boxes`` in the image of each.
        masks: bool, (K, H/4, W/4), of the segment that each query is to find.
        boxes: (K, 4), the true box of that segment.
    """
    intersection, union = overlaps(queries[:, None, None, None], dense)
    iou = ((intersection + 1) / (union + 1)).amax(1)
    error = torch.where(masks, 1 - iou, iou).sum((1, 2))
    intersection, union = overlaps(queries, boxes)
    beta = intersection / union.clamp(min=1e-7)
    pixels = masks.sum((1, 2))
    return torch.where(pixels > 0, beta * error / pixels.clamp(min=1), 0)
