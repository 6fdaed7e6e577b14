"""Camera images in bags: read any of them, write the synthetic drive. Needs no ROS.

Reads ROS 2 bags (folder, or single .mcap or .db3 file) and ROS 1 bags (.bag) through rosbags.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from panoptic_ros.files.bag_reader import BagReader
from panoptic_ros.system import share_directory

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
NANOSECONDS = 1_000_000_000


class BagError(ValueError):
    """A bag or a topic in it cannot be used; the message says what there is instead."""


@dataclass(frozen=True)
class ImageTopic:
    """A topic with images: its name, ``IMAGE`` or ``COMPRESSED_IMAGE``, number of messages."""

    name: str
    type: str
    count: int


@dataclass(frozen=True)
class BagFrame:
    """One image message of a bag.

    Attributes:
        stamp: Of its header, in nanoseconds; made unique within the bag (see ``ImageBag``).
        time: When it was recorded, in nanoseconds.
        message: The message, with the fields of sensor_msgs.
    """

    stamp: int
    time: int
    message: Any


class ImageBag:
    """One image topic of a bag; use it in a ``with`` statement.

    Results are matched to frames by header stamp. Where a bag repeats a stamp (or has none), the
    later frame gets the next free nanosecond; all others keep theirs.

    Args:
        path: Of the bag.
        topic: An image topic; None takes the first one by name.

    Attributes:
        topics: All image topics of the bag, by name.
        topic: The one chosen.

    Raises:
        BagError: The bag cannot be read, or has no such topic.
    """

    def __init__(self, path: Path | str, topic: str | None = None) -> None:
        self.path = Path(path)
        self._reader = open_bag(self.path)
        self.topics = [
            ImageTopic(name, info.msgtype, info.msgcount)
            for name, info in sorted(self._reader.topics.items())
            if info.msgtype in (IMAGE, COMPRESSED_IMAGE)
        ]
        try:
            self.topic = self._choose(topic)
        except BagError:
            self._reader.close()
            raise

    def __enter__(self) -> ImageBag:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def __len__(self) -> int:
        return self.topic.count

    def _choose(self, name: str | None) -> ImageTopic:
        usable = [topic for topic in self.topics if topic.count]
        if not usable:
            others = ", ".join(sorted(self._reader.topics)) or "none"
            raise BagError(f"bag {self.path} has no images; its topics: {others}")
        if name is None:
            return usable[0]
        for topic in usable:
            if topic.name.strip("/") == name.strip("/"):
                return topic
        there = ", ".join(f"{t.name} ({t.type}, {t.count} messages)" for t in usable)
        raise BagError(f"bag {self.path} has no images on topic {name}. Image topics: {there}")

    @property
    def frame_rate(self) -> float:
        """Images per second, averaged over the bag; 10 where the bag does not tell."""
        seconds = self._reader.duration / NANOSECONDS
        return (self.topic.count - 1) / seconds if self.topic.count > 1 and seconds > 0 else 10.0

    def frames(self) -> Iterator[BagFrame]:
        """Yield the messages of the topic in the order they were recorded.

        Raises:
            BagError: The bag is damaged.
        """
        stamps: set[int] = set()
        connections = [c for c in self._reader.connections if c.topic == self.topic.name]
        try:
            for connection, time, data in self._reader.messages(connections):
                message = self._reader.deserialize(data, connection.msgtype)
                stamp = stamp_of(message.header)
                while stamp in stamps:
                    stamp += 1
                stamps.add(stamp)
                yield BagFrame(stamp, time, message)
        except Exception as error:  # rosbags raises many types on damaged files
            reason = str(error) or type(error).__name__
            raise BagError(f"bag {self.path} is damaged: {reason}") from error


def open_bag(path: Path) -> BagReader:
    """Open a bag; the caller closes it.

    Raises:
        BagError: It is not there, cannot be read, or declares sizes that are not believed.
    """
    if not path.exists():
        raise BagError(f"there is no bag {path}")
    try:
        return BagReader(path)
    except Exception as error:  # rosbags raises many types on damaged files, MemoryError too
        raise BagError(f"cannot read bag {path}: {str(error) or type(error).__name__}") from error


def stamp_of(header: Any) -> int:
    """Return the stamp of a std_msgs/Header in nanoseconds."""
    return header.stamp.sec * NANOSECONDS + header.stamp.nanosec


def message_types() -> Typestore:
    """Return the ROS 2 message types of rosbags together with those of this package."""
    store = get_typestore(Stores.LATEST)
    types: dict[str, Any] = {}
    for file in sorted((share_directory() / "msg").glob("*.msg")):
        types.update(get_types_from_msg(file.read_text(), f"panoptic_ros/msg/{file.stem}"))
    store.register(types)
    return store


def write_image_bag(
    path: Path, images: Iterable[np.ndarray], frame_rate: float, topic: str = "/camera/image_raw"
) -> int:
    """Write RGB images as a ROS 2 bag (MCAP), replacing a bag of that name.

    Args:
        path: Folder to make.
        images: uint8, (H, W, 3), RGB.
        frame_rate: Images per second; the first has stamp 1 s.
        topic: Name of the topic.

    Returns:
        How many images were written.
    """
    if path.exists():
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    store = get_typestore(Stores.LATEST)
    index = -1
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(topic, IMAGE, typestore=store)
        for index, image in enumerate(images):
            stamp = NANOSECONDS + round(index * NANOSECONDS / frame_rate)
            message = _image_message(store, stamp, image)
            writer.write(connection, stamp, store.serialize_cdr(message, IMAGE))
    return index + 1


def _image_message(store: Typestore, stamp: int, image: np.ndarray) -> Any:
    time = store.types["builtin_interfaces/msg/Time"]
    header = store.types["std_msgs/msg/Header"]
    height, width = image.shape[:2]
    return store.types[IMAGE](
        header=header(time(*divmod(stamp, NANOSECONDS)), "camera"),
        height=height,
        width=width,
        encoding="rgb8",
        is_bigendian=0,
        step=3 * width,
        data=np.ascontiguousarray(image).reshape(-1),
    )
