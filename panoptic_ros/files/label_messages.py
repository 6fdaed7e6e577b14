"""Predictions as serialized messages, as the node publishes them; needs no ROS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys.store import Typestore

from panoptic_ros.files.bag import IMAGE, message_types
from panoptic_ros.prediction import LABEL_DIVISOR, Category, PanopticPrediction, Segment

INSTANCES = "panoptic_ros/msg/PanopticInstanceArray"
CATEGORIES = "panoptic_ros/msg/PanopticCategoryArray"
_NO_LIMIT = QosTime(9223372036, 854775807)


def _qos(depth: int, durability: QosDurability) -> tuple[Qos]:
    history, reliability = QosHistory.KEEP_LAST, QosReliability.RELIABLE
    automatic = QosLiveliness.AUTOMATIC
    return (
        Qos(
            history, depth, reliability, durability, *[_NO_LIMIT] * 2, automatic, _NO_LIMIT, False
        ),
    )


class LabelBag(Writer):
    """A bag (MCAP, compressed) of label images, instances and a class table.

    Use it in a ``with`` statement. Topics are those of the camera below ``/panoptic``.

    Args:
        path: Folder to make.
        types: Of ``message_types()``.
    """

    def __init__(self, path: Any, types: Typestore) -> None:
        super().__init__(path, version=9, storage_plugin=StoragePlugin.MCAP)
        self.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._types = types
        self._topics: dict[str, Connection] = {}

    def add(self, topic: str, kind: str, time: int, data: bytes | memoryview) -> None:
        """Write a serialized message of one of the three types."""
        if topic not in self._topics:
            latched = kind == CATEGORIES
            durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
            qos = _qos(1 if latched else 10, durability)
            self._topics[topic] = self.add_connection(
                topic, kind, typestore=self._types, offered_qos_profiles=qos
            )
        self.write(self._topics[topic], time, data)


class LabelMessages:
    """Makes the messages of one model.

    Args:
        model: Its name.
        categories: Its classes.
    """

    def __init__(self, model: str, categories: Sequence[Category]) -> None:
        self._model, self.class_table = model, tuple(categories)

    @cached_property
    def types(self) -> Typestore:
        """The message types, of this package too."""
        return message_types()

    def _new(self, name: str, /, **fields: Any) -> Any:
        return self.types.types[name](**fields)

    def header(self, sec: int, nanosec: int, frame_id: str) -> Any:
        """Return a std_msgs/Header."""
        time = self._new("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
        return self._new("std_msgs/msg/Header", stamp=time, frame_id=frame_id)

    def labels(self, header: Any, prediction: PanopticPrediction) -> bytes | memoryview:
        """Return the label image, a sensor_msgs/Image of encoding 16UC1."""
        labels = np.ascontiguousarray(prediction.labels, "<u2")
        message = self._new(
            IMAGE,
            header=header,
            height=labels.shape[0],
            width=labels.shape[1],
            encoding="16UC1",
            is_bigendian=0,
            step=labels.strides[0],
            data=labels.reshape(-1).view(np.uint8),
        )
        return self.types.serialize_cdr(message, IMAGE)

    def instances(
        self, header: Any, prediction: PanopticPrediction, seconds: float
    ) -> bytes | memoryview:
        """Return the things in an image; ``seconds`` is what they took."""
        height, width = prediction.labels.shape
        message = self._new(
            INSTANCES,
            header=header,
            height=height,
            width=width,
            label_divisor=LABEL_DIVISOR,
            model=self._model,
            inference_time=seconds,
            overflow=prediction.overflow,
            instances=[self._instance(segment) for segment in prediction.instances],
        )
        return self.types.serialize_cdr(message, INSTANCES)

    def _instance(self, segment: Segment) -> Any:
        x, y, width, height = segment.bbox
        roi = {"x_offset": x, "y_offset": y, "width": width, "height": height}
        return self._new(
            "panoptic_ros/msg/PanopticInstance",
            id=segment.id,
            class_id=segment.class_id,
            class_name=segment.class_name,
            score=segment.score,
            area=segment.area,
            roi=self._new("sensor_msgs/msg/RegionOfInterest", **roi, do_rectify=False),
            center_x=segment.center[0],
            center_y=segment.center[1],
            **self._unknown,
        )

    @cached_property
    def _unknown(self) -> dict[str, Any]:
        """What spans of a bag cannot tell of an instance: its track, and its box in space."""
        return {
            "track_id": 0,
            "track_age": 0,
            "first_seen": self._new("builtin_interfaces/msg/Time", sec=0, nanosec=0),
            "position": self._new("geometry_msgs/msg/Point", x=math.nan, y=math.nan, z=math.nan),
            "size": self._new("geometry_msgs/msg/Vector3", x=math.nan, y=math.nan, z=math.nan),
        }

    def categories(self, header: Any) -> bytes | memoryview:
        """Return the class table."""
        message = self._new(
            CATEGORIES,
            header=header,
            model=self._model,
            label_divisor=LABEL_DIVISOR,
            categories=[
                self._new(
                    "panoptic_ros/msg/PanopticCategory",
                    id=c.id,
                    name=c.name,
                    is_thing=c.is_thing,
                    color=np.array(c.color, np.uint8),
                )
                for c in self.class_table
            ],
        )
        return self.types.serialize_cdr(message, CATEGORIES)
