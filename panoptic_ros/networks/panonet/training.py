"""PanoNet's training (III-B): semantics at three scales, and the discriminative loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from panoptic_ros.networks.layers.icnet import STRIDES
from panoptic_ros.networks.panonet.network import PanoNet
from panoptic_ros.truth import PanopticTarget, TargetBatch

_SCALE_WEIGHTS = (1.0, 0.4, 0.16)  # lambda_t of equations 1 and 6 at 1/4, 1/8, 1/16
_DELTA_V, _DELTA_D, _DELTA_R = 0.25, 1.0, 6.0  # margins of equations 2 to 4
_ALPHA, _BETA, _GAMMA = 1.0, 1.0, 0.1  # weights of equation 5


def loss(network: PanoNet, images: Tensor, targets: Sequence[PanopticTarget]) -> dict[str, Tensor]:
    """Return L_sem (equation 1) and the terms of L_inst (equation 6), weighted.

    Truth is reduced to each scale by nearest neighbour. The clusters of equations 2 to 4 are
    the single things of an image, all classes together; pixels of anything else take no part
    in L_inst, void takes none in L_sem. Each image counts alike.
    """
    batch = TargetBatch.of(targets)
    classes = torch.cat((network.thing_ids, network.stuff_ids))
    index = network.class_index(batch.class_ids, classes)
    weights = network.class_weights[classes]
    seen = network.seen(images)
    terms = {"semantic": images.new_zeros((), dtype=torch.float32)}
    for weight, stride, logits in zip(
        _SCALE_WEIGHTS, STRIDES, network.semantic.cascade(seen), strict=True
    ):
        truth = _reduced_lookup(index, batch, stride)
        labelled = (truth >= 0).sum().clamp(min=1)
        total = F.cross_entropy(logits.float(), truth, weights, ignore_index=-1, reduction="sum")
        terms["semantic"] = terms["semantic"] + weight * total / labelled
    if network.train_instances:
        terms |= _instance_loss(network, seen, batch)
    return terms


def _instance_loss(
    network: PanoNet, seen: Tensor | list[Tensor], batch: TargetBatch
) -> dict[str, Tensor]:
    known = network.class_index(batch.class_ids, network.thing_ids) >= 0
    numbers = torch.arange(len(known), device=known.device)
    numbers = numbers.where(batch.is_single & known, -1)
    terms = dict.fromkeys(("var", "dist", "reg"), 0)
    outputs = network.instance.cascade(network.instance_input(seen))
    for weight, stride, embedding in zip(_SCALE_WEIGHTS, STRIDES, outputs, strict=True):
        clusters = _reduced_lookup(numbers, batch, stride).flatten()
        points = embedding.float().movedim(1, -1).flatten(0, 2)
        losses = discriminative_loss(points, clusters, batch.images, len(embedding))
        for name, factor, loss in zip(terms, (_ALPHA, _BETA, _GAMMA), losses, strict=True):
            terms[name] = terms[name] + weight * factor * loss
    return terms


def _reduced_lookup(values: Tensor, batch: TargetBatch, stride: int) -> Tensor:
    """Return the value (S,) of every pixel's segment, of every ``stride``-th pixel: (B, h, w).

    These are the pixels at the cells' centres; void is -1.
    """
    slots = batch.slots[..., stride // 2 :: stride, stride // 2 :: stride]
    return torch.cat((values.new_full((1,), -1), values))[slots]


def discriminative_loss(
    points: Tensor, clusters: Tensor, images: Tensor, number: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return L_var, L_dist and L_reg (equations 2, 3 and 4), unweighted: means over images.

    Equation 3 is a hinge: the plus stands outside the printed bracket. Equation 4 is printed
    with a 1 / N_c without a sum over pixels, taken for a slip: it is the mean over clusters.

    Args:
        points: float, (N, D), embeddings x_i.
        clusters: int64, (N,): cluster of each point, or -1.
        images: int64, (K,): image of each cluster; clusters without a point do not count.
        number: Of images.
    """
    inside = clusters >= 0
    index = clusters.where(inside, len(images))  # the last place is for those in no cluster
    size = points.new_zeros(len(images) + 1).index_add(0, index, inside.to(points.dtype))
    means = points.new_zeros(len(size), points.shape[1]).index_add(0, index, points)
    means = means / size.clamp(min=1)[:, None]

    pull = (_norm(means[index] - points) - _DELTA_V).clamp(min=0) ** 2 * inside
    pulls = points.new_zeros(len(size)).index_add(0, index, pull)
    size, means, pulls = size[:-1], means[:-1], pulls[:-1]
    present = size > 0
    count = points.new_zeros(number).index_add(0, images, present.to(points.dtype))[images]
    each = number * count.clamp(min=1)
    variance = (pulls / size.clamp(min=1) / each).sum()

    same_image = images[:, None] == images
    pairs = (present[:, None] & present & same_image).fill_diagonal_(False)
    push = (2 * _DELTA_D - _norm(means[:, None] - means)).clamp(min=0) ** 2 * pairs
    distance = (push.sum(1) / (each * (count - 1).clamp(min=1))).sum()

    far = (_norm(means) - _DELTA_R).clamp(min=0) ** 2 * present
    return variance, distance, (far / each).sum()


def _norm(vectors: Tensor) -> Tensor:
    """L2 norm over the last dimension, with a gradient of 0 instead of NaN at 0."""
    squares = (vectors**2).sum(-1)
    positive = squares > 0
    return torch.where(positive, squares.where(positive, 1).sqrt(), 0)
