"""A subscription that can be left and taken up again, and whose QoS follows the publishers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo

from panoptic_ros.ros.service import Service

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

RELIABLE, BEST_EFFORT = QoSReliabilityPolicy.RELIABLE, QoSReliabilityPolicy.BEST_EFFORT


class Subscription:
    """Subscribes to a topic while it is open. All methods belong to the executor's thread.

    Args:
        node: Owner of the subscription.
        message_type: Of the topic.
        topic: Relative name; it may be remapped.
        callback: Takes the messages.
        service: The parameters in force.
        depth: Messages that may wait to be taken.

    Attributes:
        message_type: Of the topic.
        topic: Resolved name.
        reliability: Of the latest subscription; None before the first.
        incompatible: Whether a publisher offers a QoS that cannot be taken.
    """

    def __init__(
        self,
        node: Node,
        message_type: type,
        topic: str,
        callback: Callable[[Any], None],
        service: Service,
        depth: int = 1,
    ) -> None:
        self._node = node
        self.message_type = message_type
        self.topic = node.resolve_topic_name(topic)
        self._callback = callback
        self._service = service
        self._depth = depth
        self.reliability: QoSReliabilityPolicy | None = None
        self.incompatible = False
        self._subscription: Any = None

    @property
    def is_open(self) -> bool:
        """Whether it is subscribed."""
        return self._subscription is not None

    def open(self) -> None:
        """Subscribe; where that is done, subscribe again if another reliability is due."""
        reliability = choose_reliability(
            self._service.parameters.reliability,
            [info.qos_profile.reliability for info in self.found()],
            self.reliability,
        )
        if self.is_open and reliability == self.reliability:
            return
        self.close()
        self.reliability, self.incompatible = reliability, False
        self._node.get_logger().info(
            f"subscribing to {self.topic} ({self.message_type.__name__}, "
            f"{reliability.name.lower()}); publishers found: {self.publishers()}"
        )
        self._subscription = self._node.create_subscription(
            self.message_type,
            self.topic,
            self._callback,
            QoSProfile(depth=self._depth, reliability=reliability),
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible),
        )

    def close(self) -> None:
        """Unsubscribe."""
        if self._subscription:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def found(self) -> Sequence[TopicEndpointInfo]:
        """Return who publishes the topic."""
        return self._node.get_publishers_info_by_topic(self.topic)

    def publishers(self) -> str:
        """Return in words who publishes the topic."""
        return ", ".join(map(_describe, self.found())) or "none"

    def _on_incompatible(self, _event: Any) -> None:
        self.incompatible = True


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
