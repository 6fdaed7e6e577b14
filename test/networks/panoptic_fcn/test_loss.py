"""Panoptic FCN's loss, against a plain form of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from panoptic_ros.data.targets import compact_target
from panoptic_ros.networks.panoptic_fcn.kernels import LEVELS
from panoptic_ros.networks.panoptic_fcn.targets import (
    center_heatmap,
    region_map,
)
from panoptic_ros.networks.panoptic_fcn.training import dice_loss

from .test_training import SCALES, SIZE, THINGS, network, stuff_of, target, things_of

# Loss


def focal(logits, targets):
    p = logits.sigmoid()
    total = torch.zeros(())
    for x, prob, t in zip(logits.flatten(), p.flatten(), targets.flatten(), strict=True):
        p_t = prob * t + (1 - prob) * (1 - t)
        alpha = 0.25 * t + 0.75 * (1 - t)
        entropy = -(t * F.logsigmoid(x) + (1 - t) * F.logsigmoid(-x))
        total = total + alpha * (1 - p_t) ** 2 * entropy
    return total


def reference_loss(net, raw, truths):
    """The sheet's four terms, one instance and one class at a time."""
    sums = {"centers": 0.0, "regions": 0.0, "things": 0.0, "stuff": 0.0}
    pairs = stuff_pairs = 0
    for b, truth in enumerate(truths):
        encoding = raw["encoding"][b]
        things = things_of(truth)
        stuff = stuff_of(net, truth)

        def mask_of(embedding, kernel, encoding=encoding):
            return torch.einsum("c,chw->hw", embedding(kernel), encoding).sigmoid()

        for level, scales in zip(LEVELS, SCALES, strict=True):
            centers, regions, weights = (
                raw[f"{name}_{level}"][b] for name in ("centers", "regions", "kernels")
            )
            size = tuple(centers.shape[1:])
            here = things.only(torch.nonzero(things.within([scales])[0]).flatten())
            heatmap = center_heatmap(here, (1, len(THINGS), *size))[0]
            sums["centers"] += focal(centers, heatmap)
            region = region_map(stuff[None], size)[0]
            sums["regions"] += focal(regions, region) / (size[0] * size[1])
            for mask, c in zip(here.masks, here.classes.tolist(), strict=True):
                pairs += 1
                inside = F.interpolate(mask[None, None], size=size, mode="bilinear")[0, 0] > 0.1
                cells = [
                    (centers[c, y, x].sigmoid(), weights[:, y, x])
                    for y in range(size[0])
                    for x in range(size[1])
                    if inside[y, x]
                ]
                cells = sorted(cells, key=lambda cell: -cell[0].item())[: net.positives]
                for score, kernel in cells:
                    share = score / sum(s for s, _ in cells)
                    dice = dice_loss(mask_of(net.thing_embedding, kernel), mask)
                    sums["things"] += share * dice
            for c in range(net.regions):
                if region[c].any():
                    stuff_pairs += 1
                    kernel = (weights * (region[c] > 0)).mean((1, 2))
                    if net.own_mean:
                        kernel = weights[:, region[c] > 0].mean(1)
                    sums["stuff"] += dice_loss(mask_of(net.stuff_embedding, kernel), stuff[c])
    return {
        "position_things": net.position_weight * sums["centers"] / max(pairs, 1),
        "position_stuff": net.position_weight * sums["regions"] / len(truths),
        "segmentation_things": net.segmentation_weight * sums["things"] / max(pairs, 1),
        "segmentation_stuff": net.segmentation_weight * sums["stuff"] / max(stuff_pairs, 1),
    }


@pytest.mark.parametrize("own_mean", [False, True])
@pytest.mark.parametrize("things_in_stuff", ["merged", "separate"])
def test_loss_is_that_of_a_plain_reference(things_in_stuff, own_mean):
    net = network(
        things_in_stuff=things_in_stuff,
        own_mean=own_mean,
        segmentation_weight=4.0,
        position_weight=0.5,
    )
    net.eval()  # the same statistics for both passes
    for head in (net.position_head.centers, net.kernel_head.kernels, net.thing_embedding):
        nn.init.normal_(head.weight, std=0.1)  # scores and masks that differ
    truths = [
        target((11, 8, 16, 24, 48), (12, 30, 0, 64, 30), (12, 0, 60, 10, 70)),
        target(stuff=2),
    ]
    images = torch.randn(2, 3, *SIZE)
    losses = net.loss(images, truths)
    with torch.no_grad():
        expected = reference_loss(net, net(images), truths)
    assert set(losses) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], torch.as_tensor(value), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "truths",
    [
        [target((11, 8, 16, 24, 48)), target((12, 0, 0, 64, 90))],
        [target(), target(stuff=2)],
    ],
    ids=["things", "no things"],
)
def test_every_parameter_gets_a_gradient(truths):
    """Also without instances: ranks of a distributed training must agree on what has one."""
    net = network()
    losses = net.loss(torch.randn(2, 3, *SIZE), truths)
    assert all(torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_the_shares_of_the_sampled_kernels_pass_a_gradient_to_the_position_head():
    net = network()
    net.loss(torch.randn(1, 3, *SIZE), [target((11, 8, 16, 24, 48))])[
        "segmentation_things"
    ].backward()
    assert net.position_head.centers.weight.grad.abs().max() > 0
    assert net.position_head.regions.weight.grad is None


def test_an_image_of_void_has_a_finite_loss():
    void = compact_target(
        torch.zeros(SIZE, dtype=torch.long),
        torch.tensor([1]),
        torch.tensor([False]),
        torch.tensor([False]),
    )
    losses = network().loss(torch.randn(2, 3, *SIZE), [void, void])
    assert all(torch.isfinite(value) for value in losses.values())
    assert losses["segmentation_stuff"] == 0
