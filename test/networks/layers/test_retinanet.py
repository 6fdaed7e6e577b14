"""The detector against torchvision's RetinaNet with the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from panoptic_ros.networks.layers.matching import image_numbers
from panoptic_ros.networks.layers.retinanet import STRIDES, RetinaNet

CHANNELS, CLASSES, SIZE = 16, 3, (128, 256)


@pytest.fixture
def detectors():
    """Our detector, torchvision's, a pyramid for two images and torchvision's anchors."""
    torch.manual_seed(0)
    ours = RetinaNet(CLASSES, CHANNELS, CHANNELS, candidates=200, smooth_l1_beta=0.0)
    for head in (ours.classification, ours.regression):
        for layer in head[::2]:
            nn.init.normal_(layer.weight, std=0.08)
    nn.init.constant_(ours.classification[-1].bias, -2.0)
    backbone = nn.Identity()
    backbone.out_channels = CHANNELS
    theirs = TorchvisionRetinaNet(
        backbone,
        CLASSES,
        anchor_generator=AnchorGenerator(
            tuple(tuple(4 * s * 2 ** (i / 3) for i in range(3)) for s in STRIDES),
            ((0.5, 1.0, 2.0),) * len(STRIDES),
        ),
        detections_per_img=60,
        topk_candidates=200,
    )
    pairs = [(ours.classification, theirs.head.classification_head, "cls_logits")]
    pairs += [(ours.regression, theirs.head.regression_head, "bbox_reg")]
    for mine, other, predictor in pairs:
        for i in range(4):
            other.conv[i][0].load_state_dict(mine[2 * i].state_dict())
        getattr(other, predictor).load_state_dict(mine[-1].state_dict())
    pyramid = [torch.randn(2, CHANNELS, SIZE[0] // s, SIZE[1] // s) for s in STRIDES]
    images = ImageList(torch.zeros(2, 3, *SIZE), [SIZE, SIZE])
    return ours, theirs, pyramid, theirs.anchor_generator(images, pyramid)


def test_anchors_and_dense_outputs_are_torchvisions(detectors):
    ours, theirs, pyramid, anchors = detectors
    logits, deltas = ours(pyramid)
    expected = theirs.head(pyramid)
    torch.testing.assert_close(logits, expected["cls_logits"])
    torch.testing.assert_close(deltas, expected["bbox_regression"])
    assert torch.equal(ours.anchors(SIZE, torch.device("cpu")), anchors[0])


@torch.no_grad()
def test_detections_are_torchvisions(detectors):
    ours, theirs, pyramid, anchors = detectors
    logits, deltas = ours(pyramid)
    limits = torch.tensor([[256.0, 128.0], [200.0, 100.0]])
    found = ours.detect(logits, deltas, SIZE, limits, slots=60)
    levels = [9 * p.shape[2] * p.shape[3] for p in pyramid]
    expected = theirs.postprocess_detections(
        {"cls_logits": logits.split(levels, 1), "bbox_regression": deltas.split(levels, 1)},
        [a.split(levels) for a in anchors],
        [(128, 256), (100, 200)],
    )
    for i, truth in enumerate(expected):
        area = (truth["boxes"][:, 2:] > truth["boxes"][:, :2]).all(1)  # ours drops what has none
        number = int(area.sum())
        assert number > 20
        assert found.labels[i, :number].tolist() == truth["labels"][area].tolist()
        torch.testing.assert_close(found.scores[i, :number], truth["scores"][area])
        torch.testing.assert_close(found.boxes[i, :number], truth["boxes"][area])


def test_losses_are_torchvisions(detectors):
    """Torchvision's box loss is L1, which smooth L1 is at beta 0."""
    ours, theirs, pyramid, anchors = detectors
    boxes = [torch.tensor([[10.0, 20, 90, 80], [100, 10, 120, 40], [0, 0, 250, 120]])]
    boxes += [torch.zeros(0, 4)]
    labels = [torch.tensor([0, 2, 1]), torch.zeros(0, dtype=torch.long)]
    logits, deltas = ours(pyramid)
    targets = [{"boxes": b, "labels": n} for b, n in zip(boxes, labels, strict=True)]
    outputs = {"cls_logits": logits, "bbox_regression": deltas}
    expected = theirs.compute_loss(targets, outputs, anchors)
    focal, distance = ours.loss(logits, deltas, SIZE, boxes, labels)
    torch.testing.assert_close(focal, expected["classification"])
    torch.testing.assert_close(distance, expected["bbox_regression"])


