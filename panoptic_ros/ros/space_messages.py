"""Clouds and boxes in space to messages."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from panoptic_ros.prediction import Box, PanopticPrediction, Segment, Track
from panoptic_ros.ros.messages import as_point, as_vector, vision_msgs
from panoptic_ros.space.points import POINT

_TYPES = {"f4": PointField.FLOAT32, "u2": PointField.UINT16, "u4": PointField.FLOAT32}  # of rgb
FIELDS = [
    PointField(name=name, offset=offset, datatype=_TYPES[kind.str[1:]], count=1)
    for name, (kind, offset) in POINT.fields.items()
]


def cloud_message(header: Header, points: np.ndarray) -> PointCloud2:
    """Return a cloud: organised for POINT (H, W), of valid points only for POINT (N,)."""
    height, width = points.shape if points.ndim == 2 else (1, len(points))
    message = PointCloud2(
        header=header,
        height=height,
        width=width,
        fields=FIELDS,
        is_bigendian=False,
        point_step=POINT.itemsize,
        row_step=POINT.itemsize * width,
        is_dense=points.ndim == 1,
    )
    message.data.frombytes(memoryview(np.ascontiguousarray(points)).cast("B"))
    return message


def boxes_message(
    header: Header, prediction: PanopticPrediction, boxes: Mapping[int, Box]
) -> vision_msgs.Detection3DArray:
    """Return the things of which the box is known; the class is its id in ``~/label_info``."""
    return vision_msgs.Detection3DArray(
        header=header,
        detections=[
            _detection(header, segment, prediction.tracks.get(segment.id), boxes[segment.id])
            for segment in prediction.instances
            if segment.id in boxes
        ],
    )


def _detection(
    header: Header, segment: Segment, track: Track | None, box: Box
) -> vision_msgs.Detection3D:
    name = track.number if track else segment.id
    detection = vision_msgs.Detection3D(header=header, id=str(name))
    detection.bbox.center.position = as_point(box.center)
    detection.bbox.size = as_vector(box.size)
    result = vision_msgs.ObjectHypothesisWithPose()
    result.hypothesis.class_id = str(segment.class_id)
    result.hypothesis.score = segment.score
    result.pose.pose.position = as_point(box.center)
    detection.results.append(result)
    return detection
