"""PanoNet's training (III-B): semantics at three scales, and the discriminative loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from panoptic_ros.networks.layers.icnet import STRIDES
from panoptic_ros.networks.panonet.network import PanoNet
from panoptic_ros.truth import PanopticTarget

_SCALE_WEIGHTS = (1.0, 0.4, 0.16)  # lambda_t of equations 1 and 6 at 1/4, 1/8, 1/16
_DELTA_V, _DELTA_D, _DELTA_R = 0.25, 1.0, 6.0  # margins of equations 2 to 4
_ALPHA, _BETA, _GAMMA = 1.0, 1.0, 0.1  # weights of equation 5


def loss(network: PanoNet, images: Tensor, targets: Sequence[PanopticTarget]) -> dict[str, Tensor]:
    """Return L_sem (equation 1) and the terms of L_inst (equation 6), weighted.

    Truth is reduced to each scale by nearest neighbour. The clusters of equations 2 to 4 are
    the single things of an image, all classes together; pixels of anything else take no part
    in L_inst, void takes none in L_sem. Each image counts alike.
    """
    truth = torch.stack([_semantic_target(network, target) for target in targets])
    weights = network.class_weights[torch.cat((network.thing_ids, network.stuff_ids))]
    seen = network.seen(images)
    terms = {"semantic": images.new_zeros((), dtype=torch.float32)}
    for weight, stride, logits in zip(
        _SCALE_WEIGHTS, STRIDES, network.semantic.cascade(seen), strict=True
    ):
        reduced = _reduce(truth, stride)
        labelled = (reduced >= 0).sum().clamp(min=1)
        total = F.cross_entropy(logits.float(), reduced, weights, ignore_index=-1, reduction="sum")
        terms["semantic"] = terms["semantic"] + weight * total / labelled
    if network.train_instances:
        terms |= _instance_loss(network, seen, targets)
    return terms


def _semantic_target(network: PanoNet, target: PanopticTarget) -> Tensor:
    """Class index of every pixel, things first: int64, (H, W), -1 for void."""
    classes = torch.cat((network.thing_ids, network.stuff_ids))
    index = network.class_index(target.class_ids, classes)
    return torch.cat((index.new_full((1,), -1), index))[target.slots]


def _instance_loss(
    network: PanoNet, seen: Tensor | list[Tensor], targets: Sequence[PanopticTarget]
) -> dict[str, Tensor]:
    outputs = network.instance.cascade(network.instance_input(seen))
    terms = {n: outputs[0].new_zeros((), dtype=torch.float32) for n in ("var", "dist", "reg")}
    for weight, stride, embeddings in zip(_SCALE_WEIGHTS, STRIDES, outputs, strict=True):
        for embedding, target in zip(embeddings.float(), targets, strict=True):
            clusters = _reduce(_cluster_target(network, target), stride).flatten()
            losses = discriminative_loss(embedding.flatten(1).T, clusters, len(target.class_ids))
            for name, factor, loss in zip(terms, (_ALPHA, _BETA, _GAMMA), losses, strict=True):
                terms[name] = terms[name] + weight * factor * loss / len(targets)
    return terms


def _cluster_target(network: PanoNet, target: PanopticTarget) -> Tensor:
    """Segment of every pixel of a single thing: int64, (H, W), -1 elsewhere."""
    known = network.class_index(target.class_ids, network.thing_ids) >= 0
    single = target.is_thing & ~target.is_crowd & known
    index = torch.arange(len(single), device=single.device).where(single, -1)
    return torch.cat((index.new_full((1,), -1), index))[target.slots]


def discriminative_loss(
    points: Tensor, clusters: Tensor, number: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return L_var, L_dist and L_reg of one image (equations 2, 3 and 4), unweighted.

    Equation 3 is a hinge: the plus stands outside the printed bracket. Equation 4 is printed
    with a 1 / N_c without a sum over pixels, taken for a slip: it is the mean over clusters.

    Args:
        points: float, (N, D), embeddings x_i.
        clusters: int64, (N,): cluster of each point, or -1.
        number: Clusters are 0..number - 1; those without a point do not count.
    """
    inside = clusters >= 0
    index = clusters.where(inside, number)
    size = torch.bincount(index, minlength=number + 1)[:number]
    sums = points.new_zeros(number + 1, points.shape[1]).index_add(0, index, points)[:number]
    means = sums / size.clamp(min=1)[:, None]
    present = size > 0
    count = present.sum()

    away = _norm(means[index.clamp(max=max(number - 1, 0))] - points) if number else points[:, 0]
    pull = (away - _DELTA_V).clamp(min=0) ** 2 * inside
    pulls = points.new_zeros(number + 1).index_add(0, index, pull)[:number]
    variance = (pulls / size.clamp(min=1)).sum() / count.clamp(min=1)

    apart = _norm(means[:, None] - means[None])
    pairs = present[:, None] & present[None] & ~torch.eye(number, device=points.device).bool()
    push = (2 * _DELTA_D - apart).clamp(min=0) ** 2 * pairs
    distance = push.sum() / (count * (count - 1)).clamp(min=1)

    far = (_norm(means) - _DELTA_R).clamp(min=0) ** 2 * present
    return variance, distance, far.sum() / count.clamp(min=1)


def _norm(vectors: Tensor) -> Tensor:
    """L2 norm over the last dimension, with a gradient of 0 instead of NaN at 0."""
    squares = (vectors**2).sum(-1)
    positive = squares > 0
    return torch.where(positive, squares.where(positive, 1).sqrt(), 0)


def _reduce(truth: Tensor, stride: int) -> Tensor:
    """Reduce index maps (..., H, W) to every ``stride``-th pixel, at the cells' centres."""
    return truth[..., stride // 2 :: stride, stride // 2 :: stride]
