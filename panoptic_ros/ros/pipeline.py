"""The way of a frame: it waits for the worker, is converted, segmented and published."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from rclpy.node import Node

from panoptic_ros.files.camera_messages import ImageError, Size, image_and_size
from panoptic_ros.prediction import PanopticPrediction
from panoptic_ros.ros.depth_frames import nanoseconds
from panoptic_ros.ros.frame_statistics import CameraStatistics, StageTimes
from panoptic_ros.ros.loading import SegmenterLike
from panoptic_ros.ros.model_service import reason
from panoptic_ros.ros.outputs import CameraOutputs
from panoptic_ros.ros.service import Service
from panoptic_ros.ros.worker import Frame, SingleTaskThread, Worker
from panoptic_ros.tracking import Tracker

WARN_PERIOD = 5.0  # seconds between two warnings of a kind


@dataclass(frozen=True)
class Decoded:
    """A frame that can be segmented: its image, perhaps at a fraction of its (height, width)."""

    frame: Frame
    image: np.ndarray
    size: Size


@dataclass(frozen=True)
class Camera:
    """Where the results and the counts of a camera go."""

    outputs: CameraOutputs
    statistics: CameraStatistics

    def is_wanted(self, service: Service) -> bool:
        """Tell whether its images are to be segmented."""
        return bool(not service.parameters.lazy or service.listeners or self.outputs.wanted())


class Pipeline:
    """Convert, segment and publish frames; everything that can go wrong with one ends here.

    A worker's thread takes the newest frames. Publishing has a thread of its own: it takes place
    while the next frames are segmented.

    Args:
        node: For its log and its clock.
        cameras: By name.
        service: The parameters and the segmenter in force; asked once per batch.
        on_error: Called with what happened when one of the threads or a listener raises.

    Attributes:
        stages: How long the stages take.
        failure: Why an image of the last batch could not be segmented; empty when all could.
    """

    def __init__(
        self,
        node: Node,
        cameras: Mapping[str, Camera],
        service: Service,
        on_error: Callable[[str], None],
    ) -> None:
        self._node = node
        self._cameras = cameras
        self._service = service
        self._on_error = on_error
        self._publisher = SingleTaskThread("publisher", on_error)
        self._worker = Worker(self.process, self._lose)
        self._in_progress: set[Frame] = set()
        self._lock = threading.Lock()  # of the set, which two threads change
        self.stages = StageTimes()
        self.failure = ""

    def start(self) -> None:
        """Start to process what is offered."""
        self._worker.start()

    def offer(self, frame: Frame) -> Frame | None:
        """Take a frame; returns the one of its camera that it replaces, if any."""
        return self._worker.offer(frame)

    def discard(self) -> None:
        """Drop the frames that wait."""
        self._drop(self._worker.clear())

    def stop(self) -> None:
        """Wait until the batch in progress is published, end the threads, drop what waits."""
        waiting = self._worker.stop()
        self._publisher.stop()
        self._drop(waiting)

    def _drop(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self._cameras[frame.camera].statistics.count("dropped")

    def _lose(self, frames: Sequence[Frame], trace: str) -> None:
        """Count what an exception leaves behind; ``on_error`` tells of it."""
        for frame in frames:
            self._end(frame, "failed")
        self._on_error(f"images were lost: {trace}")

    def _end(self, frame: Frame, counter: str) -> int:
        """Count how a frame in progress ended; only its first end counts.

        Returns:
            The counter's new value, 0 if the frame had ended before.
        """
        with self._lock:
            if frame not in self._in_progress:
                return 0
            self._in_progress.remove(frame)
        return self._cameras[frame.camera].statistics.count(counter)

    def process(self, frames: Sequence[Frame]) -> None:
        """Process the newest frames of some cameras as one batch."""
        start = time.monotonic()
        with self._lock:
            self._in_progress.update(frames)
        segmenter = self._service.segmenter
        batch = self._convert(segmenter, [frame for frame in frames if self._is_heard(frame)])
        if not batch:
            return
        converted = time.monotonic()
        predictions = self._segment(segmenter, batch)
        segmented = time.monotonic()
        if all(prediction is not None for prediction in predictions):
            self.failure = ""
        arrival = min(decoded.frame.arrival for decoded in batch)
        times = {
            "wait": start - arrival,
            "convert": converted - start,
            "segment": segmented - converted,
        }
        results = [pair for pair in zip(batch, predictions, strict=True) if pair[1] is not None]
        self._publisher.do(partial(self._publish_batch, results, segmenter.name, times, arrival))

    def _is_heard(self, frame: Frame) -> bool:
        if self._cameras[frame.camera].is_wanted(self._service):
            return True
        self._end(frame, "unheard")
        return False

    def _convert(self, segmenter: SegmenterLike, frames: Sequence[Frame]) -> list[Decoded]:
        batch = []
        for frame in frames:
            whole = self._cameras[frame.camera].outputs.wants_image()
            try:
                image, size = image_and_size(
                    frame.message,
                    (lambda size: size) if whole else segmenter.fit,
                    self._service.parameters.max_pixels,
                )
                batch.append(Decoded(frame, image, size))
            except ImageError as error:
                self._refuse(frame, error)
        return batch

    def _refuse(self, frame: Frame, error: ImageError) -> None:
        self._cameras[frame.camera].statistics.refusal = str(error)
        number = self._end(frame, "refused")
        self._node.get_logger().warning(
            f"refused an image of {frame.camera or 'the camera'}: {error} ({number} so far)",
            throttle_duration_sec=WARN_PERIOD,
        )

    def _segment(
        self, segmenter: SegmenterLike, batch: Sequence[Decoded]
    ) -> Sequence[PanopticPrediction | None]:
        """Segment a batch; when that fails, each image alone. None stands for a failure."""
        cameras = [self._cameras[decoded.frame.camera] for decoded in batch]
        try:
            return segmenter(
                [decoded.image for decoded in batch],
                [decoded.size for decoded in batch],
                any(camera.outputs.wants_confidence() for camera in cameras),
            )
        except Exception as error:  # out of memory, a driver fault, ...: the node goes on
            if len(batch) == 1:
                self._fail(batch[0].frame, error)
                return [None]
        return [self._segment(segmenter, [decoded])[0] for decoded in batch]

    def _fail(self, frame: Frame, error: Exception) -> None:
        self.failure = reason(error)
        number = self._end(frame, "failed")
        self._node.get_logger().error(
            f"could not segment an image: {self.failure} ({number} failed so far)",
            throttle_duration_sec=WARN_PERIOD,
        )

    def _publish_batch(
        self,
        results: Sequence[tuple[Decoded, PanopticPrediction]],
        model: str,
        times: Mapping[str, float],
        arrival: float,
    ) -> None:
        """Publish in the publisher's thread; ``times`` are those of the stages before."""
        start = time.monotonic()
        for decoded, prediction in results:
            try:
                prediction = self._track(decoded.frame, prediction, model)
                self._publish(decoded, prediction, model, times["segment"])
            except Exception:  # the results of the other cameras are good
                self._lose([decoded.frame], traceback.format_exc())
        end = time.monotonic()
        if results:
            self.stages.add(results[0][1].timings)  # the same for the whole batch
        self.stages.add({**times, "publish": end - start, "total": end - arrival})

    def _track(
        self, frame: Frame, prediction: PanopticPrediction, model: str
    ) -> PanopticPrediction:
        """Return the prediction with its tracks, if they are wanted."""
        if not self._service.parameters.tracking:
            return prediction
        start = time.monotonic()
        if frame.camera not in self._service.trackers:
            self._service.trackers[frame.camera] = Tracker()
        stamp = nanoseconds(frame.message.header.stamp)
        prediction = self._service.trackers[frame.camera].update(prediction, stamp, model)
        self.stages.add({"track": time.monotonic() - start})
        return prediction

    def _publish(
        self, decoded: Decoded, prediction: PanopticPrediction, model: str, inference_time: float
    ) -> None:
        camera = self._cameras[decoded.frame.camera]
        header = decoded.frame.message.header
        parameters = self._service.parameters
        camera.outputs.publish(
            header, decoded.image, prediction, model, inference_time, parameters
        )
        self._end(decoded.frame, "published")
        age = self._node.get_clock().now().nanoseconds - nanoseconds(header.stamp)
        camera.statistics.add_age(age / 1e9)
        for listener in tuple(self._service.listeners):
            try:
                listener(decoded.frame.camera, header, prediction)
            except Exception:  # it is not ours, and there may be others
                self._on_error(f"a listener failed: {traceback.format_exc()}")
