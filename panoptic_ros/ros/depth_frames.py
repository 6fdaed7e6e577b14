"""Depth images that wait for the result of their colour image: free of ROS.

Labels take longer than depth, so depth waits here; it is matched by its stamp, as the exact and
approximate policies of message_filters do.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

KEPT = 30  # messages of a kind
PATIENCE = 0.05  # seconds that a result waits for its depth, if that is on its way
ALIVE = 1.0  # seconds without depth after which nothing is on its way


class DepthPair(NamedTuple):
    """A depth image and the camera_info that is nearest to it."""

    image: Any
    info: Any


class DepthFrames:
    """Filled by one thread, asked by another.

    Attributes:
        received: Number of depth images.
        used: Colour images that got their depth.
        missing: Colour images whose depth or camera_info did not come.
        refused: Colour images whose depth could not be used.
        refusal: Why, the last time.
        mismatch: Why the last colour image got none although both came; empty if it did.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._images: deque[Any] = deque(maxlen=KEPT)
        self._infos: deque[Any] = deque(maxlen=KEPT)
        self._last_arrival = self._last_match = float("-inf")
        self.received = self.used = self.missing = self.refused = 0
        self.refusal = self.mismatch = ""

    def add_image(self, message: Any) -> None:
        """Keep a depth image."""
        with self._changed:
            if self._images and _stamp_of(message) < _stamp_of(self._images[-1]):
                self._images.clear()  # a bag that starts again
            self._images.append(message)
            self._last_arrival = self._clock()
            self.received += 1
            self._changed.notify_all()

    def add_info(self, message: Any) -> None:
        """Keep a camera_info."""
        with self._changed:
            self._infos.append(message)
            self._changed.notify_all()

    def seconds_since_image(self) -> float:
        """Return the seconds since a depth image came; infinity before the first."""
        return self._clock() - self._last_arrival

    def seconds_since_match(self) -> float:
        """Return the seconds since a colour image got its depth; infinity before the first."""
        return self._clock() - self._last_match

    @property
    def has_info(self) -> bool:
        """Whether a camera_info ever came; one is enough."""
        return bool(self._infos)

    def match(self, stamp: int, tolerance: int) -> DepthPair | None:
        """Return the depth of a colour image, for which it may wait ``PATIENCE``; else None.

        Args:
            stamp: Of the colour image, in nanoseconds.
            tolerance: Nanoseconds by which that of the depth image may differ.
        """
        with self._changed:
            if self._infos and self.seconds_since_image() < ALIVE:
                self._changed.wait_for(lambda: self._is_decided(stamp), PATIENCE)
            image = _nearest(self._images, stamp)
            info = _nearest(self._infos, stamp)
            if image is None or info is None or abs(_stamp_of(image) - stamp) > tolerance:
                self.missing += 1
                self.mismatch = "" if image is None or info is None else _apart(image, stamp)
                return None
            self.mismatch, self._last_match = "", self._clock()
            while _stamp_of(self._images[0]) < _stamp_of(image):
                self._images.popleft()  # colour images come in their order
            self.used += 1
            return DepthPair(image, info)

    def refuse(self, reason: str) -> int:
        """Count one that was matched and cannot be used; returns how many there are."""
        self.used -= 1
        self.refused += 1
        self.refusal = reason
        return self.refused

    def _is_decided(self, stamp: int) -> bool:
        """Tell whether nothing nearer can come."""
        return bool(self._infos and self._images and _stamp_of(self._images[-1]) >= stamp)


def _apart(image: Any, stamp: int) -> str:
    seconds = abs(_stamp_of(image) - stamp) / 1e9
    return (
        f"the depth nearest to the last image is {seconds:.3f} s from it: publish both with one "
        "stamp, or raise depth_tolerance"
    )


def nanoseconds(stamp: Any) -> int:
    """Return a stamp in nanoseconds."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def _stamp_of(message: Any) -> int:
    return nanoseconds(message.header.stamp)


def _nearest(messages: deque[Any], stamp: int) -> Any:
    return min(messages, key=lambda message: abs(_stamp_of(message) - stamp), default=None)
