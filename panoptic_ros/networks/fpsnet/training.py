"""FPSNet's training (section III-A.3): the truth of the panoptic head, and equation 1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou

from panoptic_ros.networks.fpsnet.network import FPSNet
from panoptic_ros.truth import PanopticTarget

_DETECTION_WEIGHT, _PANOPTIC_WEIGHT = 0.5, 1.0  # lambda_det, lambda_pan of equation 1
_MATCH_IOU = 0.5


def loss(network: FPSNet, images: Tensor, targets: Sequence[PanopticTarget]) -> dict[str, Tensor]:
    """Return the terms of equation 1, weighted: L = 0.5 L_det + 1.0 L_pan.

    L_det is RetinaNet's focal and box loss; crowds are no objects there. L_pan is the softmax
    cross-entropy of the head's logits, up-sampled to 1/loss_stride of the input, averaged
    over all pixels.
    Its masks come from the boxes that the detector predicts in this very step; no gradient
    flows through them. While the detector finds nothing, all things are "unmatched".
    """
    raw = network(images)
    size = (images.shape[2], images.shape[3])
    instances = [_instances(network, target) for target in targets]
    true_boxes = [t.boxes[i] for t, i in zip(targets, instances, strict=True)]
    labels = [
        network.class_index(t.class_ids[i], network.thing_ids)
        for t, i in zip(targets, instances, strict=True)
    ]
    focal, distance = network.detector.loss(
        raw["class_logits"], raw["box_deltas"], size, true_boxes, labels
    )
    boxes = _training_boxes(network, raw, size, true_boxes)
    matches = torch.stack([match_boxes(b, t) for b, t in zip(boxes, true_boxes, strict=True)])
    features = raw["features"]
    attention = network.attention_masks(boxes, matches >= 0, features.shape[2:])
    logits = network.panoptic_head(features, attention.to(features.dtype)).float()
    stride = network.loss_stride
    logits = F.interpolate(logits, scale_factor=float(network.stride // stride), mode="bilinear")
    truth = [
        panoptic_target(network, *item) for item in zip(targets, instances, matches, strict=True)
    ]
    sampled = torch.stack(truth)[:, stride // 2 :: stride, stride // 2 :: stride]
    panoptic = F.cross_entropy(logits, sampled, channel_weights(network))
    return {
        "classification": _DETECTION_WEIGHT * focal,
        "boxes": _DETECTION_WEIGHT * distance,
        "panoptic": _PANOPTIC_WEIGHT * panoptic,
    }


def channel_weights(network: FPSNet) -> Tensor:
    """Return what the pixels of each channel count: things their classes' mean, no label 1."""
    things = network.class_weights[network.thing_ids].mean()
    stuff = network.class_weights[network.stuff_ids]
    return torch.cat(
        (things.expand(network.num_attention), stuff, things[None], things.new_ones(1))
    )


def _instances(network: FPSNet, target: PanopticTarget) -> Tensor:
    """Indices of the segments that are single things of a known class."""
    known = network.class_index(target.class_ids, network.thing_ids) >= 0
    return target.instances[known[target.instances]]


@torch.no_grad()
def _training_boxes(
    network: FPSNet,
    raw: dict[str, Tensor],
    size: tuple[int, int],
    true_boxes: Sequence[Tensor],
) -> Tensor:
    """Boxes of the attention masks, shuffled over the slots: (B, N_att, 4)."""
    batch = len(true_boxes)
    limits = raw["features"].new_tensor(size[::-1], dtype=torch.float32).expand(batch, 2)
    boxes = network.detector.detect(
        raw["class_logits"], raw["box_deltas"], size, limits, network.num_attention
    ).boxes
    device = boxes.device
    for i, truth in enumerate(true_boxes):
        if torch.rand(()) < network.ground_truth_boxes:
            chosen = truth[torch.randperm(len(truth), device=device)[: network.num_attention]]
            boxes[i] = F.pad(chosen, (0, 0, 0, network.num_attention - len(chosen)))
    order = torch.rand(batch, network.num_attention, device=device).argsort(dim=1)
    return boxes.gather(1, order[..., None].expand(-1, -1, 4))


def panoptic_target(
    network: FPSNet, target: PanopticTarget, instances: Tensor, matches: Tensor
) -> Tensor:
    """What the panoptic head is to say about every pixel: int64, (H, W), 0..N_out + 1.

    N_att slots, N_stuff classes, then things without a mask, then what has no label: void,
    crowds, and classes that the network does not have.

    Args:
        network: Gives the number of slots and the stuff classes.
        target: The truth.
        instances: Segments that are single things, (G,).
        matches: Index among them of the box in each slot, or -1, (N_att,).
    """
    number = network.num_attention
    unmatched = number + network.stuff_ids.numel()
    unlabelled = unmatched + 1
    stuff = network.class_index(target.class_ids, network.stuff_ids)
    output = torch.where(stuff >= 0, number + stuff, unlabelled)
    output[instances] = unmatched
    slots = torch.nonzero(matches >= 0).flatten()
    output[instances[matches[slots]]] = slots
    return torch.cat((output.new_full((1,), unlabelled), output))[target.slots]


def match_boxes(boxes: Tensor, true_boxes: Tensor) -> Tensor:
    """Match boxes (N, 4) and true boxes (G, 4): for each box the index of its own, or -1.

    A pair is one where each is the other's best and the IoU is above 0.5 (section III-A.3; of
    the boxes, whatever their class).
    """
    nowhere = boxes.new_tensor([[-2.0, -2.0, -1.0, -1.0]])  # so that there is always one
    iou = box_iou(boxes, torch.cat((true_boxes, nowhere)))
    best, match = iou.max(dim=1)
    mutual = iou.argmax(dim=0)[match] == torch.arange(len(boxes), device=boxes.device)
    return torch.where(mutual & (best > _MATCH_IOU), match, -1)
