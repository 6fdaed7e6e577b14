"""EPSNet's training (section 3.2): YOLACT's losses, and semantics from the same prototypes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert, box_iou

from panoptic_ros.networks.epsnet.boxes import crop_window, encode_boxes
from panoptic_ros.networks.epsnet.network import EPSNet
from panoptic_ros.networks.layers.matching import best_of_image
from panoptic_ros.truth import PanopticTarget, TargetBatch

POSITIVE_IOU, NEGATIVE_IOU = 0.5, 0.4
CROWD_OVERLAP = 0.7
NEGATIVES_PER_POSITIVE = 3
MASKS_PER_IMAGE = 100
CLASS_WEIGHT, BOX_WEIGHT, MASK_WEIGHT = 1.0, 1.5, 6.125  # lambda, but for semantics
BACKGROUND, NEUTRAL = 0, -1


class Boxes(NamedTuple):
    """Boxes of all images of a batch.

    Attributes:
        corners: (N, 4), (x1, y1, x2, y2), relative.
        images: int64, (N,), ascending.
    """

    corners: Tensor
    images: Tensor


class Matches(NamedTuple):
    """What each anchor of B images is to find.

    Attributes:
        classes: int64, (B, A): 0 for background, 1 + thing class, -1 for neutral.
        instances: int64, (B, A): the instance of positive anchors.
    """

    classes: Tensor
    instances: Tensor


def loss(network: EPSNet, images: Tensor, targets: Sequence[PanopticTarget]) -> dict[str, Tensor]:
    """Return the terms of L = 1 L_c + 1.5 L_b + 6.125 L_m + lambda_s L_s, weighted.

    Lambda_s is the network's ``semantic_weight``, 2 in the paper.

    Images without instances take part; the published code skips them.
    """
    raw = {name: value.float() for name, value in network(images).items()}
    batch = TargetBatch.of(targets)
    classes = network.class_index(batch.class_ids, network.thing_ids)
    terms = multibox_loss(raw, batch, classes)
    truth = _semantic_target(network, batch)
    semantic = semantic_loss(raw, truth, _channel_weights(network))
    return terms | {"semantic": network.semantic_weight * semantic}


def _channel_weights(network: EPSNet) -> Tensor:
    """Return what the pixels of each semantic channel count; void is ignored anyway."""
    stuff, things = (network.class_weights[ids] for ids in (network.stuff_ids, network.thing_ids))
    return torch.cat((stuff.new_ones(1), stuff, things.mean()[None]))


def _semantic_target(network: EPSNet, batch: TargetBatch) -> Tensor:
    """0 for void, 1..N_stuff, N_stuff + 1 for things, crowds included: int64, (B, H, W)."""
    index = network.class_index(batch.class_ids, network.stuff_ids) + 1
    thing = network.class_index(batch.class_ids, network.thing_ids) >= 0
    index = index.where(~thing, len(network.stuff_ids) + 1)
    return torch.cat((index.new_zeros(1), index))[batch.slots]


def multibox_loss(
    raw: Mapping[str, Tensor], batch: TargetBatch, classes: Tensor
) -> dict[str, Tensor]:
    """Return the class, box and mask terms, each over the number of positive anchors.

    Args:
        raw: What ``EPSNet.forward`` returned, in float32.
        batch: The truth.
        classes: Thing class index of each segment, -1 for what is not to be found, (S,).
    """
    number, anchors = len(batch.slots), raw["anchors"][0]
    chosen = torch.nonzero(batch.is_single & (classes >= 0)).flatten()
    crowds = torch.nonzero(batch.is_thing & batch.is_crowd).flatten()
    sides = anchors.new_tensor(batch.slots.shape[:0:-1]).repeat(2)
    boxes, crowds = (Boxes(batch.boxes[i] / sides, batch.images[i]) for i in (chosen, crowds))
    matches = match_anchors(anchors, boxes, classes[chosen], crowds, number)
    images, positive = torch.nonzero(matches.classes > 0).unbind(1)
    found = matches.instances[images, positive]
    deltas = encode_boxes(boxes.corners[found], anchors[positive])
    terms = {
        "classes": class_loss(raw["class_logits"], matches.classes),
        "boxes": F.smooth_l1_loss(raw["box_deltas"][images, positive], deltas, reduction="sum"),
        "masks": 0,
    }
    counts = torch.stack([torch.bincount(i, minlength=number) for i in (images, boxes.images)])
    positives, instances = counts.tolist()
    parts = (x.split(positives) for x in (raw["coefficients"][images, positive], found))
    first = 0  # instance of the image
    for i, (coefficients, of_image, own) in enumerate(
        zip(*parts, chosen.split(instances), strict=True)
    ):
        masks = batch.slots[i] == (own + 1)[:, None, None]
        corners = boxes.corners[of_image]
        local = of_image - first
        terms["masks"] += mask_loss(raw["prototypes"][i], coefficients, corners, masks, local)
        first += len(own)
    weights = {"classes": CLASS_WEIGHT, "boxes": BOX_WEIGHT, "masks": MASK_WEIGHT}
    total = max(len(positive), 1)
    return {name: weights[name] * value / total for name, value in terms.items()}


def match_anchors(
    anchors: Tensor, boxes: Boxes, classes: Tensor, crowds: Boxes, number: int
) -> Matches:
    """Assign anchors to instances by IoU.

    At ``POSITIVE_IOU`` and above an anchor is positive, below ``NEGATIVE_IOU`` background,
    between neutral. The best anchor of an instance is its own whatever the IoU; if two share
    one, the later has it. Anchors that are not positive and lie in a crowd are neutral.

    Args:
        anchors: (A, 4), (cx, cy, w, h), of every image.
        boxes: Of the G instances.
        classes: int64, (G,), their thing class indices.
        crowds: Their boxes.
        number: Of images, B.
    """
    corners = box_convert(anchors, "cxcywh", "xyxy")
    iou = box_iou(boxes.corners, corners)
    overlap, best = best_of_image(iou, boxes.images, number)
    own = boxes.images * len(anchors) + iou.argmax(1)
    instances = torch.arange(len(iou), device=iou.device)
    owner = torch.full_like(best, -1).flatten().scatter_reduce(0, own, instances, "amax")
    owner = owner.view_as(best)
    overlap, best = overlap.where(owner < 0, 2.0), best.where(owner < 0, owner)
    labels = torch.where(overlap >= NEGATIVE_IOU, NEUTRAL, BACKGROUND)
    of_best = F.pad(classes + 1, (0, 1))[best]  # the last where an image has no instance
    labels = torch.where(overlap >= POSITIVE_IOU, of_best, labels)
    low = torch.maximum(corners[:, :2], crowds.corners[:, None, :2])
    high = torch.minimum(corners[:, 2:], crowds.corners[:, None, 2:])
    area = (corners[:, 2:] - corners[:, :2]).prod(-1)
    within = (high - low).clamp(min=0).prod(-1) / area > CROWD_OVERLAP
    within = torch.zeros_like(overlap).index_add(0, crowds.images, within.float()) > 0
    return Matches(torch.where(within & (labels <= 0), NEUTRAL, labels), best)


def class_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the cross-entropy of the positive anchors and of the hardest background ones.

    Of an image's background those with the lowest background probability count, three for each
    of its positive anchors.

    Args:
        logits: (B, A, 1 + N_things).
        classes: int64, (B, A), as in ``Matches``.
    """
    losses = F.cross_entropy(logits.mT, classes.clamp(min=0), reduction="none")
    positive = classes > 0
    hardness = losses.detach().masked_fill(classes != BACKGROUND, -1)
    rank = hardness.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    number = NEGATIVES_PER_POSITIVE * positive.sum(1, keepdim=True)
    negative = (rank < number) & (classes == BACKGROUND)
    return (losses * (positive | negative)).sum()


