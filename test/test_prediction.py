"""Label encoding and the class table."""

from __future__ import annotations

import numpy as np
import pytest

from panoptic_ros.prediction import (
    LABEL_DIVISOR,
    Category,
    PanopticPrediction,
    Segment,
    check_categories,
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
