"""Spans of time of the camera topics of a bag: several readers can share one bag. Needs no ROS."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panoptic_ros.files.bag import COMPRESSED_IMAGE, IMAGE, BagError, open_bag
from panoptic_ros.files.camera_messages import ENCODINGS

DATA_SUFFIXES = (".mcap", ".db3", ".zstd")


@dataclass(frozen=True)
class BagSummary:
    """What a bag says of itself.

    Attributes:
        cameras: Number of messages of each topic of camera images.
        others: Of the other image topics, why they are none of a camera.
        topics: The names of all topics.
        start: Time of the first message of all, in nanoseconds.
        end: Time after the last one.
    """

    cameras: Mapping[str, int]
    others: Mapping[str, str]
    topics: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True)
class CameraFrame:
    """One image message of a bag.

    Attributes:
        topic: Its topic.
        time: When it was recorded, in nanoseconds.
        message: With the fields of sensor_msgs; None if its bytes are no such message.
        problem: Why there is none.
    """

    topic: str
    time: int
    message: Any
    problem: str = ""


def data_files(path: Path) -> list[Path]:
    """Return the files that hold the messages of a bag, by name."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix in DATA_SUFFIXES)
    return [path]


def summarize_bag(path: Path) -> BagSummary:
    """Read the index of a bag, and the first message of each image topic.

    A topic of depth or label images is told from a camera's by its first message.

    Raises:
        BagError: The bag cannot be read or is damaged.
    """
    with closing(open_bag(path)) as reader:
        cameras, others = {}, {}
        for name, info in sorted(reader.topics.items()):
            if info.msgtype not in (IMAGE, COMPRESSED_IMAGE) or not info.msgcount:
                continue
            if reason := _not_of_a_camera(_first(reader, path, name)):
                others[name] = reason
            else:
                cameras[name] = info.msgcount
        topics = tuple(sorted(reader.topics))
        return BagSummary(cameras, others, topics, reader.start_time, reader.end_time)


def _first(reader: Any, path: Path, topic: str) -> Any:
    for frame in _frames(reader, path, (topic,), None, None):
        return frame.message
    return None


def _not_of_a_camera(message: Any) -> str:
    if message is None:  # frame by frame, then
        return ""
    if hasattr(message, "format"):
        depth = "compressedDepth" in message.format or message.format.startswith(
            ("16UC1", "32FC1")
        )
        return f"its images are of format {message.format!r}" if depth else ""
    known = message.encoding in ENCODINGS or not message.encoding.startswith(("16", "32", "64"))
    return "" if known else f"its images are of encoding {message.encoding!r}"


def read_frames(
    path: Path, topics: Collection[str], start: int | None = None, stop: int | None = None
) -> Iterator[CameraFrame]:
    """Yield the image messages of a span of a bag, by the time they were recorded.

    Args:
        path: Of the bag.
        topics: Those to read.
        start: Time of the first message of the span, in nanoseconds; None for the bag's first.
        stop: Time before which the span ends; None for the bag's end.

    Raises:
        BagError: The bag cannot be read, or is damaged in this span.
    """
    with closing(open_bag(path)) as reader:
        yield from _frames(reader, path, topics, start, stop)


def _frames(
    reader: Any, path: Path, topics: Collection[str], start: int | None, stop: int | None
) -> Iterator[CameraFrame]:
    connections = [c for c in reader.connections if c.topic in topics]
    messages = reader.messages(connections, start=start, stop=stop) if connections else iter(())
    while True:
        try:
            item = next(messages, None)
        except Exception as error:  # rosbags raises many types on damaged files
            reason = str(error) or type(error).__name__
            raise BagError(f"bag {path} is damaged: {reason}") from error
        if item is None:
            return
        connection, time, data = item
        try:
            message = reader.deserialize(data, connection.msgtype)
        except Exception as error:  # likewise
            problem = f"its {len(data)} bytes are no {connection.msgtype}: {error}"
            yield CameraFrame(connection.topic, time, None, problem)
            continue
        yield CameraFrame(connection.topic, time, message)
