"""The confidence of pixels, on maps small enough to work out by hand."""

from __future__ import annotations

import math

import torch

from panoptic_ros.ops.segments import encode_segments
from panoptic_ros.truth import ClassLogits, SegmentMap

THINGS = torch.tensor([7])
SLOTS = torch.tensor([[1, 1, 2, 2], [0, 3, 2, 2]])
CLASSES = torch.tensor([7, 2, 5])  # a thing and two stuff classes
SCORES = torch.tensor([0.6, 1.0, 1.0])


def confidence(segments: SegmentMap, limit: int = 0) -> list[list[int]]:
    return encode_segments(segments, THINGS, limit, confidence=True).labels[1].tolist()


def test_without_logits_every_pixel_has_the_score_of_its_segment():
    assert confidence(SegmentMap(SLOTS, CLASSES, SCORES)) == [
        [153, 153, 255, 255],
        [0, 255, 255, 255],
    ]


def test_stuff_has_the_probability_of_its_class_between_the_cells():
    # Two cells, 1 x 2, each four pixels: class 2 has 0.5 in the first, 0.75 in the second.
    first, second = [0.0, 0.0], [math.log(3), 0.0]
    logits = torch.tensor([first, second]).T[:, None].contiguous()  # (C, 1, 2)
    evidence = ClassLogits(logits, torch.tensor([2, 5]), (1.0, 2.0))
    # Pixel centres at 0.25, 0.75, 1.25, 1.75 cells; cell centres at 0.5 and 1.5.
    of_class_2 = [0.5, 0.5625, 0.6875, 0.75]
    assert confidence(SegmentMap(SLOTS, CLASSES, SCORES, evidence)) == [
        [153, 153, round(255 * of_class_2[2]), round(255 * of_class_2[3])],
        [0, round(255 * (1 - of_class_2[1])), round(255 * of_class_2[2]), 191],
    ]


def test_padding_is_left_out():
    logits = torch.zeros(2, 1, 4)
    logits[0, 0] = torch.tensor([0.0, math.log(3), 50.0, 50.0])  # the last two are padding
    evidence = ClassLogits(logits, torch.tensor([2, 5]), (1.0, 2.0))
    whole = torch.full((1, 2), 2)
    assert confidence(SegmentMap(whole, CLASSES, SCORES, evidence)) == [[128, 191]]


def test_stuff_below_the_limit_is_void_without_confidence():
    assert confidence(SegmentMap(SLOTS, CLASSES, SCORES), limit=2)[1] == [0, 0, 255, 255]
