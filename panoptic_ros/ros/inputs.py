"""The image subscription of one camera: its topic, its QoS, and why nothing comes."""

from __future__ import annotations

import time

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from panoptic_ros.ros.depth_input import DepthInput
from panoptic_ros.ros.pipeline import Camera, Pipeline
from panoptic_ros.ros.service import Service
from panoptic_ros.ros.subscription import Subscription
from panoptic_ros.ros.worker import Frame, RateLimit
from panoptic_ros.system import large_image_environment, profile_variable

SILENCE = 5.0  # seconds without an image that are worth a warning
WARN_PERIOD = 10.0  # seconds between two warnings of silence


class CameraInput:
    """Subscribes to the images of one camera and passes on those that are due.

    It subscribes only while the results are wanted: rclpy copies every image that comes, which
    costs a camera of 30 Hz a tenth of a core even when all are thrown away.

    Args:
        node: Owner of the subscription.
        camera: Name of the camera; the empty name is the single one.
        service: The parameters in force.
        target: Where the results and the counts of the camera go.
        pipeline: Takes the frames.

    Attributes:
        problem: What is wrong with the input; empty when nothing is.
        depth: The depth images beside them, with parameter ``depth``.
    """

    def __init__(
        self,
        node: Node,
        camera: str,
        service: Service,
        target: Camera,
        pipeline: Pipeline,
    ) -> None:
        self._node = node
        self._camera = camera
        self._service = service
        self._target = target
        self._pipeline = pipeline
        self._rate_limit = RateLimit()
        type_, topic = Image, f"{camera}/image" if camera else "image"
        if service.parameters.image_transport == "compressed":
            type_ = CompressedImage
            # As image_transport does: remapping the image moves its compressed sibling along.
            topic = node.resolve_topic_name(topic).removesuffix("/compressed") + "/compressed"
        self._subscription = Subscription(node, type_, topic, self.receive, service)
        self.depth = None
        if target.outputs.space:
            self.depth = DepthInput(node, camera, service, target.outputs.space)
        self._subscribed_at = float("inf")
        self.problem = ""
        self.follow_listeners()

    @property
    def topic(self) -> str:
        """Resolved name of the subscribed topic."""
        return self._subscription.topic

    @property
    def reliability(self) -> QoSReliabilityPolicy | None:
        """That of the latest subscription; None before the first."""
        return self._subscription.reliability

    @property
    def waits_for_listener(self) -> bool:
        """Whether there is no subscription, because nobody wants the results."""
        return not self._subscription.is_open

    def publishers(self) -> str:
        """Return in words who publishes the topic."""
        return self._subscription.publishers()

    def follow_listeners(self) -> None:
        """Subscribe if the results are wanted; call it in the executor's thread.

        The end of a subscription is left to ``update``, for who has gone may be back at once.
        """
        if not self._subscription.is_open and self._is_wanted():
            self._subscribed_at = time.monotonic()
            self._subscription.open()
        if self.depth:
            self.depth.follow_listeners()

    def update(self) -> None:
        """Follow those who publish the images and who want the results.

        It also says why when no image comes. Call it about once a second in the executor's
        thread: it may replace the subscription.
        """
        self.problem = ""
        if self._subscription.is_open and not self._is_wanted():
            self._node.get_logger().info(f"nobody listens: unsubscribed from {self.topic}")
            self._subscription.close()
        self.follow_listeners()
        if self._subscription.is_open:
            self._subscription.open()
            self._look_for_problems()
        if self.depth:
            self.depth.update()

    def _is_wanted(self) -> bool:
        return self._target.is_wanted(self._service)

    def _look_for_problems(self) -> None:
        silent = min(
            time.monotonic() - self._subscribed_at,
            self._target.statistics.seconds_since("received"),
        )
        if silent >= SILENCE:
            self.problem = f"no image on {self.topic} for {silent:.0f} s: {self._explanation()}"
        elif self._subscription.incompatible:
            self.problem = (
                f"a publisher of {self.topic} offers incompatible QoS, its images cannot come: "
                f"{self._explanation()}"
            )
        if self.problem:
            self._node.get_logger().warning(self.problem, throttle_duration_sec=WARN_PERIOD)

    def destroy(self) -> None:
        """Unsubscribe; call it in the executor's thread."""
        self._subscription.close()
        if self.depth:
            self.depth.destroy()

    def receive(self, message: Image | CompressedImage) -> None:
        """Take an image; it is segmented unless it is one too many or a newer one comes."""
        now = time.monotonic()
        self._target.statistics.count("received")
        stamp = message.header.stamp
        seconds = stamp.sec + stamp.nanosec * 1e-9 or now  # some drivers do not stamp
        if not self._rate_limit.admits(seconds, self._service.parameters.max_rate):
            self._target.statistics.count("rate_limited")
        elif self._pipeline.offer(Frame(self._camera, message, now)) is not None:
            self._target.statistics.count("dropped")

    def _explanation(self) -> str:
        """Say why no image comes, and the way out."""
        found = self._subscription.found()
        expected = f"sensor_msgs/msg/{self._subscription.message_type.__name__}"
        if not found:
            own = f"{self._node.get_fully_qualified_name()}/"
            others = [
                name
                for name, types in self._node.get_topic_names_and_types()
                if expected in types and name != self.topic and not name.startswith(own)
            ]
            return (
                "it has no publisher. Topics with images of this kind: "
                f"{', '.join(others) or 'none'}; remap image to one of them"
            )
        text = f"publishers found: {self.publishers()}"
        if all(info.topic_type != expected for info in found):
            return f"{text}, but {expected} is expected; check image_transport"
        if self._subscription.incompatible:
            return (
                f"{text}; {self.reliability.name.lower()} is requested: set reliability to auto "
                "or best_effort"
            )
        if "fastrtps" in rclpy.get_rmw_implementation_identifier():
            variable = profile_variable()
            text += (
                "; stock Fast DDS loses images above 0.5 MB: start the camera and this node with "
                f"{variable}={large_image_environment()[variable]}"
            )
        return text
