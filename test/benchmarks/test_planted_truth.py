"""What Panoptic FCN shows of its own truth: blocks on the grid of its masks, and others."""

from __future__ import annotations

from dataclasses import replace

import torch

from benchmarks.overfit import CONFIGURATIONS
from benchmarks.planted_truth import best_quality
from panoptic_ros.data.targets import compact_target
from panoptic_ros.model_zoo import load_config

SIZE = (64, 96)


def quality(*boxes):
    """PQ of cars (y1, x1, y2, x2) on a road under the sky."""
    config = load_config(CONFIGURATIONS / "panoptic_fcn_small.yaml")
    config = replace(config, input=replace(config.input, resolution=SIZE))
    slots = torch.ones(SIZE, dtype=torch.long)
    slots[32:] = 2
    for number, (y1, x1, y2, x2) in enumerate(boxes, start=3):
        slots[y1:y2, x1:x2] = number
    class_ids = torch.tensor([1, 4, *[9] * len(boxes)])
    truth = compact_target(slots, class_ids, class_ids == 9, torch.zeros(len(class_ids)).bool())
    return best_quality(config, [(torch.zeros(3, *SIZE, dtype=torch.uint8), truth)])["All"]


def test_what_lies_on_the_grid_is_shown_nearly_as_it_is():
    found = quality((24, 8, 48, 40), (40, 56, 56, 88))
    assert found["rq"] == 1 and found["pq"] > 0.97


def test_what_is_thinner_than_a_cell_is_lost():
    assert quality((24, 8, 48, 40), (40, 56, 41, 88))["rq"] < 1


def test_two_things_of_a_class_in_one_cell_of_every_level_are_one():
    """At 1/8 both have their centre in the same cell: a ring around a block."""
    assert quality((20, 20, 44, 60), (28, 36, 36, 44))["rq"] < 1
