"""Read the results that were recorded into labels.mcap. Needs no ROS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader

from panoptic_ros.files.bag import BagError, BagFrame, stamp_of
from panoptic_ros.prediction import Category, PanopticPrediction, Segment, Track


@dataclass(frozen=True)
class Result:
    """What the node published for one frame.

    Attributes:
        stamp: Of the result, in nanoseconds.
        received: When the label image was received, in nanoseconds of the wall clock.
        frame_id: Of the result.
        prediction: The labels and instances (stuff is not listed in messages).
        inference_time: In seconds, as the node measured it; NaN without instance message.
        has_instances: Whether the instances of this stamp were received too.
    """

    stamp: int
    received: int
    frame_id: str
    prediction: PanopticPrediction
    inference_time: float
    has_instances: bool


class RecordedResults:
    """The results in a recording; use it in a ``with`` statement.

    Args:
        path: labels.mcap, or the folder of the bag.

    Attributes:
        categories: The class table that was published last.

    Raises:
        BagError: No class table was recorded.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader = AnyReader([path])

    def __enter__(self) -> RecordedResults:
        self._reader.open()
        tables = [message for _, message in self._messages("/categories")]
        if not tables:
            self._reader.close()
            raise BagError(f"{self.path} holds no class table; was the node configured?")
        self.categories = _categories(tables[-1])
        arrays = (message for _, message in self._messages("/instances"))
        self._instances = {stamp_of(array.header): array for array in arrays}
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def __iter__(self) -> Iterator[Result]:
        """Yield the results in the order they were received."""
        for received, message in self._messages("/labels"):
            stamp = stamp_of(message.header)
            array = self._instances.get(stamp)
            instances = array.instances if array else ()
            segments = tuple(map(_segment, instances))
            tracks = {i.id: _track(i) for i in instances if i.track_id}
            yield Result(
                stamp=stamp,
                received=received,
                frame_id=message.header.frame_id,
                prediction=PanopticPrediction(
                    _labels(message), segments, self.categories, tracks=tracks
                ),
                inference_time=array.inference_time if array else float("nan"),
                has_instances=array is not None,
            )

    def _messages(self, ending: str) -> Iterator[tuple[int, Any]]:
        connections = [c for c in self._reader.connections if c.topic.endswith(ending)]
        if not connections:  # rosbags reads an empty list as all of them
            return
        for connection, received, data in self._reader.messages(connections):
            yield received, self._reader.deserialize(data, connection.msgtype)


def match_results(
    frames: Iterable[BagFrame], results: Iterable[Result]
) -> Iterator[tuple[BagFrame, Result | None]]:
    """Pair every frame with the result of its stamp, or None.

    Frames come in the order they were sent, results in that they were received; both are read as
    they are needed. A result of an unknown stamp is passed over; the report counts it.
    """
    results = iter(results)
    waiting: dict[int, Result] = {}
    for frame in frames:
        while frame.stamp not in waiting and (result := next(results, None)) is not None:
            waiting[result.stamp] = result
            if result.stamp > frame.stamp:
                break
        yield frame, waiting.pop(frame.stamp, None)


def _labels(message: Any) -> np.ndarray:
    kind = ">u2" if message.is_bigendian else "<u2"
    rows = message.data.reshape(message.height, message.step)
    return rows[:, : 2 * message.width].view(kind).astype(np.uint16)


def _segment(instance: Any) -> Segment:
    roi = instance.roi
    return Segment(
        id=instance.id,
        class_id=instance.class_id,
        class_name=instance.class_name,
        is_thing=True,
        score=instance.score,
        area=instance.area,
        bbox=(roi.x_offset, roi.y_offset, roi.width, roi.height),
        center=(instance.center_x, instance.center_y),
    )


def _track(instance: Any) -> Track:
    first = instance.first_seen
    return Track(instance.track_id, instance.track_age, first.sec * 10**9 + first.nanosec)


def _categories(table: Any) -> tuple[Category, ...]:
    return tuple(
        Category(c.id, c.name, bool(c.is_thing), tuple(int(v) for v in c.color))
        for c in table.categories
    )
