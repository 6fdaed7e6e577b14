"""Dense detection: targets and losses by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torchvision.ops import box_iou

from panoptic_ros.networks.dense_detection.boxes import (
    LEVELS,
    SIZE_LIMITS,
    Grid,
    dense_boxes,
    size_limits,
)
from panoptic_ros.networks.dense_detection.training import (
    LocationTargets,
    assign_locations,
    box_losses,
    centerness_target,
    levelness_target,
    mask_errors,
    mask_loss,
    offset_iou_loss,
    semantic_loss,
)
from panoptic_ros.truth import FrameSize, PredictionOptions, TargetBatch

from .scenes import blocks, configuration, empty_raw, make_network, make_target, scene


@pytest.fixture(scope="module")
def network():
    return make_network()


# Targets


def assign(target, *where):
    """The only image of a batch."""
    found = assign_locations(TargetBatch.of([target]), *where)
    return LocationTargets(*(field[0] for field in found))


def test_offsets_of_training_are_not_rounded_by_autocast(network):
    """Neighbours of an exponent around 5.5 are 3 % of the offset apart in bfloat16."""
    features = []
    hook = network.localisation_tower.register_forward_hook(lambda *a: features.append(a[2]))
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            raw = network(images)
        hook.remove()
        exponent = network.scales[0] * network.offsets(features[0].float())
    assert raw["box_class_p3"].dtype == torch.bfloat16
    torch.testing.assert_close(raw["offsets_p3"].log(), exponent, rtol=1e-5, atol=1e-5)


def test_a_batch_that_is_all_crowd_has_a_loss(network):
    target = make_target(torch.ones((64, 96), dtype=torch.long), [9], crowd=[0])
    terms = network.loss(torch.zeros(1, 3, 64, 96), [target])
    assert all(torch.isfinite(term) for term in terms.values()), terms
    assert terms["levelness"] == 0


def test_locations_in_masks_get_the_box_of_their_size():
    slots = blocks((128, 256), (1, 16, 24, 56, 64), (2, 60, 0, 220, 128))
    slots[40:48, 30:40] = 0  # a hole: in the box, not in the mask
    target = make_target(slots, [10, 9])
    grid = Grid.of(empty_raw(128, 256))
    found = assign(target, grid.locations, size_limits(grid))

    assert grid.level_sizes == (16 * 32, 8 * 16, 4 * 8, 2 * 4, 1 * 2)
    expected_segments, start = [], 0
    for level, number in zip(LEVELS, grid.level_sizes, strict=True):
        low, high = SIZE_LIMITS[level - 3 : level - 1]
        for x, y in grid.locations[start : start + number].long().tolist():
            segment = slots[y, x].item() - 1 if y < 128 and x < 256 else -1
            if segment >= 0:
                x1, y1, x2, y2 = ((16, 24, 56, 64), (60, 0, 220, 128))[segment]
                if not low <= max(x - x1, y - y1, x2 - x, y2 - y) <= high:
                    segment = -1
            expected_segments.append(segment)
        start += number
    assert found.segments.tolist() == expected_segments

    at = (grid.locations == torch.tensor([20.0, 28.0])).all(1).nonzero()[0, 0]  # P3
    assert found.offsets[at].tolist() == [4.0, 4.0, 36.0, 36.0]
    assert found.class_ids[at] == 10
    hole = (grid.locations == torch.tensor([36.0, 44.0])).all(1).nonzero()[0, 0]
    assert found.segments[hole] == -1 and found.class_ids[hole] == 0


def test_a_batch_is_assigned_and_lost_as_its_images_one_by_one(network):
    """Segments are numbered through; the mask loss is the mean of the images' own."""
    targets = [
        make_target(blocks((64, 96), (1, 8, 8, 40, 40)), [9]),
        make_target(blocks((64, 96), (1, 0, 0, 90, 30), (2, 50, 30, 90, 60)), [4, 11]),
    ]
    raw, _ = scene(network)
    grid = Grid.of(raw)
    queries = network.detect(raw, [(64, 96)])
    both = queries._replace(**{k: torch.cat((v, v)) for k, v in queries._asdict().items()})
    batch, limits = TargetBatch.of(targets), size_limits(grid)
    together = assign_locations(batch, grid.locations, limits)
    dense, losses = dense_boxes(raw), []
    for i, target in enumerate(targets):
        single = TargetBatch.of([target])
        alone = assign_locations(single, grid.locations, limits)
        shifted = torch.where(alone.segments >= 0, alone.segments + i, -1)  # one comes before
        assert torch.equal(together.segments[i], shifted[0])
        for name in ("class_ids", "offsets", "ignored"):
            assert torch.equal(getattr(together, name)[i], getattr(alone, name)[0])
        losses.append(mask_loss(dense, queries, alone, single))
    found = mask_loss(dense.expand(2, -1, -1, -1, -1), both, together, batch)
    torch.testing.assert_close(found, sum(losses) / 2)
    assert found > 0


