"""Lifecycle transitions that tell why they failed."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from panoptic_ros.ros.model_service import reason

if TYPE_CHECKING:
    from panoptic_ros.ros.node import PanopticNode

Transition = Callable[["PanopticNode", LifecycleState], TransitionCallbackReturn]


def explained(transition: Transition) -> Transition:
    """Report an exception in a transition, which rclpy swallows; the node is then cleaned up."""

    @wraps(transition)
    def guarded(node: PanopticNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception as error:
            node.report_error(f"{transition.__name__} failed: {reason(error)}")
            return TransitionCallbackReturn.ERROR

    return guarded
