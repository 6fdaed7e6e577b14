"""Predictions to messages. Every message of an image starts with that image's header."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Vector3
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import Header

from panoptic_ros.msg import (
    PanopticCategory,
    PanopticCategoryArray,
    PanopticInstance,
    PanopticInstanceArray,
)
from panoptic_ros.prediction import (
    LABEL_DIVISOR,
    Box,
    Category,
    PanopticPrediction,
    Segment,
    Track,
)

try:
    from vision_msgs import msg as vision_msgs
except ImportError:  # optional: adds ~/label_info and ~/detections
    vision_msgs = None


NOWHERE = Box((math.nan,) * 3, (math.nan,) * 3)


def image_message(header: Header, encoding: str, image: np.ndarray) -> Image:
    """Return an image message of a uint8 or uint16 array, (H, W) or (H, W, channels)."""
    image = np.ascontiguousarray(image)
    message = Image(
        header=header,
        height=image.shape[0],
        width=image.shape[1],
        encoding=encoding,
        is_bigendian=sys.byteorder == "big",
        step=image.strides[0],
    )
    # The one way that is fast in every distribution; assigning data can take half a second.
    message.data.frombytes(memoryview(image).cast("B"))
    return message


def instances_message(
    header: Header,
    prediction: PanopticPrediction,
    model: str,
    inference_time: float,
    boxes: Mapping[int, Box],
) -> PanopticInstanceArray:
    """Return the things in an image, best first.

    Args:
        header: Of the image.
        prediction: What was seen in it.
        model: Name of the model that saw it.
        inference_time: In seconds.
        boxes: In space, by id; of none without depth.
    """
    height, width = prediction.labels.shape
    return PanopticInstanceArray(
        header=header,
        height=height,
        width=width,
        label_divisor=LABEL_DIVISOR,
        model=model,
        inference_time=inference_time,
        overflow=prediction.overflow,
        instances=[
            _instance(s, prediction.tracks.get(s.id), boxes.get(s.id, NOWHERE))
            for s in prediction.instances
        ],
    )


def _instance(segment: Segment, track: Track | None, box: Box) -> PanopticInstance:
    x, y, width, height = segment.bbox
    track = track or Track(0, 0, 0)  # not tracked
    seconds, nanoseconds = divmod(track.first_seen, 1_000_000_000)
    return PanopticInstance(
        id=segment.id,
        class_id=segment.class_id,
        class_name=segment.class_name,
        score=segment.score,
        area=segment.area,
        roi=RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height),
        center_x=segment.center[0],
        center_y=segment.center[1],
        track_id=track.number,
        track_age=track.age,
        first_seen=Time(sec=seconds, nanosec=nanoseconds),
        position=as_point(box.center),
        size=as_vector(box.size),
    )


def categories_message(
    header: Header, model: str, categories: Sequence[Category]
) -> PanopticCategoryArray:
    """Return the class table of a model."""
    return PanopticCategoryArray(
        header=header,
        model=model,
        label_divisor=LABEL_DIVISOR,
        categories=[
            PanopticCategory(
                id=c.id, name=c.name, is_thing=c.is_thing, color=np.array(c.color, np.uint8)
            )
            for c in categories
        ],
    )


def label_info_message(header: Header, categories: Sequence[Category]) -> vision_msgs.LabelInfo:
    """Return the class table for readers of ``~/semantic`` that know vision_msgs."""
    return vision_msgs.LabelInfo(
        header=header,
        class_map=[vision_msgs.VisionClass(class_id=c.id, class_name=c.name) for c in categories],
    )


def detections_message(
    header: Header, prediction: PanopticPrediction
) -> vision_msgs.Detection2DArray:
    """Return the things in an image as boxes; the class is named by its id in ``~/label_info``.

    ``id`` is that of the track, as vision_msgs wants one object to have one id in all messages;
    where things are not tracked, it is the value in the label image.
    """
    return vision_msgs.Detection2DArray(
        header=header,
        detections=[
            _detection(header, s, prediction.tracks.get(s.id)) for s in prediction.instances
        ],
    )


def _detection(header: Header, segment: Segment, track: Track | None) -> vision_msgs.Detection2D:
    x, y, width, height = segment.bbox
    name = track.number if track else segment.id
    detection = vision_msgs.Detection2D(header=header, id=str(name))
    detection.bbox.center.position.x = x + width / 2
    detection.bbox.center.position.y = y + height / 2
    detection.bbox.size_x = float(width)
    detection.bbox.size_y = float(height)
    result = vision_msgs.ObjectHypothesisWithPose()
    result.hypothesis.class_id = str(segment.class_id)
    result.hypothesis.score = segment.score
    detection.results.append(result)
    return detection


def as_point(values: tuple[float, float, float]) -> Point:
    """Return three numbers as a point."""
    return Point(x=values[0], y=values[1], z=values[2])


def as_vector(values: tuple[float, float, float]) -> Vector3:
    """Return three numbers as a vector."""
    return Vector3(x=values[0], y=values[1], z=values[2])
