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
from panoptic_ros.truth import PanopticTarget

POSITIVE_IOU, NEGATIVE_IOU = 0.5, 0.4
CROWD_OVERLAP = 0.7
NEGATIVES_PER_POSITIVE = 3
MASKS_PER_IMAGE = 100
CLASS_WEIGHT, BOX_WEIGHT, MASK_WEIGHT, SEMANTIC_WEIGHT = 1.0, 1.5, 6.125, 2.0  # lambda
BACKGROUND, NEUTRAL = 0, -1


class Matches(NamedTuple):
    """What each anchor of an image is to find.

    Attributes:
        classes: int64, (A,): 0 for background, 1 + thing class, -1 for neutral.
        instances: int64, (A,): the instance of positive anchors.
    """

    classes: Tensor
    instances: Tensor


def loss(network: EPSNet, images: Tensor, targets: Sequence[PanopticTarget]) -> dict[str, Tensor]:
    """Return the terms of L = 1 L_c + 1.5 L_b + 6.125 L_m + 2 L_s, weighted.

    Images without instances take part; the published code skips them.
    """
    raw = {name: value.float() for name, value in network(images).items()}
    instances = [_instances(network, target) for target in targets]
    classes = [
        network.class_index(t.class_ids[i], network.thing_ids)
        for t, i in zip(targets, instances, strict=True)
    ]
    terms = multibox_loss(raw, targets, instances, classes)
    truth = torch.stack([_semantic_target(network, target) for target in targets])
    return terms | {"semantic": semantic_loss(raw, truth, _channel_weights(network))}


def _channel_weights(network: EPSNet) -> Tensor:
    """Return what the pixels of each semantic channel count; void is ignored anyway."""
    stuff, things = (network.class_weights[ids] for ids in (network.stuff_ids, network.thing_ids))
    return torch.cat((stuff.new_ones(1), stuff, things.mean()[None]))


def _instances(network: EPSNet, target: PanopticTarget) -> Tensor:
    known = network.class_index(target.class_ids, network.thing_ids) >= 0
    return target.instances[known[target.instances]]


def _semantic_target(network: EPSNet, target: PanopticTarget) -> Tensor:
    """0 for void, 1..N_stuff, N_stuff + 1 for things, crowds included: int64, (H, W)."""
    index = network.class_index(target.class_ids, network.stuff_ids) + 1
    thing = network.class_index(target.class_ids, network.thing_ids) >= 0
    index = index.where(~thing, len(network.stuff_ids) + 1)
    return torch.cat((index.new_zeros(1), index))[target.slots]


def multibox_loss(
    raw: Mapping[str, Tensor],
    targets: Sequence[PanopticTarget],
    instances: Sequence[Tensor],
    classes: Sequence[Tensor],
) -> dict[str, Tensor]:
    """Return the class, box and mask terms, each over the number of positive anchors.

    Args:
        raw: What ``EPSNet.forward`` returned, in float32.
        targets: The truth of each image.
        instances: Segments of each image to be found, (G,).
        classes: Their thing class indices, (G,).
    """
    terms = {name: raw["class_logits"].new_zeros(()) for name in ("classes", "boxes", "masks")}
    positives = raw["class_logits"].new_zeros(())
    for i, (target, chosen) in enumerate(zip(targets, instances, strict=True)):
        anchors = raw["anchors"][i]
        sides = anchors.new_tensor(target.slots.shape[::-1]).repeat(2)
        boxes = target.boxes[chosen] / sides
        crowds = target.boxes[target.is_crowd & target.is_thing] / sides
        matches = match_anchors(anchors, boxes, classes[i], crowds)
        positive = torch.nonzero(matches.classes > 0).flatten()
        positives = positives + len(positive)
        terms["classes"] = terms["classes"] + class_loss(raw["class_logits"][i], matches.classes)
        found = matches.instances[positive]
        deltas = encode_boxes(boxes[found], anchors[positive])
        distance = F.smooth_l1_loss(raw["box_deltas"][i][positive], deltas, reduction="sum")
        terms["boxes"] = terms["boxes"] + distance
        terms["masks"] = terms["masks"] + mask_loss(
            raw["prototypes"][i],
            raw["coefficients"][i][positive],
            boxes[found],
            target.masks(chosen),
            found,
        )
    weights = {"classes": CLASS_WEIGHT, "boxes": BOX_WEIGHT, "masks": MASK_WEIGHT}
    return {name: weights[name] * value / positives.clamp(min=1) for name, value in terms.items()}


def match_anchors(anchors: Tensor, boxes: Tensor, classes: Tensor, crowds: Tensor) -> Matches:
    """Assign anchors to instances by IoU.

    At ``POSITIVE_IOU`` and above an anchor is positive, below ``NEGATIVE_IOU`` background,
    between neutral. The best anchor of an instance is its own whatever the IoU; if two share
    one, the later has it. Anchors that are not positive and lie in a crowd are neutral.

    Args:
        anchors: (A, 4), (cx, cy, w, h).
        boxes: (G, 4), (x1, y1, x2, y2).
        classes: int64, (G,), thing class indices.
        crowds: (C, 4), (x1, y1, x2, y2).
    """
    corners = box_convert(anchors, "cxcywh", "xyxy")
    labels = torch.full((len(anchors),), BACKGROUND, device=anchors.device)
    best = torch.zeros_like(labels)
    if len(boxes):
        iou = box_iou(boxes, corners)
        overlap, best = iou.max(0)
        instances = torch.arange(len(boxes), device=best.device)
        owner = torch.full_like(best, -1).scatter_reduce(0, iou.argmax(1), instances, "amax")
        overlap, best = overlap.where(owner < 0, 2.0), best.where(owner < 0, owner)
        labels = torch.where(overlap >= NEGATIVE_IOU, NEUTRAL, labels)
        labels = torch.where(overlap >= POSITIVE_IOU, classes[best] + 1, labels)
    if len(crowds):
        low = torch.maximum(corners[:, None, :2], crowds[None, :, :2])
        high = torch.minimum(corners[:, None, 2:], crowds[None, :, 2:])
        area = (corners[:, 2:] - corners[:, :2]).prod(-1)
        within = ((high - low).clamp(min=0).prod(-1) / area[:, None]).amax(1) > CROWD_OVERLAP
        labels = torch.where(within & (labels <= 0), NEUTRAL, labels)
    return Matches(labels, best)


def class_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the cross-entropy of the positive anchors and of the hardest background ones.

    Of the background those with the lowest background probability count, three per positive.

    Args:
        logits: (A, 1 + N_things).
        classes: int64, (A,), as in ``Matches``.
    """
    losses = F.cross_entropy(logits, classes.clamp(min=0), reduction="none")
    positive = classes > 0
    hardness = losses.detach().masked_fill(classes != BACKGROUND, -1)
    rank = hardness.argsort(descending=True, stable=True).argsort()
    number = NEGATIVES_PER_POSITIVE * positive.sum()
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
    """Return the cross-entropy of S = P Y at full size (equation 1), over all pixels.

    Args:
        raw: What ``EPSNet.forward`` returned, in float32.
        truth: int64, (B, H, W), 0 for void, which adds nothing but counts in the mean.
        weights: What the pixels of each class count, (N,).
    """
    logits = torch.einsum("bkc,bkhw->bchw", raw["semantic_coefficients"], raw["prototypes"])
    logits = F.interpolate(logits, size=truth.shape[-2:], mode="bilinear")
    total = F.cross_entropy(logits, truth, weights, ignore_index=0, reduction="sum")
    return SEMANTIC_WEIGHT * total / truth.numel()
