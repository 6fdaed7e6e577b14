"""Things pasted from one image into another."""

from __future__ import annotations

import pytest
import torch

from panoptic_ros.data.copy_paste import paste_things
from panoptic_ros.data.targets import compact_target

ROAD, CAR, PERSON = 1, 2, 3


def sample(color, *boxes):
    """A road with things: (class, x1, y1, x2, y2) each."""
    slots = torch.ones(40, 60, dtype=torch.int64)
    for number, (_, x1, y1, x2, y2) in enumerate(boxes, start=2):
        slots[y1:y2, x1:x2] = number
    classes = torch.tensor([ROAD, *(box[0] for box in boxes)])
    nothing = torch.zeros(len(classes), dtype=torch.bool)
    image = torch.full((3, 40, 60), color, dtype=torch.uint8)
    return image, compact_target(slots, classes, classes > ROAD, nothing)


def test_a_pasted_person_hides_half_a_car():
    image, target = sample(50, (CAR, 10, 10, 30, 20))
    other = sample(200, (PERSON, 20, 5, 40, 25))
    torch.manual_seed(1)
    for _ in range(20):  # how many are pasted is random
        pasted, truth = paste_things(image, target, *other, at_most=1)
        if len(truth.class_ids) == 3:
            break
    assert truth.class_ids.tolist() == [ROAD, CAR, PERSON]
    assert truth.boxes.tolist() == [[0, 0, 60, 40], [10, 10, 20, 20], [20, 5, 40, 25]]
    assert pasted[0, 15, 30] == 200 and pasted[0, 15, 15] == 50
    assert 50 < pasted[0, 15, 20] < 200  # the edge


def test_what_is_covered_is_gone():
    image, target = sample(50, (CAR, 22, 10, 30, 20))
    torch.manual_seed(0)
    found = {
        tuple(
            paste_things(image, target, *sample(9, (PERSON, 20, 5, 40, 25)), 1)[
                1
            ].class_ids.tolist()
        )
        for _ in range(20)
    }
    assert found == {(ROAD, CAR), (ROAD, PERSON)}


def test_an_image_without_things_gives_nothing():
    image, target = sample(50, (CAR, 22, 10, 30, 20))
    pasted, truth = paste_things(image, target, *sample(9), 5)
    assert torch.equal(pasted, image) and torch.equal(truth.slots, target.slots)


def test_sizes_must_agree():
    image, target = sample(50)
    with pytest.raises(ValueError, match="crop_size"):
        paste_things(image, target, image[:, 1:], target, 1)
