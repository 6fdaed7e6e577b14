"""Label encoding and the class table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from panoptic_ros.prediction import (
    LABEL_DIVISOR,
    Category,
    PanopticPrediction,
    Segment,
    check_categories,
    find_categories,
)

ROAD = Category(7, "road", False, (128, 64, 128))
CAR = Category(200, "car", True, (0, 0, 142))


def segment(identifier, category, score=1.0):
    return Segment(
        identifier, category.id, category.name, category.is_thing, score, 1, (0, 0, 1, 1), (0, 0)
    )


def test_semantic_and_instances_follow_from_the_labels():
    labels = np.array([[7 * 256, 200 * 256 + 3], [200 * 256, 0]], np.uint16)
    prediction = PanopticPrediction(
        labels,
        (segment(200 * 256 + 3, CAR), segment(200 * 256, CAR), segment(7 * 256, ROAD)),
        (ROAD, CAR),
    )
    assert LABEL_DIVISOR == 256
    assert prediction.semantic().tolist() == [[7, 200], [200, 0]]
    assert prediction.semantic().dtype == np.uint8
    # instance 0 of a thing class is what did not fit into 255 instances: not an instance
    assert [s.id for s in prediction.instances] == [200 * 256 + 3]


def test_mask_of_classes_and_scores_of_pixels():
    labels = np.array([[7 * 256, 200 * 256 + 3], [200 * 256, 0]], np.uint16)
    prediction = PanopticPrediction(
        labels,
        (segment(200 * 256 + 3, CAR, 0.6), segment(200 * 256, CAR, 0.2), segment(7 * 256, ROAD)),
        (ROAD, CAR),
    )
    assert prediction.mask([200]).tolist() == [[0, 255], [255, 0]]
    assert prediction.mask([7, 200]).tolist() == [[255, 255], [255, 0]]
    assert prediction.mask([]).dtype == np.uint8 and not prediction.mask([]).any()
    assert prediction.confidence_or_scores().tolist() == [[255, 153], [51, 0]]
    own = np.full((2, 2), 9, np.uint8)
    assert replace(prediction, confidence=own).confidence_or_scores() is own


def test_categories_are_found_by_name_or_id():
    assert find_categories([ROAD, CAR], ["car", "7"]) == (200, 7)
    with pytest.raises(ValueError, match=r"no class 'cat', '8'; there are: road \(7\), car"):
        find_categories([ROAD, CAR], ["cat", "road", "8"])


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([], "at least one"),
        ([Category(0, "void", False, (0, 0, 0))], "1..255"),
        ([Category(256, "far", False, (0, 0, 0))], "1..255"),
        ([ROAD, Category(7, "lane", False, (1, 1, 1))], "given twice"),
    ],
)
def test_class_tables_that_cannot_be_encoded_are_refused(categories, message):
    with pytest.raises(ValueError, match=message):
        check_categories(categories)
