"""EPSNet: counts, attention and suppression against their definitions, merging, batches."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import box_iou

from panoptic_ros.networks.epsnet.detection import fast_nms
from panoptic_ros.networks.epsnet.heads import CrossLayerAttention
from panoptic_ros.networks.epsnet.network import EPSNet
from panoptic_ros.truth import FrameSize, PredictionOptions

OPTIONS = PredictionOptions(score_threshold=0.2)


def build(things, stuff, **settings):
    return EPSNet(range(1, things + 1), range(things + 1, things + stuff + 1), **settings)


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    network = build(
        3, 4, backbone="resnet18_half", freeze_norm=False, channels=32, prototypes=8
    ).eval()
    torch.nn.init.normal_(network.instance_head.classes.weight, std=0.1)
    return network


@pytest.mark.parametrize(
    ("backbone", "parameters"), [("resnet101", 51_313_759), ("resnet50", 32_321_631)]
)
def test_parameters(backbone, parameters):
    with torch.device("meta"):
        network = build(80, 53, backbone=backbone)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_multiply_adds_at_550():
    with torch.device("meta"):
        network, image = build(80, 53).eval(), torch.zeros(1, 3, 550, 550)
    with FlopCounterMode(display=False) as counter:
        raw = network(image)
    assert counter.get_total_flops() / 2 == pytest.approx(91.4e9, rel=0.02)
    assert raw["class_logits"].shape == (1, 19_248, 81)
    assert raw["prototypes"].shape == (1, 32, 138, 138)


def test_attention_is_the_papers_equations():
    """Equations 2 to 5 written out: scores without scaling, softmax over the source."""
    torch.manual_seed(1)
    fusion = CrossLayerAttention(8)
    features = [torch.randn(2, 8, h, w) for h, w in ((6, 7), (3, 4), (2, 2), (1, 1))]
    z = features[0]
    theta = fusion.query(features[0]).flatten(2)
    for source in features[:3]:
        scores = torch.einsum("bci,bcj->bij", theta, fusion.key(source).flatten(2))
        value = fusion.value(source).flatten(2)
        summed = torch.einsum("bij,bcj->bci", scores.softmax(-1), value)
        z = z + fusion.out(summed.view(2, 4, 6, 7))
    torch.testing.assert_close(fusion(features), z)


def detections_by_loops(raw, threshold):
    """Fast NMS class by class, box by box: {(class, anchor): score}."""
    probability = raw["class_logits"][0].softmax(-1)[:, 1:]
    usable = torch.nonzero(probability.amax(1) > 0.05).flatten().tolist()
    anchors = raw["anchors"][0]
    deltas = raw["box_deltas"][0]
    centers = anchors[:, :2] + 0.1 * deltas[:, :2] * anchors[:, 2:]
    sides = anchors[:, 2:] * torch.exp(0.2 * deltas[:, 2:])
    boxes = torch.cat((centers - sides / 2, centers + sides / 2), 1)
    found = {}
    for label in range(probability.shape[1]):
        ranked = sorted(usable, key=lambda a: -probability[a, label].item())[:200]
        iou = box_iou(boxes[ranked], boxes[ranked])
        for j, anchor in enumerate(ranked):
            score = probability[anchor, label].item()
            if score > threshold and not any(iou[i, j] > 0.5 for i in range(j)):
                found[label, anchor] = score
    best = sorted(found.items(), key=lambda item: -item[1])[:100]
    return dict(best), boxes


def test_fast_nms_equals_loops(small):
    torch.manual_seed(3)
    with torch.inference_mode():
        raw = small(torch.randn(1, 3, 264, 288))
        raw["class_logits"] = 2.5 * torch.randn_like(raw["class_logits"])
        found = fast_nms(raw, 0.6)
    expected, boxes = detections_by_loops(raw, 0.6)
    used = int((found.scores > 0).sum())
    assert used == len(expected) > 20
    got = zip(found.labels[0].tolist(), found.scores[0].tolist(), found.boxes[0], strict=True)
    for label, score, box in list(got)[:used]:
        anchor = int((boxes - box).abs().amax(1).argmin())
        assert expected[label, anchor] == pytest.approx(score)


def hand_made(network, instance=True):
    """One prototype that is high on the left half, one that is high everywhere."""
    prototypes = torch.zeros(1, 8, 16, 16)
    prototypes[0, 0, :, :8] = 4.0
    prototypes[0, 1] = 1.0
    anchors = torch.tensor([[[0.25, 0.5, 0.4, 0.6], [0.75, 0.5, 0.4, 0.6]]])
    logits = torch.full((1, 2, 4), -9.0)
    logits[0, :, 0] = 9.0
    if instance:
        logits[0, 0, 2], logits[0, 0, 0] = 9.0, -9.0
    coefficients = torch.zeros(1, 2, 8)
    coefficients[0, :, 0], coefficients[0, :, 1] = 2.0, -2.0
    semantic = torch.zeros(1, 8, 6)
    semantic[0, 1] = torch.tensor([50.0, 1.0, 2.0, 0.0, 0.0, 2.5])  # background, stuff, other
    return {
        "class_logits": logits,
        "box_deltas": torch.zeros(1, 2, 4),
        "coefficients": coefficients,
        "anchors": anchors,
        "prototypes": prototypes,
        "semantic_coefficients": semantic,
    }


def test_masks_are_cropped_and_other_gives_way_to_stuff_under_instances(small):
    (segments,) = small.predict(hand_made(small), [FrameSize((64, 64), (64, 64))], OPTIONS)
    label = segments.class_ids[(segments.slots - 1).clamp(min=0)] * (segments.slots > 0)
    # box: x .05...45, y .2...8 of 64 pixels, a cell of 4 pixels wider on each side
    assert label[32, 16] == 2
    assert label[32, 34] == 0 and label[4, 16] == 0
    # Where there is no instance, "other" (2.5) wins over the stuff and gives void; the untrained
    # background (50) never counts.
    assert label[2, 60] == 0
    assert set(label.unique().tolist()) == {0, 2}
    raw = hand_made(small)
    raw["semantic_coefficients"][0, 1, 5] = 1.5  # now stuff class 2 of 4 wins everywhere
    (segments,) = small.predict(raw, [FrameSize((64, 64), (64, 64))], OPTIONS)
    label = segments.class_ids[(segments.slots - 1).clamp(min=0)] * (segments.slots > 0)
    assert label[32, 16] == 2 and label[2, 60] == 3 + 2


def test_without_instances_the_untrained_background_stays_out(small):
    """The published code leaves its raw logit in the argmax of such images."""
    raw = hand_made(small, instance=False)
    raw["semantic_coefficients"][0, 1, 5] = 1.5
    (segments,) = small.predict(raw, [FrameSize((64, 64), (64, 64))], OPTIONS)
    stuff_2 = segments.slots.unique()
    assert len(stuff_2) == 1
    assert segments.class_ids[stuff_2 - 1].tolist() == [5]


def test_batch_equals_images_alone(small):
    torch.manual_seed(4)
    images = torch.randn(3, 3, 264, 320)
    sizes = [FrameSize((264, 320), size) for size in ((264, 320), (90, 120), (300, 200))]
    with torch.inference_mode():
        raw = small(images)
        raw["class_logits"] = 2 * torch.randn_like(raw["class_logits"])
        together = small.predict(raw, sizes, OPTIONS)
        for i, size in enumerate(sizes):
            one = {name: value[i : i + 1] for name, value in raw.items()}
            (alone,) = small.predict(one, [size], OPTIONS)
            assert alone.slots.shape == size.output
            assert (alone.slots == together[i].slots).all()
            logits = small(images[i : i + 1])["box_deltas"]
            torch.testing.assert_close(logits, one["box_deltas"], rtol=1e-3, atol=1e-4)


def test_frozen_norms_stay_as_loaded():
    with torch.device("meta"):
        frozen, trained = build(2, 2), build(2, 2, freeze_norm=False)
    for network, training in ((frozen.train(), False), (trained.train(), True)):
        norm = network.backbone.bn1
        assert norm.training is training
        assert norm.weight.requires_grad is training


def test_too_small_images_are_refused(small):
    with pytest.raises(ValueError, match="more than 256 pixels"):
        small(torch.zeros(1, 3, 128, 320))
