"""Reading recorded results, and matching them to frames."""

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from panoptic_ros.demo.results import RecordedResults, Result, match_results
from panoptic_ros.files.bag import BagError, BagFrame, message_types
from panoptic_ros.prediction import Category, PanopticPrediction, Track

TYPES = message_types()
LABELS = np.array([[256, 513, 0], [256, 513, 514]], np.uint16)


def make(type_name, /, **fields):
    package, _, kind = type_name.partition("/")
    return TYPES.types[f"{package}/msg/{kind}"](**fields)


def header(stamp):
    time = make("builtin_interfaces/Time", sec=stamp // 10**9, nanosec=stamp % 10**9)
    return make("std_msgs/Header", stamp=time, frame_id="front")


def label_message(stamp, labels, big_endian=False):
    """An image message whose rows are padded by four bytes."""
    height, width = labels.shape
    rows = np.full((height, 2 * width + 4), 0xEE, np.uint8)
    rows[:, : 2 * width] = labels.astype(">u2" if big_endian else "<u2").view(np.uint8)
    return make(
        "sensor_msgs/Image",
        header=header(stamp),
        height=height,
        width=width,
        encoding="16UC1",
        is_bigendian=int(big_endian),
        step=2 * width + 4,
        data=rows.reshape(-1),
    )


def instances_message(stamp, track=0):
    roi = make(
        "sensor_msgs/RegionOfInterest",
        x_offset=1,
        y_offset=0,
        width=1,
        height=2,
        do_rectify=False,
    )
    car = make(
        "panoptic_ros/PanopticInstance",
        id=513,
        class_id=2,
        class_name="car",
        score=0.5,
        area=2,
        roi=roi,
        center_x=1.0,
        center_y=0.5,
        track_id=track,
        track_age=3 * (track > 0),
        first_seen=make("builtin_interfaces/Time", sec=4 * (track > 0), nanosec=5 * (track > 0)),
        position=make("geometry_msgs/Point", x=1.0, y=2.0, z=3.0),
        size=make("geometry_msgs/Vector3", x=1.0, y=2.0, z=3.0),
    )
    return make(
        "panoptic_ros/PanopticInstanceArray",
        header=header(stamp),
        height=2,
        width=3,
        label_divisor=256,
        model="m",
        inference_time=0.25,
        overflow=0,
        instances=[car],
    )


def categories_message():
    color = np.array([1, 2, 3], np.uint8)
    car = make("panoptic_ros/PanopticCategory", id=2, name="car", is_thing=True, color=color)
    return make(
        "panoptic_ros/PanopticCategoryArray",
        header=header(1),
        model="m",
        label_divisor=256,
        categories=[car],
    )


def record(path, messages):
    """Write (topic, moment of receipt, message) to a bag."""
    connections = {}
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for topic, received, message in messages:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=TYPES)
            writer.write(connections[topic], received, TYPES.serialize_cdr(message, kind))
    return path


@pytest.mark.parametrize("big_endian", [False, True])
def test_results_are_put_together_by_stamp(tmp_path, big_endian):
    path = record(
        tmp_path / "labels",
        [
            ("/panoptic/categories", 10, categories_message()),
            ("/panoptic/labels", 20, label_message(5, LABELS, big_endian)),
            ("/panoptic/labels", 30, label_message(6, LABELS, big_endian)),
            ("/panoptic/instances", 40, instances_message(5)),
        ],
    )
    with RecordedResults(path) as results:
        first, second = results
        assert results.categories == (Category(2, "car", True, (1, 2, 3)),)
    assert (first.stamp, first.received, first.frame_id) == (5, 20, "front")
    assert np.array_equal(first.prediction.labels, LABELS)
    (car,) = first.prediction.instances
    assert (car.id, car.class_name, car.score, car.area) == (513, "car", 0.5, 2)
    assert (car.bbox, car.center) == ((1, 0, 1, 2), (1.0, 0.5))
    assert first.prediction.tracks == {}
    assert first.has_instances and first.inference_time == 0.25
    assert not second.has_instances and np.isnan(second.inference_time)


def test_tracks(tmp_path):
    path = record(
        tmp_path / "labels",
        [
            ("/panoptic/categories", 10, categories_message()),
            ("/panoptic/labels", 20, label_message(5, LABELS)),
            ("/panoptic/instances", 40, instances_message(5, track=17)),
        ],
    )
    with RecordedResults(path) as results:
        (result,) = results
    assert result.prediction.tracks == {513: Track(17, 3, 4_000_000_005)}


def test_a_recording_without_class_table_is_an_error(tmp_path):
    path = record(tmp_path / "labels", [("/panoptic/labels", 20, label_message(5, LABELS))])
    with pytest.raises(BagError, match="no class table"), RecordedResults(path):
        pass


def match(frames, results):
    """Return the stamps of matched results for the stamps of frames."""
    prediction = PanopticPrediction(LABELS, (), ())
    pairs = match_results(
        (BagFrame(stamp, 0, None) for stamp in frames),
        (Result(stamp, 0, "", prediction, 0.0, True) for stamp in results),
    )
    return [(frame.stamp, result.stamp if result else None) for frame, result in pairs]


def test_frames_without_result_are_told_apart():
    assert match([1, 2, 3, 4], [2, 4]) == [(1, None), (2, 2), (3, None), (4, 4)]


def test_results_of_unknown_frames_match_nothing():
    assert match([10, 20, 30], [5, 15, 20, 99]) == [(10, None), (20, 20), (30, None)]


def test_stamps_that_jump_back_still_match():
    assert match([10, 11, 5, 6], [10, 5, 6]) == [(10, 10), (11, None), (5, 5), (6, 6)]
