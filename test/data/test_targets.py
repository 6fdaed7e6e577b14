from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import masks_to_boxes

from panoptic_ros.data.targets import compact_target, measure_segments, target_from_ids
from panoptic_ros.prediction import Category

CATEGORIES = (Category(2, "road", False, (0, 0, 0)), Category(5, "car", True, (0, 0, 0)))
IDS = np.array([[0, 900, 900], [7, 7, 900], [7, 7, 30]])
SEGMENTS = [
    {"id": 900, "category_id": 5, "iscrowd": 0},
    {"id": 7, "category_id": 2},
    {"id": 30, "category_id": 5, "iscrowd": 1},
    {"id": 31, "category_id": 5},
]


def test_target_of_a_small_map():
    target = target_from_ids(IDS, SEGMENTS, CATEGORIES)
    assert target.slots.tolist() == [[0, 3, 3], [1, 1, 3], [1, 1, 2]]
    assert target.class_ids.tolist() == [2, 5, 5]  # by rising id; 31 has no pixel
    assert target.is_thing.tolist() == [False, True, True]
    assert target.is_crowd.tolist() == [False, True, False]
    assert target.boxes.tolist() == [[0, 1, 2, 3], [2, 2, 3, 3], [1, 0, 3, 2]]
    assert target.slots.dtype == target.class_ids.dtype == torch.int64
    assert target.boxes.dtype == torch.float32


def test_unlisted_ids_and_unknown_categories_are_refused():
    with pytest.raises(ValueError, match=r"ids \[30\] of the map"):
        target_from_ids(IDS, SEGMENTS[:2], CATEGORIES)
    with pytest.raises(ValueError, match=r"category ids \[9\]"):
        target_from_ids(IDS, [*SEGMENTS, {"id": 1, "category_id": 9}], CATEGORIES)


def test_map_of_void_alone():
    target = target_from_ids(np.zeros((2, 3), int), [], CATEGORIES)
    assert target.slots.tolist() == [[0] * 3] * 2
    assert target.boxes.shape == (0, 4)


def test_measures_equal_those_of_the_masks():
    slots = torch.randint(0, 6, (17, 23), generator=torch.Generator().manual_seed(1))
    areas, boxes = measure_segments(slots, 5)
    masks = slots == torch.arange(1, 6)[:, None, None]
    assert torch.equal(areas, masks.sum((1, 2)))
    inclusive = masks_to_boxes(masks)
    assert torch.equal(boxes.float(), inclusive + torch.tensor([0, 0, 1, 1]))


def test_compact_target_drops_and_renumbers():
    slots = torch.tensor([[3, 3], [0, 1]])
    target = compact_target(
        slots, torch.tensor([4, 5, 6]), torch.ones(3).bool(), torch.tensor([False, True, True])
    )
    assert target.slots.tolist() == [[2, 2], [0, 1]]
    assert target.class_ids.tolist() == [4, 6]
    assert target.is_crowd.tolist() == [False, True]
