"""What the worker does with a batch of frames: convert, segment, publish."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rclpy.node import Node
from rclpy.time import Time

from panoptic_ros.prediction import PanopticPrediction
from panoptic_ros.ros.conversions import ImageError, image_from_message
from panoptic_ros.ros.frame_statistics import CameraStatistics, StageTimes
from panoptic_ros.ros.loading import SegmenterLike
from panoptic_ros.ros.model_service import reason
from panoptic_ros.ros.outputs import CameraOutputs
from panoptic_ros.ros.parameters import Parameters
from panoptic_ros.ros.worker import Frame

WARN_PERIOD = 5.0  # seconds between two warnings of a kind


@dataclass(frozen=True)
class Camera:
    """Where the results and the counts of a camera go."""

    outputs: CameraOutputs
    statistics: CameraStatistics


class Pipeline:
    """Convert, segment and publish frames; everything that can go wrong with one ends here.

    Args:
        node: For its log and its clock.
        cameras: By name.
        parameters: Returns those in force.
        segmenter: Returns the one in service; asked once per batch.

    Attributes:
        stages: How long the stages take.
        failure: Why an image of the last batch could not be segmented; empty when all could.
    """

    def __init__(
        self,
        node: Node,
        cameras: Mapping[str, Camera],
        parameters: Callable[[], Parameters],
        segmenter: Callable[[], SegmenterLike],
    ) -> None:
        self._node = node
        self._cameras = cameras
        self._parameters = parameters
        self._segmenter = segmenter
        self.stages = StageTimes()
        self.failure = ""

    def process(self, frames: Sequence[Frame]) -> None:
        """Process the newest frames of some cameras as one batch."""
        taken = time.monotonic()
        usable, images = self._convert([frame for frame in frames if self._is_heard(frame)])
        if not usable:
            return
        segmenter = self._segmenter()
        converted = time.monotonic()
        predictions = self._segment(segmenter, usable, images)
        inference_time = time.monotonic() - converted
        if all(prediction is not None for prediction in predictions):
            self.failure = ""
        timings: Mapping[str, float] = {}
        for frame, image, prediction in zip(usable, images, predictions, strict=True):
            if prediction is not None:
                self._publish(frame, image, prediction, segmenter.name, inference_time)
                timings = prediction.timings  # the same for the whole batch
        self.stages.add(timings)
        self.stages.add(
            {
                "wait": taken - min(frame.arrival for frame in usable),
                "convert": converted - taken,
                "segment": inference_time,
                "publish": time.monotonic() - converted - inference_time,
                "total": time.monotonic() - min(frame.arrival for frame in usable),
            }
        )

    def _is_heard(self, frame: Frame) -> bool:
        camera = self._cameras[frame.camera]
        if self._parameters().lazy and not camera.outputs.wanted():
            camera.statistics.count("unheard")
            return False
        return True

    def _convert(self, frames: Sequence[Frame]) -> tuple[list[Frame], list[np.ndarray]]:
        usable, images = [], []
        for frame in frames:
            try:
                images.append(image_from_message(frame.message))
                usable.append(frame)
            except ImageError as error:
                self._refuse(frame, error)
        return usable, images

    def _refuse(self, frame: Frame, error: ImageError) -> None:
        statistics = self._cameras[frame.camera].statistics
        statistics.refusal = str(error)
        number = statistics.count("refused")
        self._node.get_logger().warning(
            f"refused an image of {frame.camera or 'the camera'}: {error} ({number} so far)",
            throttle_duration_sec=WARN_PERIOD,
        )

    def _segment(
        self, segmenter: SegmenterLike, frames: Sequence[Frame], images: list[np.ndarray]
    ) -> Sequence[PanopticPrediction | None]:
        """Segment a batch; when that fails, each image alone. None stands for a failure."""
        try:
            return segmenter(images)
        except Exception as error:  # out of memory, a driver fault, ...: the node goes on
            if len(images) == 1:
                self._fail(frames[0], error)
                return [None]
        return [
            self._segment(segmenter, [frame], [image])[0]
            for frame, image in zip(frames, images, strict=True)
        ]

    def _fail(self, frame: Frame, error: Exception) -> None:
        self.failure = reason(error)
        number = self._cameras[frame.camera].statistics.count("failed")
        self._node.get_logger().error(
            f"could not segment an image: {self.failure} ({number} failed so far)",
            throttle_duration_sec=WARN_PERIOD,
        )

    def _publish(
        self,
        frame: Frame,
        image: np.ndarray,
        prediction: PanopticPrediction,
        model: str,
        inference_time: float,
    ) -> None:
        camera = self._cameras[frame.camera]
        header = frame.message.header
        camera.outputs.publish(
            header, image, prediction, model, inference_time, self._parameters().overlay_opacity
        )
        camera.statistics.count("published")
        age = self._node.get_clock().now() - Time.from_msg(header.stamp)
        camera.statistics.add_age(age.nanoseconds / 1e9)
