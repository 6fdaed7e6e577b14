"""The image subscription of one camera: its topic, its QoS, and why nothing comes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CompressedImage, Image

from panoptic_ros.ros.pipeline import Camera, Pipeline
from panoptic_ros.ros.service import Service
from panoptic_ros.ros.worker import Frame, RateLimit
from panoptic_ros.system import large_image_environment, profile_variable

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

RELIABLE, BEST_EFFORT = QoSReliabilityPolicy.RELIABLE, QoSReliabilityPolicy.BEST_EFFORT
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
        topic: Resolved name of the subscribed topic.
        problem: What is wrong with the input; empty when nothing is.
        reliability: Of the latest subscription; None before the first.
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
        self._type = Image
        self.topic = node.resolve_topic_name(f"{camera}/image" if camera else "image")
        if service.parameters.image_transport == "compressed":
            self._type = CompressedImage
            # As image_transport does: remapping the image moves its compressed sibling along.
            self.topic = self.topic.removesuffix("/compressed") + "/compressed"
        self._subscribed_at = float("inf")
        self._incompatible = False
        self.problem = ""
        self.reliability: QoSReliabilityPolicy | None = None
        self._subscription: Any = None
        self.follow_listeners()

    @property
    def waits_for_listener(self) -> bool:
        """Whether there is no subscription, because nobody wants the results."""
        return self._subscription is None

    def follow_listeners(self) -> None:
        """Subscribe if the results are wanted; call it in the executor's thread.

        The end of a subscription is left to ``update``, for who has gone may be back at once.
        """
        if self._subscription is None and self._is_wanted():
            self._subscribed_at = time.monotonic()
            self._subscribe(self._choose_reliability())

    def update(self) -> None:
        """Follow those who publish the images and who want the results.

        It also says why when no image comes. Call it about once a second in the executor's
        thread: it may replace the subscription.
        """
        self.problem = ""
        if self._subscription and not self._is_wanted():
            self._node.get_logger().info(f"nobody listens: unsubscribed from {self.topic}")
            self.destroy()
        self.follow_listeners()
        if self._subscription:
            reliability = self._choose_reliability()
            if reliability != self.reliability:
                self.destroy()
                self._subscribe(reliability)
            self._look_for_problems()

    def _is_wanted(self) -> bool:
        return self._target.is_wanted(self._service)

    def _choose_reliability(self) -> QoSReliabilityPolicy:
        return choose_reliability(
            self._service.parameters.reliability, self._offers(), self.reliability
        )

    def _look_for_problems(self) -> None:
        silent = min(
            time.monotonic() - self._subscribed_at,
            self._target.statistics.seconds_since("received"),
        )
        if silent >= SILENCE:
            self.problem = f"no image on {self.topic} for {silent:.0f} s: {self._explanation()}"
        elif self._incompatible:
            self.problem = (
                f"a publisher of {self.topic} offers incompatible QoS, its images cannot come: "
                f"{self._explanation()}"
            )
        if self.problem:
            self._node.get_logger().warning(self.problem, throttle_duration_sec=WARN_PERIOD)

    def destroy(self) -> None:
        """Unsubscribe; call it in the executor's thread."""
        if self._subscription:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def publishers(self) -> str:
        """Return in words who publishes the topic."""
        return ", ".join(map(_describe, self._found())) or "none"

    def _subscribe(self, reliability: QoSReliabilityPolicy) -> None:
        self.reliability, self._incompatible = reliability, False
        self._node.get_logger().info(
            f"subscribing to {self.topic} ({_short_type(self._type)}, "
            f"{self.reliability.name.lower()}); publishers found: {self.publishers()}"
        )
        self._subscription = self._node.create_subscription(
            self._type,
            self.topic,
            self.receive,
            QoSProfile(depth=1, reliability=self.reliability),
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible_qos),
        )

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

    def _on_incompatible_qos(self, _event: Any) -> None:
        self._incompatible = True

    def _found(self) -> Sequence[TopicEndpointInfo]:
        return self._node.get_publishers_info_by_topic(self.topic)

    def _offers(self) -> list[QoSReliabilityPolicy]:
        return [info.qos_profile.reliability for info in self._found()]

    def _explanation(self) -> str:
        """Say why no image comes, and the way out."""
        found = self._found()
        expected = f"sensor_msgs/msg/{self._type.__name__}"
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
        if self._incompatible:
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


def choose_reliability(
    wanted: str, offers: Sequence[QoSReliabilityPolicy], current: QoSReliabilityPolicy | None
) -> QoSReliabilityPolicy:
    """Decide on the reliability to request.

    A reliable subscription gets nothing from a best-effort publisher; a best-effort one matches
    all, but loses large images where a reliable one would not.

    Args:
        wanted: The parameter: reliable, best_effort, or auto to follow the publishers.
        offers: Reliability of the publishers found.
        current: What is requested now; kept by auto while there is no publisher.
    """
    if wanted != "auto":
        return RELIABLE if wanted == "reliable" else BEST_EFFORT
    if not offers:
        return current or BEST_EFFORT
    return RELIABLE if all(offer == RELIABLE for offer in offers) else BEST_EFFORT


def _describe(info: TopicEndpointInfo) -> str:
    name = f"{info.node_namespace.rstrip('/')}/{info.node_name}"
    if "UNKNOWN" in info.node_name:  # rmw's word for it while a node is just being discovered
        name = "a node that is being discovered"
    reliability = info.qos_profile.reliability.name.lower()
    return f"{name} ({info.topic_type.rpartition('/')[2]}, {reliability})"


def _short_type(message_type: type) -> str:
    return message_type.__name__