def mask_loss(
    prototypes: Tensor, coefficients: Tensor, boxes: Tensor, masks: Tensor, found: Tensor
) -> Tensor:
    """Return the binary cross-entropy within the true boxes, over the area of each, summed.

    At most ``MASKS_PER_IMAGE`` positive anchors, drawn at random, stand for all.

    Args:
        prototypes: (k, h, w).
        coefficients: (P, k), of the positive anchors.
        boxes: (P, 4), their true boxes, relative.
        masks: bool, (G, H, W), of the instances.
        found: int64, (P,), the instance of each positive anchor.
    """
    number = len(coefficients)
    if number == 0:
        return 0 * (prototypes.sum() + coefficients.sum())
    if number > MASKS_PER_IMAGE:
        drawn = torch.randperm(number, device=coefficients.device)[:MASKS_PER_IMAGE]
        coefficients, boxes, found = coefficients[drawn], boxes[drawn], found[drawn]
    grid = prototypes.shape[-2:]
    reduced = F.interpolate(masks[None].float(), size=grid, mode="bilinear")[0] > 0.5
    logits = torch.einsum("pk,khw->phw", coefficients, prototypes)
    losses = F.binary_cross_entropy_with_logits(logits, reduced[found].float(), reduction="none")
    losses = (losses * crop_window(boxes, grid)).sum((1, 2))
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1) * grid[0] * grid[1]
    return (losses / area).sum() * (number / len(coefficients))


def semantic_loss(
    raw: Mapping[str, Tensor], truth: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Return L_s, the cross-entropy of S = P Y at full size (equation 1), over all pixels.

    Args:
        raw: What ``EPSNet.forward`` returned, in float32.
        truth: int64, (B, H, W), 0 for void, which adds nothing but counts in the mean.
        weights: What the pixels of each class count, (N,).
    """
    logits = torch.einsum("bkc,bkhw->bchw", raw["semantic_coefficients"], raw["prototypes"])
    logits = F.interpolate(logits, size=truth.shape[-2:], mode="bilinear")
    total = F.cross_entropy(logits, truth, weights, ignore_index=0, reduction="sum")
    return total / truth.numel()
