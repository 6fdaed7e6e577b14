"""What Panoptic FCN trains on, and its loss against a plain reference."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from panoptic_ros.data.targets import compact_target
from panoptic_ros.networks.panoptic_fcn.network import PanopticFCN
from panoptic_ros.networks.panoptic_fcn.targets import (
    center_heatmap,
    gaussian_radius,
    region_map,
    stuff_target,
    thing_targets,
)
from panoptic_ros.networks.panoptic_fcn.training import dice_loss, stuff_channels
from panoptic_ros.truth import PanopticTarget, TargetBatch

THINGS, STUFF = [11, 12], [1, 2]
SIZE = (64, 96)
SCALES = ((1, 16), (12, 32), (24, 64), (48, 96), (80, 200))


def target(*segments, stuff=1) -> PanopticTarget:
    """Stuff of class ``stuff`` everywhere, and segments (class id, y1, x1, y2, x2[, crowd])."""
    slots = torch.ones(SIZE, dtype=torch.long)
    for number, (_, y1, x1, y2, x2, *_) in enumerate(segments, start=2):
        slots[y1:y2, x1:x2] = number
    slots[:, 92:] = 0  # padding
    class_ids = torch.tensor([stuff, *(s[0] for s in segments)])
    crowd = torch.tensor([False, *(len(s) > 5 for s in segments)])
    return compact_target(slots, class_ids, class_ids > 10, crowd)


def network(**settings) -> PanopticFCN:
    torch.manual_seed(0)
    return PanopticFCN(
        THINGS,
        STUFF,
        backbone="resnet18_half",
        norm="batch",
        channels=64,
        head_depth=1,
        deformable_position=False,
        encoder_channels=8,
        scale_ranges=SCALES,
        positives=3,
        **settings,
    )


def things_of(*truths):
    batch = TargetBatch.of(truths)
    return thing_targets(batch, (batch.class_ids == 12).long())


def stuff_of(net, truth):
    batch = TargetBatch.of([truth])
    return stuff_target(batch, stuff_channels(net, batch.class_ids), net.regions)[0]


def heatmap_of(things):
    return center_heatmap(things, (1, 2, 8, 12))[0]


# Targets


def test_instances_are_described_at_stride_4():
    things = things_of(
        target((11, 8, 16, 24, 48), (12, 40, 0, 64, 8), (11, 0, 60, 20, 80, "crowd"))
    )
    assert things.classes.tolist() == [0, 1]
    assert things.boxes.tolist() == [[16, 32], [24, 8]]
    assert things.masks.shape == (2, 16, 24)
    assert things.masks[0, 2:6, 4:12].eq(1).all()
    assert things.masks[0].sum() == 4 * 8
    assert things.centers.tolist() == [[3.5, 7.5], [12.5, 0.5]]


def test_an_instance_without_a_cell_at_stride_4_is_left_out():
    things = things_of(target((11, 4, 4, 5, 5), (12, 8, 8, 24, 24)))
    assert things.classes.tolist() == [1]


def test_scale_ranges_overlap_and_include_their_ends():
    things = things_of(target((11, 0, 0, 16, 16), (12, 32, 0, 48, 36)))  # sizes 16 and 24
    within = things.within(SCALES).int().tolist()
    assert within == [[1, 0], [1, 1], [0, 1], [0, 0], [0, 0]]


def test_a_batch_is_described_as_its_images_one_by_one():
    truths = [
        target((11, 8, 16, 24, 48), (12, 30, 0, 64, 30)),
        target(),
        target((12, 4, 4, 5, 5), (11, 0, 60, 10, 70, "crowd"), (12, 40, 4, 50, 9), stuff=2),
    ]
    together, alone = things_of(*truths), [things_of(truth) for truth in truths]
    assert together.images.tolist() == [0, 0, 2]
    for name in ("masks", "classes", "centers", "boxes"):
        joined = torch.cat([getattr(things, name) for things in alone])
        assert torch.equal(getattr(together, name), joined)
    heatmaps = center_heatmap(together, (3, 2, 8, 12))
    assert torch.equal(heatmaps, torch.stack([heatmap_of(things) for things in alone]))


def test_masks_are_reduced_bilinearly():
    generator = torch.Generator().manual_seed(0)
    slots = torch.randint(0, 3, SIZE, generator=generator)
    truth = compact_target(
        slots, torch.tensor([11, 12]), torch.tensor([True] * 2), torch.tensor([False] * 2)
    )
    masks = torch.stack([slots == 1, slots == 2]).float()
    reduced = F.interpolate(masks[None], scale_factor=0.25, mode="bilinear")[0]
    assert torch.equal(things_of(truth).masks, reduced)


def test_radius_is_cornernets():
    """The least of three roots, here for a square; each divided by 2, not by 2a."""
    n = 10.0
    roots = [
        (2 * n + math.sqrt(4 * n**2 - 4 * n**2 * 0.3 / 1.7)) / 2,
        (4 * n + math.sqrt(16 * n**2 - 16 * 0.3 * n**2)) / 2,
        (-2.8 * n + math.sqrt(2.8**2 * n**2 + 4 * 2.8 * 0.3 * n**2)) / 2,
    ]
    radius = gaussian_radius(torch.tensor([n]), torch.tensor([n]))
    assert radius.item() == pytest.approx(min(roots))


def test_heatmap_of_one_instance():
    things = things_of(target((12, 8, 8, 56, 88)))  # center (32, 48) pixels
    heatmap = heatmap_of(things)
    radius = int(gaussian_radius(torch.tensor([6.0]), torch.tensor([10.0])))
    assert radius >= 1
    sigma = (2 * radius + 1) / 3
    row, column = int(7.5 / 2), int(11.5 / 2)  # mean cell at stride 4, halved, truncated
    assert heatmap[1, row, column] == 1
    assert heatmap[1, row, column + 1].item() == pytest.approx(math.exp(-1 / (2 * sigma**2)))
    assert heatmap[1, row, column + radius] > 0
    assert heatmap[1, row, column + radius + 1] == 0
    assert not heatmap[0].any()


def test_where_two_gaussians_of_a_class_meet_the_larger_counts():
    boxes = (11, 0, 0, 32, 40), (11, 0, 40, 32, 80)
    both = heatmap_of(things_of(target(*boxes)))
    alone = [heatmap_of(things_of(target(box))) for box in boxes]
    assert torch.equal(both, torch.maximum(*alone))


def test_stuff_target_counts_crowds_and_leaves_padding_out():
    truth = target((11, 0, 0, 32, 32), (12, 32, 32, 64, 64, "crowd"), stuff=2)
    net = network()
    merged = stuff_of(net, truth)
    assert merged.shape == (3, 16, 24)
    assert merged[0].sum() == 2 * 64  # all things
    assert merged[1].sum() == 0
    assert merged[2].sum() == 16 * 23 - 2 * 64
    net = network(things_in_stuff="separate")
    separate = stuff_of(net, truth)
    assert [int(channel.sum()) for channel in separate] == [0, 16 * 23 - 128, 64, 64]


def test_half_covered_cells_of_a_region_count_and_less_do_not():
    stuff = torch.zeros(1, 1, 2, 6)
    stuff[..., :3] = 1
    assert region_map(stuff, (1, 3)).flatten().tolist() == [1.0, 0.5, 0.0]
    stuff[..., 2] = 0.9
    assert region_map(stuff, (1, 3)).flatten().tolist() == [1.0, 0.0, 0.0]


def test_dice_by_hand():
    masks = torch.tensor([[[0.5, 1.0]], [[0.0, 0.0]]])
    targets = torch.tensor([[[1.0, 1.0]], [[0.0, 0.0]]])
    expected = torch.tensor([1 - 2 * 1.5 / (1.25 + 2), 1.0])
    torch.testing.assert_close(dice_loss(masks, targets), expected)
