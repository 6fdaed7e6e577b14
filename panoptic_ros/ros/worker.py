"""Newest frames to one thread, results to another: free of ROS and torch.

Every camera has one slot. A new frame replaces the one that waits there, so the worker may skip
frames but never falls behind; a silent camera holds nobody up. What the worker has made is passed
on while it works on the next frames, and never queues up.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Frame:
    """An image on its way to the worker.

    Attributes:
        camera: Name of its camera.
        message: sensor_msgs Image or CompressedImage.
        arrival: When it came, in seconds of the monotonic clock.
    """

    camera: str
    message: Any
    arrival: float


class RateLimit:
    """Thins out frames to a rate by their stamps, keeping the average in spite of jitter."""

    def __init__(self) -> None:
        self._due = 0.0

    def admits(self, stamp: float, max_rate: float) -> bool:
        """Tell whether a frame is due, and if so, plan the next one.

        Args:
            stamp: Of the frame, in seconds; it may jump back (a bag that loops).
            max_rate: Frames per second; 0 admits all.
        """
        if max_rate <= 0:
            return True
        period = 1.0 / max_rate
        # A plan more than a period ahead is from before a jump back, or of a lower rate.
        if self._due - period <= stamp < self._due:
            return False
        late = stamp - self._due
        self._due = self._due + period if 0 <= late < period else stamp + period
        return True


class Worker:
    """One thread that takes the newest frame of each camera and processes them as one batch.

    Args:
        process: Called in the thread with one frame each of the cameras that have a new one, in
            the order of their first arrival.
        on_error: Called in the thread with the frames and the traceback when ``process`` raises;
            the worker goes on with the next frames.
    """

    def __init__(
        self,
        process: Callable[[Sequence[Frame]], None],
        on_error: Callable[[Sequence[Frame], str], None],
    ) -> None:
        self._process = process
        self._on_error = on_error
        self._slots: dict[str, Frame] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def offer(self, frame: Frame) -> Frame | None:
        """Put a frame into its camera's slot; returns the frame it replaced, if any."""
        with self._changed:
            replaced = self._slots.pop(frame.camera, None)
            self._slots[frame.camera] = frame
            self._changed.notify()
        return replaced

    def clear(self) -> list[Frame]:
        """Empty the slots; returns the frames that will not be processed."""
        with self._changed:
            return self._take()

    def stop(self) -> list[Frame]:
        """Wait for the batch in progress, then end; returns the frames not processed."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()
        return self.clear()

    def _run(self) -> None:
        while frames := self._wait():
            try:
                self._process(frames)
            except Exception:
                self._on_error(frames, traceback.format_exc())

    def _wait(self) -> list[Frame]:
        """Wait for frames; an empty list means the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._slots or self._stopping)
            return [] if self._stopping else self._take()

    def _take(self) -> list[Frame]:
        frames = list(self._slots.values())
        self._slots.clear()
        return frames


class SingleTaskThread:
    """A thread beside the worker's that does one piece of work at a time, in order.

    Args:
        name: Of the thread.
        on_error: Called in the thread with the traceback when a piece of work raises.
    """

    def __init__(self, name: str, on_error: Callable[[str], None]) -> None:
        self._on_error = on_error
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._under_way: Future[None] | None = None

    def do(self, work: Callable[[], None]) -> None:
        """Start a piece of work as soon as the one before is done, which is waited for.

        So nothing grows old in a queue, and who makes the work cannot run ahead of who does it.
        """
        if self._under_way:
            self._under_way.result()
        self._under_way = self._thread.submit(self._run, work)

    def stop(self) -> None:
        """Wait for the work under way and end the thread."""
        self._thread.shutdown(wait=True)

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            self._on_error(traceback.format_exc())