def test_a_box_on_the_limit_belongs_to_both_levels():
    target = make_target(blocks((64, 96), (1, 0, 0, 68, 60)), [9])
    locations = torch.tensor([[4.0, 4.0]] * 3)
    limits = torch.tensor([SIZE_LIMITS[i : i + 2] for i in range(3)])
    found = assign(target, locations, limits)
    assert found.offsets[0].max() == 64
    assert found.segments.tolist() == [0, 0, -1]


def test_crowds_and_stuff_are_no_instances():
    slots = blocks((64, 64), (1, 0, 0, 32, 32), (2, 32, 0, 64, 32), (3, 0, 32, 64, 64))
    target = make_target(slots, [9, 10, 2], crowd=[0])
    locations = torch.tensor([[4.0, 4.0], [40.0, 4.0], [4.0, 40.0]])
    found = assign(target, locations)
    assert found.segments.tolist() == [-1, 1, -1]
    assert found.ignored.tolist() == [True, False, False]


def test_levelness_target():
    slots = blocks((128, 512), (1, 0, 0, 60, 60), (2, 64, 0, 464, 128), (3, 480, 0, 512, 64))
    target = make_target(slots, [9, 10, 11], crowd=[2])
    level = levelness_target(TargetBatch.of([target]))[0]
    assert level.shape == (32, 128)
    assert level[0, 0] == 1  # at (2, 2): 58 to the right and the bottom
    assert level[5, 16] == 4  # at (66, 22): 398 to the right, P6
    assert level[5, 65] == 3  # at (262, 22): 202 to the right, P5
    assert level[31, 2] == 0
    assert level[0, 122] == -1
    assert level[20, 122] == 0


def test_centerness_target():
    offsets = torch.tensor([[10.0, 10.0, 10.0, 10.0], [2.0, 5.0, 8.0, 20.0], [0.0, 5.0, 9.0, 5.0]])
    expected = [1.0, math.sqrt(2 / 8 * 5 / 20), 0.0]
    assert centerness_target(offsets).tolist() == pytest.approx(expected)


# Losses


def test_offset_iou_loss():
    truth = torch.tensor([[10.0, 10.0, 30.0, 20.0], [5.0, 5.0, 5.0, 5.0]])
    predicted = torch.tensor([[10.0, 10.0, 10.0, 20.0], [5.0, 5.0, 5.0, 5.0]])
    expected = [-math.log((20 * 30 + 1) / (40 * 30 + 1)), 0.0]
    assert offset_iou_loss(predicted, truth).tolist() == pytest.approx(expected)


