"""EPSNet's boxes and losses against hand-made cases and loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import box_convert, box_iou

from panoptic_ros.networks.epsnet.boxes import (
    crop_window,
    decode_boxes,
    encode_boxes,
    make_anchors,
    pixel_boxes,
)
from panoptic_ros.networks.epsnet.network import EPSNet
from panoptic_ros.networks.epsnet.training import (
    Boxes,
    _semantic_target,
    class_loss,
    mask_loss,
    match_anchors,
    semantic_loss,
)
from panoptic_ros.truth import PanopticTarget, TargetBatch


def test_anchors_of_a_cell():
    anchors = make_anchors([(1, 2)], [0.2], (1.0, 0.5, 2.0), False, torch.device("cpu"))
    root = math.sqrt(2)
    expected = [[0.25, 0.5, 0.2, 0.2], [0.25, 0.5, 0.2 / root, 0.2 * root]]
    torch.testing.assert_close(anchors[:2], torch.tensor(expected))
    torch.testing.assert_close(anchors[3], torch.tensor([0.75, 0.5, 0.2, 0.2]))
    square = make_anchors([(1, 2)], [0.2], (1.0, 0.5, 2.0), True, torch.device("cpu"))
    torch.testing.assert_close(square[1], torch.tensor([0.25, 0.5, 0.2 / root, 0.2 / root]))


def test_decoding_undoes_encoding():
    anchors = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.2, 0.3, 0.1, 0.1]])
    boxes = torch.tensor([[0.1, 0.2, 0.5, 0.9], [0.15, 0.2, 0.3, 0.45]])
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes, anchors), anchors), boxes)
    # centre moved by .1 * 1 * width; width times exp(.2)
    moved = decode_boxes(torch.tensor([[1.0, 0.0, 1.0, 0.0]]), anchors[:1])[0]
    assert moved[2] - moved[0] == pytest.approx(0.2 * math.exp(0.2))
    assert (moved[2] + moved[0]) / 2 == pytest.approx(0.52)


def test_windows_and_pixels():
    boxes = torch.tensor([[0.25, 0.5, 0.5, 0.75], [0.9, 0.9, 0.1, -0.5]])
    window = crop_window(boxes, (8, 8))
    rows = torch.nonzero(window[0].any(1)).flatten().tolist()
    columns = torch.nonzero(window[0].any(0)).flatten().tolist()
    assert rows == [3, 4, 5, 6] and columns == [1, 2, 3, 4]
    assert pixel_boxes(boxes, (10, 21)).tolist() == [[5, 5, 10, 7], [2, 0, 18, 9]]


NONE = Boxes(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))


def test_matching():
    """IoU with the box (.2, .2, .6, .6), by hand: 1, .45, .25; the last is in a crowd."""
    box = torch.tensor([[0.2, 0.2, 0.6, 0.6]])
    anchors = torch.tensor(
        [
            [0.4, 0.4, 0.4, 0.4],  # the box itself
            [0.4, 0.29, 0.4, 0.18],  # .18 / .4 of it: neutral
            [0.4, 0.25, 0.4, 0.1],  # a quarter: background
            [0.9, 0.9, 0.1, 0.1],  # in the crowd
        ]
    )
    crowd = torch.tensor([[0.8, 0.8, 1.0, 1.0]])
    here, classes = torch.tensor([0]), torch.tensor([6])
    matches = match_anchors(anchors, Boxes(box, here), classes, Boxes(crowd, here), 1)
    assert matches.classes.tolist() == [[7, -1, 0, -1]]
    # In the second of three images; the crowd is in the third.
    there = Boxes(box, torch.tensor([1])), classes, Boxes(crowd, torch.tensor([2]))
    matches = match_anchors(anchors, *there, 3)
    assert matches.classes.tolist() == [[0] * 4, [7, -1, 0, 0], [0, 0, 0, -1]]


def test_every_instance_gets_its_best_anchor_and_the_later_one_wins():
    anchors = torch.tensor([[0.5, 0.5, 1.0, 1.0], [0.1, 0.1, 0.02, 0.02]])
    boxes = torch.tensor([[0.4, 0.4, 0.5, 0.5], [0.5, 0.5, 0.6, 0.7]])
    both = Boxes(boxes, torch.tensor([0, 0]))
    matches = match_anchors(anchors, both, torch.tensor([0, 1]), NONE, 1)
    assert matches.classes.tolist() == [[2, 0]]
    assert matches.instances[0, 0] == 1


def test_matches_of_many_instances_are_those_of_a_loop():
    generator = torch.Generator().manual_seed(4)
    anchors = torch.rand(200, 4, generator=generator) * 0.5 + 0.1
    corners = torch.rand(30, 2, generator=generator) * 0.6
    boxes = torch.cat((corners, corners + 0.05 + 0.3 * torch.rand(30, 2, generator=generator)), 1)
    classes = torch.randint(0, 3, (30,), generator=generator)
    iou = box_iou(boxes, box_convert(anchors, "cxcywh", "xyxy"))
    overlap, best = iou.max(0)
    for instance, anchor in enumerate(iou.argmax(1).tolist()):
        overlap[anchor], best[anchor] = 2.0, instance
    expected = [
        1 + int(classes[i]) if o >= 0.5 else -1 if o >= 0.4 else 0
        for o, i in zip(overlap, best, strict=True)
    ]
    matches = match_anchors(anchors, Boxes(boxes, torch.zeros(30).long()), classes, NONE, 1)
    assert matches.classes[0].tolist() == expected
    assert matches.instances[0].tolist() == best.tolist()
    assert len(set(iou.argmax(1).tolist())) < 30  # some share their best anchor


def test_class_loss_takes_three_hard_negatives_per_positive():
    torch.manual_seed(0)
    logits = torch.randn(12, 4)
    classes = torch.tensor([2, 0, 0, -1, 0, 0, 0, 0, 0, -1, 0, 0])
    log_p = logits.log_softmax(1)
    background = [(-log_p[a, 0].item()) for a in range(12) if classes[a] == 0]
    expected = -log_p[0, 2].item() + sum(sorted(background)[-3:])
    assert class_loss(logits[None], classes[None]).item() == pytest.approx(expected, rel=1e-5)
    nothing = torch.zeros(12, dtype=torch.long)
    both = class_loss(torch.stack((logits, logits)), torch.stack((nothing, classes)))
    assert both.item() == pytest.approx(expected, rel=1e-5)  # each image has its own negatives


def test_mask_loss_equals_loops():
    torch.manual_seed(0)
    prototypes, coefficients = torch.randn(3, 8, 8), torch.randn(2, 3)
    masks = torch.zeros(1, 32, 32, dtype=torch.bool)
    masks[0, 8:20, 4:16] = True
    boxes = torch.tensor([[4.0, 8, 16, 20]]).repeat(2, 1) / 32
    total = 0.0
    for c in coefficients:
        inner = 0.0
        for y in range(1, 6):  # cells 2..4 and one more on each side
            for x in range(0, 5):
                p = torch.sigmoid((c * prototypes[:, y, x]).sum())
                inside = 2 <= y < 5 and 1 <= x < 4
                inner -= torch.log(p if inside else 1 - p).item()
        total += inner / (3 * 3)
    loss = mask_loss(prototypes, coefficients, boxes, masks, torch.tensor([0, 0]))
    assert loss.item() == pytest.approx(total, rel=1e-5)


def test_semantic_loss_leaves_void_out_of_the_sum_but_in_the_mean():
    torch.manual_seed(0)
    raw = {
        "semantic_coefficients": torch.randn(1, 2, 3),
        "prototypes": torch.rand(1, 2, 4, 4),
    }
    truth = torch.zeros(1, 4, 4, dtype=torch.long)
    truth[0, 0] = 2
    logits = torch.einsum("kc,khw->chw", raw["semantic_coefficients"][0], raw["prototypes"][0])
    expected = sum(-F.log_softmax(logits[:, 0, x], 0)[2] for x in range(4)) / 16
    torch.testing.assert_close(semantic_loss(raw, truth), expected)


def test_semantic_loss_counts_classes_by_weight():
    raw = {"semantic_coefficients": torch.zeros(1, 2, 4), "prototypes": torch.zeros(1, 2, 4, 4)}
    truth = torch.tensor([0, 1, 2, 3]).repeat(4, 1)[None]  # log 4 everywhere; a quarter is void
    loss = semantic_loss(raw, truth, torch.tensor([9.0, 1, 2, 5]))
    assert loss.item() == pytest.approx(math.log(4) * (1 + 2 + 5) / 4)


def target(segments, size=(264, 264)):
    """Segments: (class id, is thing, is crowd, box)."""
    slots = torch.zeros(size, dtype=torch.long)
    for number, (_, _, _, (x1, y1, x2, y2)) in enumerate(segments, start=1):
        slots[y1:y2, x1:x2] = number
    ids, things, crowds, boxes = zip(*segments, strict=True)
    return PanopticTarget(
        slots,
        torch.tensor(ids),
        torch.tensor(things),
        torch.tensor(crowds),
        torch.tensor(boxes, dtype=torch.float32),
    )


@pytest.mark.parametrize("instances", [True, False])
def test_loss_is_finite_and_reaches_every_part(instances):
    torch.manual_seed(0)
    network = EPSNet(
        [9], [1, 2], backbone="resnet18_half", freeze_norm=False, channels=32, prototypes=8
    )
    segments = [(1, False, False, (0, 0, 264, 264)), (9, True, True, (200, 200, 260, 260))]
    if instances:
        segments.append((9, True, False, (40, 40, 120, 160)))
    truth = target(segments)
    terms = network.loss(torch.randn(2, 3, 264, 264), [truth, truth])
    assert set(terms) == {"classes", "boxes", "masks", "semantic"}
    sum(terms.values()).backward()
    untouched = [n for n, p in network.named_parameters() if p.grad is None]
    assert all(torch.isfinite(v) for v in terms.values()) and not untouched
    assert bool(terms["boxes"] > 0) is instances


def test_semantics_count_twice_as_in_the_paper_or_as_told():
    torch.manual_seed(0)
    network = EPSNet([9], [1, 2], backbone="resnet18_half", channels=32, prototypes=8).eval()
    truth = target([(1, False, False, (0, 0, 264, 264)), (9, True, False, (40, 40, 120, 160))])
    image = torch.randn(1, 3, 264, 264)
    index = _semantic_target(network, TargetBatch.of([truth]))
    semantic = semantic_loss(network(image), index)
    of_paper = network.loss(image, [truth])
    torch.testing.assert_close(of_paper["semantic"], 2 * semantic)
    network.semantic_weight = 8.0
    of_small = network.loss(image, [truth])
    torch.testing.assert_close(of_small["semantic"], 8 * semantic)
    torch.testing.assert_close(of_small["boxes"], of_paper["boxes"])


def test_semantic_target_counts_crowds_as_other():
    network = EPSNet([9], [1, 2], backbone="resnet18_half", channels=32, prototypes=8)
    truth = target([(2, False, False, (0, 0, 10, 10)), (9, True, True, (10, 0, 20, 10))])
    index = _semantic_target(network, TargetBatch.of([truth]))[0]
    assert (index[5, 5], index[5, 15], index[50, 50]) == (2, 3, 0)
