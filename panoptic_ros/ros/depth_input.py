"""The depth images and the camera_info that belong to the images of one camera."""

from __future__ import annotations

import time

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from panoptic_ros.ros.depth_frames import DepthFrames
from panoptic_ros.ros.service import Service
from panoptic_ros.ros.space_outputs import SpaceOutputs
from panoptic_ros.ros.subscription import Subscription

SILENCE = 5.0  # seconds without depth that are worth a warning
WARN_PERIOD = 10.0
QUEUE = 5  # messages that may wait while the executor is busy; nothing is computed with them here


class DepthInput:
    """Subscribes while somebody wants to know where things are.

    Args:
        node: Owner of the subscriptions.
        camera: Name of the camera; the empty name is the single one.
        service: The parameters in force.
        outputs: They take the depth, and know whether it is wanted.

    Attributes:
        problem: What is wrong with it; empty when nothing is.
    """

    def __init__(self, node: Node, camera: str, service: Service, outputs: SpaceOutputs) -> None:
        self._node = node
        self._outputs = outputs
        prefix = f"{camera}/" if camera else ""
        frames = outputs.frames
        self._image = Subscription(node, Image, f"{prefix}depth", frames.add_image, service, QUEUE)
        self._info = Subscription(
            node, CameraInfo, f"{prefix}camera_info", frames.add_info, service, QUEUE
        )
        self._opened_at = time.monotonic()
        self.problem = ""

    @property
    def frames(self) -> DepthFrames:
        """What came and what became of it."""
        return self._outputs.frames

    @property
    def topic(self) -> str:
        """Resolved name of the topic of depth images."""
        return self._image.topic

    def follow_listeners(self) -> None:
        """Subscribe if depth is wanted."""
        if not self._image.is_open and self._outputs.wanted():
            self._opened_at = time.monotonic()
            self._image.open()
            self._info.open()

    def update(self) -> None:
        """Follow those who publish and who listen, and say why when nothing comes."""
        self.problem = ""
        if not self._image.is_open:
            return
        if not self._outputs.wanted():
            self.destroy()
            return
        self._image.open()
        self._info.open()
        self.problem = self._find_problem()
        if self.problem:
            self._node.get_logger().warning(self.problem, throttle_duration_sec=WARN_PERIOD)

    def _find_problem(self) -> str:
        is_open = time.monotonic() - self._opened_at
        silent = min(is_open, self.frames.seconds_since_image())
        if silent >= SILENCE:
            return (
                f"no depth image on {self._image.topic} for {silent:.0f} s: publishers found: "
                f"{self._image.publishers()}; of {self._info.topic}: {self._info.publishers()}"
            )
        if is_open < SILENCE:
            return ""
        if not self.frames.has_info:
            return (
                f"no camera_info on {self._info.topic}, without which depth says nothing: "
                f"publishers found: {self._info.publishers()}"
            )
        return self.frames.mismatch if self.frames.seconds_since_match() >= SILENCE else ""

    def destroy(self) -> None:
        """Unsubscribe."""
        self._image.close()
        self._info.close()