def test_mask_errors_equal_a_loop_over_pixels():
    torch.manual_seed(3)
    target = make_target(blocks((32, 48), (1, 4, 4, 24, 28), (2, 28, 0, 44, 20)), [9, 10])
    corners = torch.rand(1, 8, 12, 2) * 30
    dense = torch.cat((corners, corners + 2 + torch.rand(1, 8, 12, 2) * 25), dim=-1)
    queries = torch.tensor([[5.0, 3.0, 22.0, 27.0], [27.0, 1.0, 45.0, 19.0]])
    masks = target.slots[2::4, 2::4] == torch.tensor([1, 2])[:, None, None]
    actual = mask_errors(queries, dense.expand(2, -1, -1, -1, -1), masks, target.boxes[:2])
    for j, query in enumerate(queries):
        false_positive = false_negative = pixels = 0.0
        for row in range(8):
            for column in range(12):
                box = dense[0, row, column]
                low, high = torch.maximum(query[:2], box[:2]), torch.minimum(query[2:], box[2:])
                inter = (high - low).clamp(min=0).prod().item()
                areas = (query[2:] - query[:2]).prod() + (box[2:] - box[:2]).prod()
                iou = (inter + 1) / (areas.item() - inter + 1)
                if target.slots[4 * row + 2, 4 * column + 2] == j + 1:
                    pixels += 1
                    false_negative += 1 - iou
                else:
                    false_positive += iou
        beta = box_iou(query[None], target.boxes[j : j + 1]).item()
        expected = beta / pixels * (false_positive + false_negative)
        assert actual[j].item() == pytest.approx(expected, rel=1e-4)


def test_semantic_loss_is_the_mean_of_the_worst_three_tenths(network):
    slots = blocks((16, 16), (1, 0, 0, 16, 8), (2, 0, 8, 10, 16))  # the rest is void
    target = make_target(slots, [4, 10])
    logits = torch.randn(1, 6, 2, 2, generator=torch.Generator().manual_seed(0))
    fine = torch.nn.functional.interpolate(logits, size=(16, 16), mode="bilinear").log_softmax(1)
    channels = {4: 2, 10: 4}
    losses = sorted(
        (
            -fine[0, channels[[4, 10][slot - 1]], y, x].item()
            for y in range(16)
            for x in range(16)
            if (slot := slots[y, x].item())
        ),
        reverse=True,
    )
    worst = losses[: math.ceil(0.3 * len(losses))]
    actual = semantic_loss(logits, TargetBatch.of([target]), network.semantic_ids)
    assert actual.item() == pytest.approx(sum(worst) / len(worst), rel=1e-5)


def test_weighted_classes_are_the_worst(network):
    target = make_target(blocks((16, 16), (1, 0, 0, 16, 2), (2, 0, 2, 16, 16)), [4, 10])
    weights = torch.tensor([1.0, 1, 5, 1, 2, 1])  # channel 2 is class 4, channel 4 class 10
    logits = torch.zeros(1, 6, 4, 4)  # log 6 everywhere; an eighth of the pixels is class 4
    actual = semantic_loss(logits, TargetBatch.of([target]), network.semantic_ids, weights)
    worst = math.ceil(0.3 * 256)
    assert actual.item() == pytest.approx(math.log(6) * (32 * 5 + (worst - 32) * 2) / worst)


def test_box_losses_and_their_normalisers(network):
    raw = empty_raw(64, 64)
    target = make_target(blocks((64, 64), (1, 8, 8, 24, 24)), [10])
    grid = Grid.of(raw)
    batch = TargetBatch.of([target])
    truth = assign_locations(batch, grid.locations, size_limits(grid))
    losses = box_losses(raw, truth, network.thing_ids)
    foreground = [(12, 12), (20, 12), (12, 20), (20, 20)]  # of P3; (16, 16) of P4 has another cell
    assert (truth.segments >= 0).sum() == len(foreground)
    # Each is 4 and 12 from the sides of the truth, which is 16 wide; the prediction is 8 wide.
    assert losses["box_reg"].item() == pytest.approx(-math.log((8 * 8 + 1) / (16 * 16 + 1)))
    probability = 1 / (1 + math.exp(-10))
    truth_centerness = math.sqrt((4 / 12) ** 2)
    bce = -truth_centerness * math.log(probability) - (1 - truth_centerness) * math.log(
        1 - probability
    )
    assert losses["center"].item() == pytest.approx(bce, rel=1e-4)
    p = 1 / (1 + math.exp(10))
    locations = 64 + 16 + 4 + 1 + 1
    positive = 0.25 * (1 - p) ** 2 * -math.log(p)
    negative = 0.75 * p**2 * -math.log(1 - p)
    expected = (4 * positive + (3 * locations - 4) * negative) / locations
    assert losses["box_cls"].item() == pytest.approx(expected, rel=1e-4)


