"""What all publishers have in common: their QoS, and who listens to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy

try:
    from rclpy.event_handler import PublisherEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks

OUTPUT_QOS = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.RELIABLE)
LATCHED_QOS = QoSProfile(
    depth=1,
    reliability=QoSReliabilityPolicy.RELIABLE,
    durability=QoSDurabilityPolicy.TRANSIENT_LOCAL,
)


def matched_event(callback: Callable[[], None]) -> PublisherEventCallbacks | None:
    """Return the event of a subscriber that has come or gone; None in Humble, which has none."""
    try:
        return PublisherEventCallbacks(matched=lambda _: callback())
    except TypeError:
        return None


def has_listener(publisher: Any) -> bool:
    """Tell whether a publisher has a subscriber."""
    return publisher.get_subscription_count() > 0
