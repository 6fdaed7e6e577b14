"""Small camera bags, and readers of what is made of them that know only rosbags."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
TEXT = "std_msgs/msg/String"
STORE = get_typestore(Stores.ROS2_HUMBLE)
SECOND = 10**9


def header(stamp: int):
    time = STORE.types["builtin_interfaces/msg/Time"](*divmod(stamp, SECOND))
    return STORE.types["std_msgs/msg/Header"](time, "front_camera")


def raw(stamp: int, image: np.ndarray, encoding: str = "rgb8") -> bytes:
    step = image.strides[0]
    data = np.ascontiguousarray(image).reshape(-1).view(np.uint8)
    message = STORE.types[IMAGE](header(stamp), *image.shape[:2], encoding, 0, step, data)
    return STORE.serialize_cdr(message, IMAGE)


def jpeg(stamp: int, image: np.ndarray, cut: int | None = None) -> bytes:
    data = cv2.imencode(".jpg", image[..., ::-1])[1][:cut]
    message = STORE.types[COMPRESSED](header(stamp), "jpeg", np.ascontiguousarray(data))
    return STORE.serialize_cdr(message, COMPRESSED)


def write_bag(path: Path, rows, storage: StoragePlugin = StoragePlugin.MCAP) -> Path:
    """Write rows of (topic, type, time, data)."""
    with Writer(path, version=9, storage_plugin=storage) as writer:
        known = {}
        for topic, kind, time, data in rows:
            if topic not in known:
                known[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(known[topic], time, data)
    return path


def camera_bag(path: Path, images, topic: str = "/front/image", first: int = SECOND) -> Path:
    """Write a bag of RGB images, 10 a second, recorded 5 ms after their stamp."""
    stamps = [first + SECOND * i // 10 for i in range(len(images))]
    rows = zip(stamps, images, strict=True)
    return write_bag(path, [(topic, IMAGE, t + 5_000_000, raw(t, image)) for t, image in rows])


def read_messages(path: Path):
    """Return (topic, time, message) of all messages of a bag."""
    with AnyReader([path]) as reader:
        return [
            (connection.topic, time, reader.deserialize(data, connection.msgtype))
            for connection, time, data in reader.messages()
        ]


def read_labels(path: Path, topic: str = "/panoptic/front/image/labels"):
    """Return stamp and label image of each label message, in order."""
    found = []
    for name, _, message in read_messages(path):
        if name == topic:
            stamp = message.header.stamp.sec * SECOND + message.header.stamp.nanosec
            labels = message.data.view(np.uint16).reshape(message.height, message.width)
            found.append((stamp, labels))
    return found