def test_crowds_are_no_negatives(network):
    raw = empty_raw(128, 128)
    for level in LEVELS:
        raw[f"box_class_p{level}"][:] = 0.0
    grid = Grid.of(raw)
    losses = []
    for crowd in ((), (0,)):
        target = make_target(torch.ones(128, 128, dtype=torch.long), [9], crowd=crowd)
        batch = TargetBatch.of([target])
        truth = assign_locations(batch, grid.locations, size_limits(grid))
        losses.append(box_losses(raw, truth, network.thing_ids)["box_cls"].item())
    assert losses[0] > 0 and losses[1] == 0


def test_the_mask_loss_counts_every_query(network):
    """A query on the object has the error of eq. 16; one from the background halves the mean."""
    target = make_target(blocks((64, 96), (1, 8, 8, 40, 40)), [9])
    raw, _ = scene(network)  # its second object is background here
    grid = Grid.of(raw)
    batch = TargetBatch.of([target])
    truth = assign_locations(batch, grid.locations, size_limits(grid))
    queries = network.detect(raw, [(64, 96)])
    loss = mask_loss(dense_boxes(raw), queries, truth, batch)
    box = torch.tensor([[8.0, 8.0, 40.0, 40.0]])
    error = mask_errors(box, dense_boxes(raw), target.slots[None, 2::4, 2::4] == 1, box)
    assert error > 0
    assert loss.item() == pytest.approx(error.item() / 2, rel=1e-5)


def test_loss_trains_every_part(network):
    torch.manual_seed(0)
    network = configuration("small").build()
    network.box_class.bias.data.zero_()  # so that there are query boxes
    slots = blocks((64, 96), (1, 0, 0, 96, 30), (2, 10, 20, 40, 60), (3, 50, 30, 90, 60))
    target = make_target(slots, [4, 9, 11])
    empty = make_target(torch.zeros(64, 96, dtype=torch.long), [1])
    losses = network.loss(torch.randn(2, 3, 64, 96), [target, empty])
    assert set(losses) == {"box_reg", "center", "box_cls", "semantics", "levelness", "mask"}
    assert all(value.isfinite() and value > 0 for value in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_an_image_without_truth_has_a_finite_loss(network):
    empty = make_target(torch.zeros(64, 96, dtype=torch.long), [1])
    losses = network.loss(torch.randn(1, 3, 64, 96), [empty])
    assert all(value.isfinite() for value in losses.values())
    assert losses["semantics"] == 0


def test_semantic_weight_and_levelness_are_settings():
    torch.manual_seed(0)
    config = configuration("small")
    target = make_target(blocks((64, 96), (1, 0, 0, 96, 64)), [4])
    image = torch.randn(1, 3, 64, 96)
    plain, changed = (
        replace(config, settings={**config.settings, **change}).build().eval()
        for change in ({}, {"semantic_weight": 0.4, "levelness": False})
    )
    changed.load_state_dict(plain.state_dict(), strict=False)
    first, second = plain.loss(image, [target]), changed.loss(image, [target])
    assert second["semantics"].item() == pytest.approx(0.4 * first["semantics"].item())
    assert "levelness" not in second
    size = FrameSize((64, 96), (64, 96))
    with torch.inference_mode():
        (found,) = changed.predict(changed(image), [size], PredictionOptions())
    assert found.slots.shape == (64, 96)
