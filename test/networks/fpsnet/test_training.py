"""FPSNet's training: targets, the loss of equation 1, and images learnt by heart."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from panoptic_ros.networks.fpsnet.training import channel_weights, match_boxes, panoptic_target
from panoptic_ros.prediction import Category
from panoptic_ros.truth import FrameSize, PanopticTarget, PredictionOptions

from ..overfitting import learn, panoptic_quality
from .small import SMALL, STUFF, THINGS, eager, small


def test_boxes_and_truth_are_matched_one_to_one():
    truth = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]])
    boxes = torch.tensor(
        [
            [0.0, 0, 10, 8],  # 0.8 of truth 0
            [0, 0, 10, 9],  # 0.9 of truth 0: the better one
            [20, 0, 30, 5],  # exactly 0.5 of truth 1: not enough
            [0, 0, 0, 0],  # an empty slot
            [40, 0, 50, 10],
        ]
    )
    assert match_boxes(boxes, truth).tolist() == [-1, 0, -1, -1, 2]
    assert match_boxes(boxes, torch.zeros(0, 4)).tolist() == [-1] * 5
    assert match_boxes(torch.zeros(5, 4), truth).tolist() == [-1] * 5


def test_channels_count_what_their_classes_do():
    network = small()
    assert channel_weights(network).tolist() == [1.0] * (network.num_attention + len(STUFF) + 2)
    network.class_weights[STUFF[1]] = 3
    network.class_weights[THINGS] = torch.arange(2.0, 2 + len(THINGS))
    things = 2 + (len(THINGS) - 1) / 2
    stuff = [3.0 if i == 1 else 1.0 for i in range(len(STUFF))]
    expected = [things] * network.num_attention + stuff + [things, 1.0]
    assert channel_weights(network).tolist() == pytest.approx(expected)


def hand_made_target():
    """Void, two stuff classes, two cars, a crowd of cars, and a class nobody knows."""
    slots = torch.tensor([[0, 1, 1, 2], [3, 3, 1, 2], [4, 4, 5, 5], [0, 6, 6, 2]])
    return PanopticTarget(
        slots,
        torch.tensor([7, 23, 26, 24, 26, 99]),
        torch.tensor([False, False, True, True, True, False]),
        torch.tensor([False, False, False, False, True, False]),
        torch.zeros(6, 4),
    )


def test_the_target_of_the_panoptic_head():
    """Outputs: slots 0..2, stuff 3..4, unmatched 5, unlabelled 6. Car 0 is in slot 2."""
    network = small()
    target = hand_made_target()
    output = panoptic_target(network, target, torch.tensor([2, 3]), torch.tensor([-1, -1, 0]))
    assert output.tolist() == [[6, 3, 3, 4], [2, 2, 3, 4], [5, 5, 6, 6], [6, 6, 6, 4]]


def street(size=(64, 128)):
    """Sky over road, and two things."""
    height, width = size
    slots = torch.ones(size, dtype=torch.long)
    slots[height // 2 :] = 2
    slots[8:40, 8:48] = 3
    slots[32:64, 72:120] = 4
    boxes = [[0, 0, width, height // 2], [0, height // 2, width, height]]
    boxes += [[8, 8, 48, 40], [72, 32, 120, 64]]
    return PanopticTarget(
        slots,
        torch.tensor([23, 7, 24, 26]),
        torch.tensor([False, False, True, True]),
        torch.zeros(4, dtype=torch.bool),
        torch.tensor(boxes).float(),
    )


def heard(network, images, targets):
    """The loss, and the attention masks that the panoptic head was given."""
    masks = []
    handle = network.panoptic_head.register_forward_pre_hook(lambda _, args: masks.append(args[1]))
    loss = network.loss(images, targets)
    handle.remove()
    return loss, masks[0]


def test_no_gradient_flows_through_the_attention_masks():
    network = small(ground_truth_boxes=1.0).train()
    loss = network.loss(torch.randn(2, 3, 64, 128), [street()] * 2)
    loss["panoptic"].backward()
    assert all(p.grad is None for p in network.detector.parameters())
    assert network.single_map.p5[0][0].weight.grad.abs().sum() > 0
    assert network.backbone.conv1.weight.grad.abs().sum() > 0


def test_boxes_without_a_truth_are_not_drawn_in_training():
    network = eager().train()
    images = torch.randn(2, 3, 64, 128)
    _, attention = heard(network, images, [street()] * 2)
    assert attention.amax((2, 3)).gt(0).sum() <= 4  # at most one for each thing


def test_true_boxes_are_drawn_in_shuffled_slots():
    network = small(ground_truth_boxes=1.0, num_attention=20).train()
    images = torch.randn(2, 3, 64, 128)
    torch.manual_seed(5)
    loss, attention = heard(network, images, [street()] * 2)
    used = attention.amax((2, 3)) > 0
    assert used.sum(1).tolist() == [2, 2]
    assert not torch.equal(used[0], used[1])
    torch.manual_seed(5)
    again, same = heard(network, images, [street()] * 2)
    assert torch.equal(attention, same)
    assert loss.keys() == again.keys()


def test_the_loss_is_equation_1():
    """Of an untrained head that says the same everywhere, with nothing detected.

    Then all things are unmatched, and with all logits 0 the cross-entropy is the log of the
    number of outputs.
    """
    network = small().train()
    nn.init.zeros_(network.panoptic_head.predictor.weight)
    nn.init.zeros_(network.panoptic_head.predictor.bias)
    images = torch.randn(2, 3, 64, 128)
    loss = network.loss(images, [street()] * 2)
    torch.testing.assert_close(loss["panoptic"], torch.tensor(math.log(7)))
    raw = network(images)
    boxes, labels = [street().boxes[2:]] * 2, [torch.tensor([0, 1])] * 2
    focal, distance = network.detector.loss(
        raw["class_logits"], raw["box_deltas"], (64, 128), boxes, labels
    )
    torch.testing.assert_close(loss["classification"], 0.5 * focal)
    torch.testing.assert_close(loss["boxes"], 0.5 * distance)


def test_the_loss_of_an_image_of_nothing_is_finite():
    network = small().train()
    nothing = PanopticTarget(
        torch.zeros(64, 128, dtype=torch.long),
        torch.zeros(0, dtype=torch.long),
        torch.zeros(0, dtype=torch.bool),
        torch.zeros(0, dtype=torch.bool),
        torch.zeros(0, 4),
    )
    loss = network.loss(torch.randn(1, 3, 64, 128), [nothing])
    assert all(torch.isfinite(term) for term in loss.values())
    sum(loss.values()).backward()


# The whole


def random_street(generator):
    """Image (3, 64, 128) of plain colours and noise, and its truth: two stuff, three things."""
    target = street()
    target.slots[:32], target.slots[32:] = 1, 2
    things = torch.randint(0, 2, (3,), generator=generator)
    boxes = []
    for i in range(3):
        width, height = 24 + 8 * torch.randint(0, 3, (2,), generator=generator)
        left = 40 * i + 8 * torch.randint(0, int(40 - width) // 8 + 1, (), generator=generator)
        top = 8 * torch.randint(0, int(64 - height) // 8 + 1, (), generator=generator)
        target.slots[top : top + height, left : left + width] = 3 + i
        boxes.append(torch.stack((left, top, left + width, top + height)).float())
    target.class_ids = torch.cat((target.class_ids[:2], torch.tensor(THINGS)[things]))
    target.is_thing = torch.tensor([False, False, True, True, True])
    target.is_crowd = torch.zeros(5, dtype=torch.bool)
    target.boxes = torch.cat((target.boxes[:2], torch.stack(boxes)))
    colors = torch.tensor([[-1.0, 0, 1], [1, 0, -1], [1, 1, 0], [-1, -1, 0]])
    classes = (target.semantic()[..., None] == torch.tensor([23, 7, *THINGS])).long().argmax(-1)
    image = colors[classes].permute(2, 0, 1)
    return image + 0.1 * torch.randn(image.shape, generator=generator), target


def test_four_images_are_learnt_by_heart():
    """The letter's training from scratch, its boxes predicted from the first step on.

    Suppression is stricter than usual: anchors that overlap a thing by 0.4 to 0.5 are not trained,
    and in so short a training some become second boxes of a thing.
    """
    widths = {k: 32 for k in SMALL if k.endswith("_channels")}
    network = small(
        **widths, panoptic_depth=3, num_attention=4, anchor_scale=0.5, nms_threshold=0.3
    )
    network.train()
    generator = torch.Generator().manual_seed(0)
    streets = [random_street(generator) for _ in range(4)]
    images, targets = torch.stack([s[0] for s in streets]), [s[1] for s in streets]
    learn(network, images, targets, steps=100, rate=6e-3)
    sizes = [FrameSize((64, 128), (64, 128))] * len(images)
    with torch.inference_mode():
        found = network.eval().predict(network(images), sizes, PredictionOptions(0.5))
    categories = [Category(i, str(i), i in THINGS, (0, 0, 0)) for i in THINGS + STUFF]
    assert panoptic_quality(categories, found, targets) > 0.9
