"""Predictions as messages, without DDS."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from std_msgs.msg import Header

from panoptic_ros.prediction import Category, PanopticPrediction, Segment, Track
from panoptic_ros.ros import messages

HEADER = Header(frame_id="camera")
HEADER.stamp.sec = 42
CATEGORIES = (Category(7, "road", False, (128, 64, 128)), Category(26, "car", True, (0, 0, 255)))
CAR = Segment(26 * 256 + 3, 26, "car", True, 0.75, 6, (4, 1, 3, 2), (5.0, 1.5))
OVERFLOWN = Segment(26 * 256, 26, "car", True, 0.5, 2, (0, 0, 2, 1), (0.5, 0.0))
ROAD = Segment(7 * 256, 7, "road", False, 1.0, 30, (0, 0, 10, 4), (4.5, 1.5))
PREDICTION = PanopticPrediction(
    np.arange(40, dtype=np.uint16).reshape(4, 10) * 1000,
    (CAR, OVERFLOWN, ROAD),
    CATEGORIES,
    overflow=5,
)


@pytest.mark.parametrize(
    ("encoding", "shape", "kind"),
    [("16UC1", (4, 10), np.uint16), ("mono8", (3, 5), np.uint8), ("rgb8", (3, 5, 3), np.uint8)],
)
@pytest.mark.parametrize("view", [False, True])
def test_image_message(encoding, shape, kind, view):
    image = np.random.default_rng(0).integers(0, 255, shape).astype(kind)
    message = messages.image_message(HEADER, encoding, image[:, ::-1] if view else image)
    assert message.header == HEADER and message.encoding == encoding
    assert (message.height, message.width) == shape[:2]
    assert message.step == image[0].nbytes and len(message.data) == image.nbytes
    assert message.is_bigendian == (sys.byteorder == "big")
    expected = image[:, ::-1] if view else image
    assert message.data.tobytes() == expected.tobytes()


def test_instances_are_things_with_a_number_of_their_own():
    message = messages.instances_message(HEADER, PREDICTION, "small", 0.5, {})
    assert message.header == HEADER
    assert (message.height, message.width, message.label_divisor) == (4, 10, 256)
    assert (message.model, message.inference_time, message.overflow) == ("small", 0.5, 5)
    (car,) = message.instances
    assert (car.id, car.class_id, car.class_name, car.score) == (CAR.id, 26, "car", 0.75)
    assert (car.area, car.center_x, car.center_y) == (6, 5.0, 1.5)
    roi = car.roi
    assert (roi.x_offset, roi.y_offset, roi.width, roi.height) == (4, 1, 3, 2)
    assert not roi.do_rectify


def test_what_is_not_tracked_has_no_number():
    (car,) = messages.instances_message(HEADER, PREDICTION, "small", 0.5, {}).instances
    assert (car.track_id, car.track_age) == (0, 0)
    assert (car.first_seen.sec, car.first_seen.nanosec) == (0, 0)


def test_tracks():
    tracked = replace(PREDICTION, tracks={CAR.id: Track(2**32 - 1, 30, 41_500_000_001)})
    (car,) = messages.instances_message(HEADER, tracked, "small", 0.5, {}).instances
    assert (car.id, car.track_id, car.track_age) == (CAR.id, 2**32 - 1, 30)
    assert (car.first_seen.sec, car.first_seen.nanosec) == (41, 500_000_001)


def test_categories():
    message = messages.categories_message(HEADER, "small", CATEGORIES)
    assert (message.header, message.model, message.label_divisor) == (HEADER, "small", 256)
    assert [(c.id, c.name, c.is_thing, tuple(c.color)) for c in message.categories] == [
        (7, "road", False, (128, 64, 128)),
        (26, "car", True, (0, 0, 255)),
    ]


def test_vision_msgs():
    pytest.importorskip("vision_msgs", reason="vision_msgs is not installed")
    info = messages.label_info_message(HEADER, CATEGORIES)
    assert [(c.class_id, c.class_name) for c in info.class_map] == [(7, "road"), (26, "car")]
    detections = messages.detections_message(HEADER, PREDICTION)
    assert detections.header == HEADER
    (car,) = detections.detections
    assert car.header == HEADER and car.id == str(CAR.id)
    center, box = car.bbox.center.position, car.bbox
    # The edges of 3x2 pixels from (4, 1) are 4 and 7, 1 and 3.
    assert (center.x, center.y, box.size_x, box.size_y) == (5.5, 2.0, 3.0, 2.0)
    (result,) = car.results
    assert (result.hypothesis.class_id, result.hypothesis.score) == ("26", 0.75)
    tracked = replace(PREDICTION, tracks={CAR.id: Track(17, 1, 0)})
    assert [d.id for d in messages.detections_message(HEADER, tracked).detections] == ["17"]
