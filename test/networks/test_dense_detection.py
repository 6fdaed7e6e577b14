"""Dense detection: counts, targets and losses by hand, prediction on made-up maps."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import box_iou, generalized_box_iou

from panoptic_ros.data.targets import compact_target
from panoptic_ros.evaluation.panoptic_quality import PanopticQuality, SegmentTable
from panoptic_ros.model_zoo import load_config
from panoptic_ros.networks import dense_detection as dd
from panoptic_ros.networks.base import FrameSize, PredictionOptions
from panoptic_ros.networks.dense_detection_boxes import SIZE_LIMITS
from panoptic_ros.resources import share_directory

THINGS, STUFF = [9, 10, 11], [1, 2, 4]


def configuration(name):
    return load_config(share_directory() / "config" / "networks" / f"dense_detection_{name}.yaml")


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    settings = {"backbone": "resnet18_half", "norm": "batch", "channels": 16}
    return dd.DenseDetection(THINGS, STUFF, semantic_channels=8, **settings).eval()


def make_target(slots, class_ids, crowd=()):
    ids = torch.tensor(class_ids)
    is_crowd = torch.tensor([i in crowd for i in range(len(class_ids))])
    return compact_target(slots, ids, torch.isin(ids, torch.tensor(THINGS)), is_crowd)


def blocks(size, *rectangles):
    """Slots that are painted with (slot, x1, y1, x2, y2)."""
    slots = torch.zeros(size, dtype=torch.long)
    for slot, x1, y1, x2, y2 in rectangles:
        slots[y1:y2, x1:x2] = slot
    return slots


def empty_raw(height, width):
    """Raw maps of an image in which nothing is seen: boxes of 8 pixels, no class anywhere."""
    things, channels = len(THINGS), len(THINGS) + len(STUFF)
    raw = {
        "semantic": torch.zeros(1, channels, height // 8, width // 8),
        "levelness": torch.zeros(1, 6, height // 4, width // 4),
    }
    for level in dd.LEVELS:
        h, w = -(-height // 2**level), -(-width // 2**level)
        raw[f"box_class_p{level}"] = torch.full((1, things, h, w), -10.0)
        raw[f"offsets_p{level}"] = torch.full((1, 4, h, w), 4.0)
        raw[f"centerness_p{level}"] = torch.full((1, 1, h, w), 10.0)
    return raw


def aim(raw, level, box):
    """Let the locations of a level within ``box`` predict just that box."""
    x1, y1, x2, y2 = box
    height, width = raw[f"offsets_p{level}"].shape[-2:]
    for row in range(height):
        for column in range(width):
            x, y = (2**level * cell + 2**level // 2 for cell in (column, row))
            if x1 <= x < x2 and y1 <= y < y2:
                raw[f"offsets_p{level}"][0, :, row, column] = torch.tensor(
                    [x - x1, y - y1, x2 - x, y2 - y], dtype=torch.float
                )


# Architecture


@pytest.mark.parametrize(
    ("name", "count", "multiply_adds"),
    [("cityscapes", 30_624_107, 352.8e9), ("coco", 31_363_877, 377.9e9)],
)
def test_parameters_and_multiply_adds_of_the_paper(name, count, multiply_adds):
    with torch.device("meta"):
        network = configuration(name).build()
        image = torch.empty(1, 3, 1024, 2048)
    assert parameters(network) == count
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    assert counter.get_total_flops() / 2 == pytest.approx(multiply_adds, rel=0.02)


def test_the_small_configuration_is_small():
    assert parameters(configuration("small").build()) <= 4_000_000


def test_focal_prior_is_on_the_box_classes(network):
    assert torch.allclose(network.box_class.bias, torch.tensor(-math.log(99.0)))
    assert not network.semantic.bias.any()


def test_output_shapes(network):
    with torch.inference_mode():
        raw = network(torch.randn(2, 3, 64, 96))
    assert {name: tuple(value.shape) for name, value in raw.items()} == {
        "semantic": (2, 6, 8, 12),
        "levelness": (2, 6, 16, 24),
        **{
            f"{name}_p{level}": (2, channels, *size)
            for name, channels in (("box_class", 3), ("offsets", 4), ("centerness", 1))
            for level, size in zip(
                dd.LEVELS, ((8, 12), (4, 6), (2, 3), (1, 2), (1, 1)), strict=True
            )
        },
    }
    assert all((raw[f"offsets_p{level}"] > 0).all() for level in dd.LEVELS)


def test_semantic_channels_follow_the_data_set():
    settings = {"backbone": "resnet18_half", "channels": 16, "semantic_channels": 8}
    for things_first, expected in ((True, THINGS + STUFF), (False, STUFF + THINGS)):
        network = dd.DenseDetection(THINGS, STUFF, things_first=things_first, **settings)
        assert network.semantic_ids.tolist() == expected
        assert network.semantic_ids[network.first_thing :][:3].tolist() == THINGS


def near_border(slots, distance=7):
    """Return the pixels from which another segment is seen within a distance."""
    around = torch.stack((slots, -slots)).double()[None]
    most = torch.nn.functional.max_pool2d(around, 2 * distance + 1, 1, distance)[0]
    return most[0] != -most[1]


# Prediction


def test_smoothed_giou_equals_a_loop_over_pairs():
    torch.manual_seed(0)
    corners = torch.rand(2, 40, 2) * 60
    queries, boxes = torch.cat((corners, corners + torch.rand(2, 40, 2) * 40), dim=-1)
    actual = dd.smoothed_giou(queries, boxes.view(1, 5, 8, 4)).view(40, 40)
    for i, q in enumerate(queries.tolist()):
        for j, b in enumerate(boxes.tolist()):
            width = max(0.0, min(q[2], b[2]) - max(q[0], b[0]))
            height = max(0.0, min(q[3], b[3]) - max(q[1], b[1]))
            area = sum((v[2] - v[0]) * (v[3] - v[1]) for v in (q, b))
            union = area - width * height
            hull = (max(q[2], b[2]) - min(q[0], b[0])) * (max(q[3], b[3]) - min(q[1], b[1]))
            expected = (width * height + 1) / (union + 1) - (hull - union) / hull
            assert actual[i, j].item() == pytest.approx(expected, abs=1e-4)


def test_smoothed_giou_nears_the_usual_one_for_large_boxes():
    queries = torch.tensor([[0.0, 0.0, 900.0, 700.0]])
    boxes = torch.tensor([[100.0, 50.0, 1000.0, 600.0], [2000.0, 0.0, 2500.0, 300.0]])
    actual = dd.smoothed_giou(queries, boxes.view(1, 1, 2, 4)).flatten()
    torch.testing.assert_close(actual, generalized_box_iou(queries, boxes)[0], atol=1e-4, rtol=0)


def test_levelness_picks_the_level_of_each_pixel():
    raw = empty_raw(64, 64)
    for level in dd.LEVELS:
        raw[f"offsets_p{level}"][:] = float(level)
    raw["levelness"][0, 0] = 9.0  # background does not take part
    raw["levelness"][0, 3, :8] = 1.0  # P5 above, P3 (the first) below
    boxes = dd.dense_boxes(raw)
    assert boxes.shape == (1, 1, 16, 16, 4)
    assert boxes[0, 0, 0, 0].tolist() == [2 - 5, 2 - 5, 2 + 5, 2 + 5]
    assert boxes[0, 0, 9, 1].tolist() == [6 - 3, 38 - 3, 6 + 3, 38 + 3]
    del raw["levelness"]
    assert dd.dense_boxes(raw).shape == (1, 5, 16, 16, 4)


def test_detection_scores_thresholds_and_clipping(network):
    raw = empty_raw(64, 96)
    raw["box_class_p4"][0, 1, 1, 2] = 2.0  # at x 40, y 24
    raw["centerness_p4"][0, 0, 1, 2] = 0.0
    raw["offsets_p4"][0, :, 1, 2] = torch.tensor([50.0, 10.0, 70.0, 5.0])
    raw["box_class_p3"][0, 0, 0, 0] = math.log(0.05 / 0.95)  # not above 0.06
    found = network.detect(raw, [(60, 90)])
    assert found.valid.sum() == 1
    assert found.boxes[0, 0].tolist() == [0.0, 14.0, 89.0, 29.0]
    assert found.labels[0, 0] == 1
    score = 0.5 / (1 + math.exp(-2.0))
    assert found.scores[0, 0].item() == pytest.approx(score)
    assert found.locations[0, 0] == 8 * 12 + 1 * 6 + 2
    assert network.detect(raw, [(60, 90)], score + 0.01).valid.sum() == 0


def test_cells_in_the_padding_detect_nothing(network):
    raw = empty_raw(64, 96)
    raw["box_class_p3"][0, 0, 2, 5] = 3.0  # x 40..47, y 16..23
    raw["box_class_p3"][0, 0, 7, 1] = 3.0
    assert network.detect(raw, [(64, 96)]).valid.sum() == 2
    assert network.detect(raw, [(56, 41)]).valid.sum() == 1
    assert network.detect(raw, [(56, 40)]).valid.sum() == 0


def test_both_suppressions(network):
    raw = empty_raw(64, 64)
    cells = {(0, 0, 0): 3.0, (0, 0, 1): 2.0, (1, 0, 2): 1.0, (1, 4, 4): 0.5}  # class, row, column
    for (label, row, column), logit in cells.items():
        raw["box_class_p3"][0, label, row, column] = logit
    # The second is suppressed in its class, the third, nearly the first, across classes.
    for column, x2 in ((0, 40), (1, 36), (2, 40.5)):
        x = 8 * column + 4
        raw["offsets_p3"][0, :, 0, column] = torch.tensor([x, 4, x2 - x, 20])
    found = network.detect(raw, [(64, 64)])
    assert found.valid.sum() == 2
    assert found.labels[0, :2].tolist() == [0, 1]
    assert found.boxes[0, 0].tolist() == [0.0, 0.0, 40.0, 24.0]


def scene(network):
    """Raw maps of 64 x 96 with two objects beside each other and stuff in two halves."""
    raw = empty_raw(64, 96)
    raw["semantic"][0, 0] = 4.0
    raw["semantic"][0, 2, 4:] = 8.0
    boxes = {0: (8.0, 8.0, 40.0, 40.0), 1: (48.0, 8.0, 80.0, 40.0)}
    for label, box in boxes.items():
        aim(raw, 3, box)
        x1, y1, x2, y2 = (int(v) // 8 for v in box)
        raw["semantic"][0, network.first_thing + label, y1:y2, x1:x2] = 20.0
        raw["box_class_p3"][0, label, (y1 + y2) // 2, (x1 + x2) // 2] = 3.0 - label
    return raw, boxes


def test_a_scene_becomes_its_segments(network):
    raw, boxes = scene(network)
    size = FrameSize((64, 96), (64, 96))
    (found,) = network.predict(raw, [size], PredictionOptions(0.5, 0.5))
    assert found.class_ids.tolist() == [9, 10, *STUFF]
    assert found.scores[2:].tolist() == [1.0] * 3
    assert found.scores[0] > found.scores[1] > 0.5
    expected = torch.full((64, 96), 3)
    expected[32:] = 5
    for slot, (x1, y1, x2, y2) in enumerate(boxes.values(), start=1):
        expected[int(y1) : int(y2), int(x1) : int(x2)] = slot
    assert torch.equal(found.slots[~near_border(expected)], expected[~near_border(expected)])


def test_score_threshold_and_output_size(network):
    raw, _ = scene(network)
    size = FrameSize((60, 90), (120, 45))
    (found,) = network.predict(raw, [size], PredictionOptions(0.9, 0.5))
    assert found.slots.shape == (120, 45)
    assert found.class_ids.tolist() == [9, *STUFF]
    (found,) = network.predict(raw, [size], PredictionOptions(1.0, 0.5))
    assert found.class_ids.tolist() == STUFF


def test_a_batch_gives_what_its_images_give_alone():
    torch.manual_seed(1)
    network = configuration("small").build().eval()
    network.box_class.bias.data.zero_()
    network.box_class.weight.data.mul_(30)
    network.semantic.weight.data.mul_(30)
    images = torch.randn(3, 3, 64, 96)
    sizes = [
        FrameSize((64, 96), (64, 96)),
        FrameSize((50, 90), (50, 90)),
        FrameSize((64, 70), (32, 35)),
    ]
    options = PredictionOptions(0.0, 0.5)
    with torch.inference_mode():
        together = network.predict(network(images), sizes, options)
        for image, size, batched in zip(images, sizes, together, strict=True):
            (alone,) = network.predict(network(image[None]), [size], options)
            assert torch.equal(alone.class_ids, batched.class_ids)
            assert len(alone.class_ids) > 20
            torch.testing.assert_close(alone.scores, batched.scores)
            assert (alone.slots == batched.slots).float().mean() > 0.999


def test_bfloat16(network):
    raw, _ = scene(network)
    size = FrameSize((64, 96), (64, 96))
    (exact,) = network.predict(raw, [size], PredictionOptions())
    (half,) = network.predict(
        {k: v.bfloat16() for k, v in raw.items()}, [size], PredictionOptions()
    )
    assert torch.equal(exact.class_ids, half.class_ids)
    assert (exact.slots == half.slots).float().mean() > 0.99


# Targets


def test_locations_in_masks_get_the_box_of_their_size():
    slots = blocks((128, 256), (1, 16, 24, 56, 64), (2, 60, 0, 220, 128))
    slots[40:48, 30:40] = 0  # a hole: in the box, not in the mask
    target = make_target(slots, [10, 9])
    grid = dd.Grid.of(empty_raw(128, 256))
    found = dd.assign_locations(target, grid.locations, grid.limits)

    assert grid.level_sizes == (16 * 32, 8 * 16, 4 * 8, 2 * 4, 1 * 2)
    expected_segments, start = [], 0
    for level, number in zip(dd.LEVELS, grid.level_sizes, strict=True):
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


def test_a_box_on_the_limit_belongs_to_both_levels():
    target = make_target(blocks((64, 96), (1, 0, 0, 68, 60)), [9])
    locations = torch.tensor([[4.0, 4.0]] * 3)
    limits = torch.tensor([SIZE_LIMITS[i : i + 2] for i in range(3)])
    found = dd.assign_locations(target, locations, limits)
    assert found.offsets[0].max() == 64
    assert found.segments.tolist() == [0, 0, -1]


def test_crowds_and_stuff_are_no_instances():
    slots = blocks((64, 64), (1, 0, 0, 32, 32), (2, 32, 0, 64, 32), (3, 0, 32, 64, 64))
    target = make_target(slots, [9, 10, 2], crowd=[0])
    locations = torch.tensor([[4.0, 4.0], [40.0, 4.0], [4.0, 40.0]])
    found = dd.assign_locations(target, locations)
    assert found.segments.tolist() == [-1, 1, -1]
    assert found.ignored.tolist() == [True, False, False]


def test_levelness_target():
    slots = blocks((128, 512), (1, 0, 0, 60, 60), (2, 64, 0, 464, 128), (3, 480, 0, 512, 64))
    target = make_target(slots, [9, 10, 11], crowd=[2])
    level = dd.levelness_target(target)
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
    assert dd.centerness_target(offsets).tolist() == pytest.approx(expected)


# Losses


def test_offset_iou_loss():
    truth = torch.tensor([[10.0, 10.0, 30.0, 20.0], [5.0, 5.0, 5.0, 5.0]])
    predicted = torch.tensor([[10.0, 10.0, 10.0, 20.0], [5.0, 5.0, 5.0, 5.0]])
    expected = [-math.log((20 * 30 + 1) / (40 * 30 + 1)), 0.0]
    assert dd.offset_iou_loss(predicted, truth).tolist() == pytest.approx(expected)


def test_mask_errors_equal_a_loop_over_pixels():
    torch.manual_seed(3)
    target = make_target(blocks((32, 48), (1, 4, 4, 24, 28), (2, 28, 0, 44, 20)), [9, 10])
    corners = torch.rand(1, 8, 12, 2) * 30
    dense = torch.cat((corners, corners + 2 + torch.rand(1, 8, 12, 2) * 25), dim=-1)
    queries = torch.tensor([[5.0, 3.0, 22.0, 27.0], [27.0, 1.0, 45.0, 19.0]])
    actual = dd.mask_errors(queries, dense, target, torch.tensor([0, 1]))
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
    actual = network._semantic_loss(logits, [target])
    assert actual.item() == pytest.approx(sum(worst) / len(worst), rel=1e-5)


def test_box_losses_and_their_normalisers(network):
    raw = empty_raw(64, 64)
    target = make_target(blocks((64, 64), (1, 8, 8, 24, 24)), [10])
    grid = dd.Grid.of(raw)
    truth = dd.LocationTargets(
        *(field[None] for field in dd.assign_locations(target, grid.locations, grid.limits))
    )
    losses = network._box_losses(raw, truth)
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
    for level in dd.LEVELS:
        raw[f"box_class_p{level}"][:] = 0.0
    grid = dd.Grid.of(raw)
    losses = []
    for crowd in ((), (0,)):
        target = make_target(torch.ones(128, 128, dtype=torch.long), [9], crowd=crowd)
        assigned = dd.assign_locations(target, grid.locations, grid.limits)
        truth = dd.LocationTargets(*(field[None] for field in assigned))
        losses.append(network._box_losses(raw, truth)["box_cls"].item())
    assert losses[0] > 0 and losses[1] == 0


def test_the_mask_loss_counts_every_query(network):
    """A query on the object has the error of eq. 16; one from the background halves the mean."""
    target = make_target(blocks((64, 96), (1, 8, 8, 40, 40)), [9])
    raw, _ = scene(network)
    grid = dd.Grid.of(raw)
    assigned = dd.assign_locations(target, grid.locations, grid.limits)
    truth = dd.LocationTargets(*(field[None] for field in assigned))
    loss = network._mask_loss(raw, truth, [target])  # the second object is background here
    box = torch.tensor([[8.0, 8.0, 40.0, 40.0]])
    error = dd.mask_errors(box, dd.dense_boxes(raw)[0], target, torch.tensor([0]))
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


# The whole


def street(seed, size=(96, 128)):
    """Image (3, H, W) of plain colours and noise, and its truth: three stuff, three things."""
    rng = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[:height, :width]
    slots = np.ones(size, np.int64)
    slots[int(height * rng.uniform(0.3, 0.45)) :] = 2
    slots[: height // 3, int(width * rng.uniform(0.6, 0.8)) :] = 3
    class_ids = [1, 4, 2]
    for i in range(3):
        class_ids.append(THINGS[(seed + i) % 3])
        dx = (x - width * (i + 0.5) / 3 - rng.uniform(-4, 4)) / (width * rng.uniform(0.1, 0.14))
        dy = (y - height * rng.uniform(0.45, 0.65)) / (height * rng.uniform(0.18, 0.3))
        slots[dx**2 + dy**2 < 1] = len(class_ids)
    hues = {
        1: (1, 0, -1),
        2: (0, 0, 0),
        4: (-1, 0, 1),
        9: (1, 1, 0),
        10: (-1, -1, 0),
        11: (0, 1, 1),
    }
    colors = np.array([hues[class_id] for class_id in class_ids])[slots - 1]
    image = torch.from_numpy(colors + 0.1 * rng.standard_normal((*size, 3))).float()
    return image.permute(2, 0, 1), make_target(torch.from_numpy(slots), class_ids)


def panoptic_quality(categories, found, targets):
    quality = PanopticQuality(categories)
    for segments, target in zip(found, targets, strict=True):
        shown = segments.slots.unique()
        shown = shown[shown > 0]
        tables = [
            SegmentTable(ids.numpy(), classes.numpy(), np.zeros(len(ids), bool))
            for ids, classes in (
                (torch.arange(1, 1 + len(target.class_ids)), target.class_ids),
                (shown, segments.class_ids[shown - 1]),
            )
        ]
        quality.add(target.slots.numpy(), tables[0], segments.slots.numpy(), tables[1])
    return quality.result()["All"]["pq"]


def test_four_images_are_learnt_by_heart():
    """The small configuration, its losses as they are."""
    torch.manual_seed(0)
    config = configuration("small")
    network = config.build().train()
    images, targets = zip(*(street(seed) for seed in range(4)), strict=True)
    images = torch.stack(images)
    steps, rate = 120, 4e-3
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    for _ in range(steps):
        optimiser.zero_grad()
        sum(network.loss(images, targets).values()).backward()
        optimiser.step()
        schedule.step()
    sizes = [FrameSize((96, 128), (96, 128))] * len(images)
    with torch.inference_mode():
        found = network.eval().predict(network(images), sizes, config.options)
    assert panoptic_quality(config.categories, found, targets) > 0.9