def test_matches_are_torchvisions():
    """Of many boxes in three images, the second without any."""
    generator = torch.Generator().manual_seed(1)
    detector = RetinaNet(1, 8, 8, depth=0)
    anchors = detector.anchors(SIZE, torch.device("cpu"))
    corners = 200 * torch.rand(24, 2, generator=generator)
    boxes = torch.cat((corners, corners + 4 + 90 * torch.rand(24, 2, generator=generator)), 1)
    of_image = [boxes[:20], boxes[:0], boxes[20:]]
    found = detector._match(boxes, image_numbers(of_image), 3, anchors)
    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)
    first, last = matcher(box_iou(boxes[:20], anchors)), matcher(box_iou(boxes[20:], anchors))
    assert torch.equal(found[0], first)
    assert found[1].eq(Matcher.BELOW_LOW_THRESHOLD).all()
    assert torch.equal(found[2], torch.where(last >= 0, last + 20, last))
    assert {-2, -1} < set(found[0].tolist())


def test_anchors_of_an_input_that_the_coarse_levels_do_not_divide():
    """At 96 x 160 P6 is 2 x 3 and P7 1 x 2; their strides stay 64 and 128."""
    detector = RetinaNet(1, 8, 8, depth=0)
    anchors = detector.anchors((96, 160), torch.device("cpu"))
    levels = [9 * h * w for h, w in ((12, 20), (6, 10), (3, 5), (2, 3), (1, 2))]
    assert anchors.shape == (sum(levels), 4)
    p6 = anchors.split(levels)[3].view(2, 3, 9, 4)
    center = (p6[..., :2] + p6[..., 2:]) / 2
    assert center[1, 2, 0].tolist() == [128, 64]
    # base size 4 * 64 at scales 1, 2^(1/3), 2^(2/3); ratios 1/2, 1, 2
    torch.testing.assert_close(p6[0, 0, 3], torch.tensor([-128.0, -128, 128, 128]))
    side = (p6[0, 0, :, 2:] - p6[0, 0, :, :2]).prod(1).sqrt()
    torch.testing.assert_close(side, 256 * 2 ** (torch.arange(9) % 3 / 3), rtol=0.01, atol=0)


def test_anchors_have_the_ratios_that_are_asked_for():
    detector = RetinaNet(2, 8, 8, depth=0, anchor_ratios=(1.0, 4.0))
    anchors = detector.anchors((64, 64), torch.device("cpu"))
    width, height = (anchors[:6, 2:] - anchors[:6, :2]).unbind(1)
    torch.testing.assert_close(
        height / width, torch.tensor([1.0] * 3 + [4.0] * 3), rtol=0.1, atol=0
    )
    torch.testing.assert_close(width[3] * height[3], torch.tensor(32.0**2))
    logits, deltas = detector([torch.randn(1, 8, n, n) for n in (8, 4, 2, 1, 1)])
    assert logits.shape == (1, len(anchors), 2) and deltas.shape == (1, len(anchors), 4)


def test_first_scores_are_the_prior():
    detector = RetinaNet(2, 8, 8)
    logits, _ = detector([torch.randn(1, 8, 2, 2)] * 5)
    torch.testing.assert_close(logits.sigmoid().mean(), torch.tensor(0.01), rtol=0, atol=1e-3)
