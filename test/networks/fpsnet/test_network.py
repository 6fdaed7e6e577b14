"""FPSNet by hand-computed cases; the letter has no published code to compare with."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from panoptic_ros.networks.fpsnet.network import FPSNet
from panoptic_ros.truth import FrameSize, PredictionOptions

from .small import SMALL, THINGS, configured, eager, small


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


# Size


def test_parameters_of_the_letters_configuration():
    network = configured("fpsnet_cityscapes")
    assert count(network) == 38_312_043
    assert round(count(network.backbone, network.fpn) / 1e6, 2) == 31.51
    assert round(count(network.detector) / 1e6, 2) == 4.97
    assert round(count(network.single_map) / 1e6, 2) == 1.03
    assert count(network.panoptic_head) / 1e6 == pytest.approx(0.805, abs=1e-3)
    assert network.fpn.extra_blocks.p6.in_channels == 2048  # from C5


def test_parameters_at_256_channels_and_on_voc():
    wide = FPSNet(range(8), range(8, 19), feature_channels=256)
    assert round(count(wide) / 1e6, 2) == 39.79
    voc = configured("fpsnet_pascal_voc")
    assert voc.detector.num_classes == 20
    assert voc.panoptic_head.predictor.out_channels == 50 + 0 + 2


def test_multiply_adds_of_the_letters_configuration():
    with torch.device("meta"):
        network = FPSNet(range(8), range(8, 19)).eval()
        images, attention = torch.empty(1, 3, 1024, 2048), torch.empty(1, 50, 128, 256)
    with FlopCounterMode(display=False) as counter:
        raw = network(images)
        network.panoptic_head(raw["features"], attention)
    assert counter.get_total_flops() / 2e9 == pytest.approx(463, rel=0.02)


def test_the_small_configuration_is_small():
    assert count(configured("fpsnet_small")) < 6e6


# Prediction


class Ruler(nn.Module):
    """A panoptic head to reckon with: things where the attention is above 20, else ``winner``.

    The two extra outputs get ``extra``; a real head never lets a mask of zeros win, this one
    does: its logit is 15 where the attention is 0 and ``zero_wins`` is set.
    """

    def __init__(self, outputs, winner=0, extra=-99.0, zero_wins=False):
        super().__init__()
        self.outputs, self.winner, self.extra, self.zero_wins = outputs, winner, extra, zero_wins

    def forward(self, features, attention):
        batch, number, height, width = attention.shape
        logits = torch.full((batch, self.outputs, height, width), -50.0)
        logits[:, -2:] = self.extra
        logits[:, number + self.winner] = 10.0
        things = attention - 10
        if self.zero_wins:
            things = things.where(attention.amax((2, 3), keepdim=True) > 0, 15.0)
        logits[:, :number] = things
        return logits


def raw_with(network, boxes, labels, scores, size):
    """What forward would return if the detector saw just these boxes (one image)."""
    anchors = network.detector.anchors(size, torch.device("cpu"))
    logits = torch.full((1, len(anchors), len(THINGS)), -20.0)
    deltas = torch.zeros(1, len(anchors), 4)
    for i, (box, label, score) in enumerate(zip(boxes, labels, scores, strict=True)):
        box = torch.tensor([box])
        deltas[0, i] = network.detector.box_coder.encode_single(box, anchors[i : i + 1])[0]
        logits[0, i, label] = math.log(score / (1 - score))
    features = torch.zeros(1, SMALL["feature_channels"], size[0] // 8, size[1] // 8)
    return {"class_logits": logits, "box_deltas": deltas, "features": features}


def predict(network, raw, valid, output=None, threshold=0.5):
    sizes = [FrameSize(valid, output or valid)]
    return network.predict(raw, sizes, PredictionOptions(threshold))[0]


LEFT, RIGHT = [8.0, 8.0, 56.0, 56.0], [72.0, 16.0, 120.0, 56.0]


def test_slots_hold_things_by_score_then_stuff():
    network = small(attention="hard")
    network.panoptic_head = Ruler(7, winner=1)
    raw = raw_with(network, [LEFT, RIGHT], [1, 0], [0.6, 0.9], (64, 128))
    found = predict(network, raw, (64, 128))
    assert found.class_ids.tolist() == [24, 26, 0, 7, 23]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.6, 0, 1, 1]))
    assert found.slots.shape == (64, 128)
    assert found.slots[36, 96] == 1  # right: the better box
    assert found.slots[32, 32] == 2
    assert found.slots[4, 64] == 5  # second stuff class
    assert sorted(found.slots.unique().tolist()) == [1, 2, 5]


def test_a_box_up_to_the_threshold_leaves_its_slot_empty():
    network = small(attention="hard")
    network.panoptic_head = Ruler(7)
    raw = raw_with(network, [LEFT, RIGHT], [1, 0], [0.6, 0.9], (64, 128))
    found = predict(network, raw, (64, 128), threshold=0.7)
    assert found.class_ids.tolist() == [24, 0, 0, 7, 23]
    assert found.slots[32, 32] == 4


def test_no_box_leaves_stuff_even_if_a_mask_of_zeros_would_win():
    network = small()
    network.panoptic_head = Ruler(7, zero_wins=True)
    found = predict(network, raw_with(network, [], [], [], (64, 128)), (64, 128))
    assert found.slots.unique().tolist() == [4]
    assert found.class_ids.tolist() == [0, 0, 0, 7, 23]
    assert found.scores[:3].tolist() == [0, 0, 0]


def test_more_boxes_than_slots_keep_the_best():
    network = small(num_attention=1, attention="hard")
    network.panoptic_head = Ruler(5)
    raw = raw_with(network, [LEFT, RIGHT], [1, 0], [0.6, 0.9], (64, 128))
    found = predict(network, raw, (64, 128))
    assert found.class_ids.tolist() == [24, 7, 23]
    assert found.slots[36, 96] == 1
    assert found.slots[32, 32] == 2


def test_the_extra_outputs_win_nothing_where_there_is_stuff():
    network = small()
    network.panoptic_head = Ruler(7, extra=99.0)
    found = predict(network, raw_with(network, [], [], [], (64, 128)), (64, 128))
    assert found.slots.unique().tolist() == [4]


def test_a_thing_without_a_box_may_be_void_instead_of_stuff():
    raw = raw_with(small(), [LEFT], [1], [0.9], (64, 128))
    for is_void in (False, True):
        network = small(attention="hard", unmatched_is_void=is_void)
        network.panoptic_head = Ruler(7, winner=2)  # output 5 of 3 + 2 + 2 is "unmatched"
        found = predict(network, raw, (64, 128))
        assert found.slots[32, 32] == 1
        assert (found.slots[32, 100] == 0) == is_void
        assert found.class_ids.tolist() == [26, 0, 0, 7, 23]


def test_without_stuff_the_unlabelled_output_is_void():
    network = small(stuff=[], attention="hard")
    network.panoptic_head = Ruler(5, winner=1)  # output 4 of 3 + 2 is "unlabelled"
    raw = raw_with(network, [LEFT], [1], [0.9], (64, 128))
    found = predict(network, raw, (64, 128))
    assert found.class_ids.tolist() == [26, 0, 0]
    assert found.slots[32, 32] == 1
    assert found.slots[32, 100] == 0
    assert found.slots.unique().tolist() == [0, 1]


def test_the_output_has_the_size_of_the_image_and_shows_no_padding():
    """The valid part, 48 x 96 of 64 x 128, is doubled; boxes are clipped to it."""
    network = small(attention="hard")
    network.panoptic_head = Ruler(7)
    outside = [100.0, 8.0, 124.0, 40.0]
    raw = raw_with(network, [LEFT, outside], [1, 0], [0.9, 0.8], (64, 128))
    found = predict(network, raw, (48, 96), (96, 192))
    assert found.slots.shape == (96, 192)
    assert found.class_ids.tolist() == [26, 0, 0, 7, 23]
    whole = predict(network, raw, (48, 96))
    assert torch.equal(found.slots, whole.slots.repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_a_batch_of_three_equals_three_batches_of_one():
    """In float64: convolutions round differently for other batches, and ties are many here."""
    network = eager().double()
    images = torch.randn(3, 3, 96, 128, generator=torch.Generator().manual_seed(1)).double()
    sizes = [FrameSize((96, 128), (96, 128)), FrameSize((90, 128), (180, 256))]
    sizes.append(FrameSize((96, 100), (192, 200)))
    options = PredictionOptions(0.1)
    with torch.inference_mode():
        together = network.predict(network(images), sizes, options)
        for i in range(3):
            alone = network.predict(network(images[i : i + 1]), sizes[i : i + 1], options)[0]
            assert alone.class_ids.tolist() == together[i].class_ids.tolist()
            assert (alone.class_ids[:20] > 0).sum() > 5
            torch.testing.assert_close(alone.scores, together[i].scores)
            assert torch.equal(alone.slots, together[i].slots)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_predicts_in_range(dtype):
    network = eager().to(dtype)
    images = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(1)).to(dtype)
    with torch.inference_mode():
        found = predict(network, network(images), (96, 128), threshold=0.1)
    assert found.scores.dtype == torch.float32
    assert found.slots.min() >= 1 and found.slots.max() <= 22


def test_forward_and_head_export_as_static_graphs():
    network = small()
    images = torch.zeros(1, 3, 96, 128)
    raw = network(images)
    exported = torch.export.export(network, (images,)).module()(images)
    assert exported.keys() == raw.keys()
    assert raw["features"].shape == (1, 16, 12, 16)
    attention = torch.zeros(1, 3, 12, 16)
    head = torch.export.export(network.panoptic_head, (raw["features"], attention)).module()
    assert head(raw["features"], attention).shape == (1, 3 + 2 + 2, 12, 16)


def test_a_map_at_a_quarter_sees_what_is_thin():
    network = small(stride=4, loss_stride=2)
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        raw = network(images)
    assert raw["features"].shape[-2:] == (16, 24)
    anchors = 9 * sum(-(-64 // s) * -(-96 // s) for s in (8, 16, 32, 64, 128))
    assert raw["class_logits"].shape[1] == anchors  # boxes still begin at P3
    boxes = torch.tensor([[[8.0, 8.0, 24.0, 40.0]]])
    (mask,) = network.attention_masks(boxes, torch.ones(1, 1, dtype=torch.bool), (16, 24))[0]
    rows, columns = torch.nonzero(mask, as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 9, 2, 5)


@pytest.mark.parametrize("settings", [{"stride": 16}, {"stride": 4, "loss_stride": 8}])
def test_strides_that_do_not_fit_are_refused(settings):
    with pytest.raises(ValueError, match="stride is"):
        small(**settings)
