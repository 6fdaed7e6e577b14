"""Dense detection: counts by hand, prediction on made-up maps."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import generalized_box_iou

from panoptic_ros.networks.dense_detection.boxes import LEVELS, dense_boxes
from panoptic_ros.networks.dense_detection.masks import instance_masks
from panoptic_ros.networks.dense_detection.network import DenseDetection, convolve_joined
from panoptic_ros.ops.agreement import smoothed_giou
from panoptic_ros.truth import FrameSize, PredictionOptions

from .scenes import STUFF, THINGS, configuration, empty_raw, make_network, scene


@pytest.fixture(scope="module")
def network():
    return make_network()


def parameters(network):
    return sum(p.numel() for p in network.parameters())


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
    # Levelness is convolved before it is enlarged, which takes 8.4 G less.
    assert counter.get_total_flops() / 2 + 8.4e9 == pytest.approx(multiply_adds, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_levelness_is_the_convolution_of_the_joined_maps(dtype):
    generator = torch.Generator().manual_seed(0)
    sizes, size = [(12, 18), (6, 9), (3, 5), (2, 3), (1, 2)], (24, 36)
    maps = [torch.randn(2, 16, *s, generator=generator).to(dtype) for s in sizes]
    layer = torch.nn.Conv2d(80, 6, 3, padding=1)
    joined = [torch.nn.functional.interpolate(m.float(), size, mode="bilinear") for m in maps]
    expected = layer(torch.cat(joined, 1))
    found = convolve_joined(layer.to(dtype), maps, size)
    assert found.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance)


def test_the_small_configuration_is_small():
    assert parameters(configuration("small").build()) <= 6_000_000


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
            for level, size in zip(LEVELS, ((8, 12), (4, 6), (2, 3), (1, 2), (1, 1)), strict=True)
        },
    }
    assert all((raw[f"offsets_p{level}"] > 0).all() for level in LEVELS)


def test_semantic_channels_follow_the_data_set():
    settings = {"backbone": "resnet18_half", "channels": 16, "semantic_channels": 8}
    for things_first, expected in ((True, THINGS + STUFF), (False, STUFF + THINGS)):
        network = DenseDetection(THINGS, STUFF, things_first=things_first, **settings)
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
    actual = smoothed_giou(queries, boxes.view(1, 5, 8, 4)).view(40, 40)
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
    actual = smoothed_giou(queries, boxes.view(1, 1, 2, 4)).flatten()
    torch.testing.assert_close(actual, generalized_box_iou(queries, boxes)[0], atol=1e-4, rtol=0)


def test_levelness_picks_the_level_of_each_pixel():
    raw = empty_raw(64, 64)
    for level in LEVELS:
        raw[f"offsets_p{level}"][:] = float(level)
    raw["levelness"][0, 0] = 9.0  # background does not take part
    raw["levelness"][0, 3, :8] = 1.0  # P5 above, P3 (the first) below
    boxes = dense_boxes(raw)
    assert boxes.shape == (1, 1, 16, 16, 4)
    assert boxes[0, 0, 0, 0].tolist() == [2 - 5, 2 - 5, 2 + 5, 2 + 5]
    assert boxes[0, 0, 9, 1].tolist() == [6 - 3, 38 - 3, 6 + 3, 38 + 3]
    del raw["levelness"]
    assert dense_boxes(raw).shape == (1, 5, 16, 16, 4)


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


def test_a_mask_is_where_its_probability_is_at_least_sigma():
    """Where all boxes agree, their agreement is 1; the authors' code compares with >= 0.4."""
    boxes, labels = torch.tensor([[0.0, 0.0, 48.0, 32.0]]), torch.tensor([1])
    dense = boxes.expand(1, 8, 12, 4)
    probability = torch.zeros(3, 8, 12)
    probability[1, :, :6], probability[1, :, 6:] = 0.4, 0.39999
    (mask,) = instance_masks(boxes, labels, dense, probability, (32, 48))
    # Pixels 0..21 lie between cells of 0.4 only; from there on a part of 0.39999 comes in.
    expected = (torch.arange(48) < 22).expand(32, 48)
    assert torch.equal(mask.placed((32, 48)), expected)


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
    network = configuration("small").build().eval().double()  # floats tie but for rounding
    network.box_class.bias.data.zero_()
    network.box_class.weight.data.mul_(30)
    network.semantic.weight.data.mul_(30)
    images = torch.randn(3, 3, 64, 96, dtype=torch.float64)
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
