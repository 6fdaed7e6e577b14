"""The publishers of one camera and of the class table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from panoptic_ros.msg import PanopticCategoryArray, PanopticInstanceArray
from panoptic_ros.prediction import Category, PanopticPrediction
from panoptic_ros.ros import messages

OUTPUT_QOS = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.RELIABLE)
LATCHED_QOS = QoSProfile(
    depth=1,
    reliability=QoSReliabilityPolicy.RELIABLE,
    durability=QoSDurabilityPolicy.TRANSIENT_LOCAL,
)


class CameraOutputs:
    """What is published for each image of a camera, below ``~/CAMERA/``.

    Nothing is computed for a publisher without subscribers, and nothing leaves while the node is
    not active.
    """

    def __init__(self, node: LifecycleNode, camera: str) -> None:
        self._node = node
        prefix = f"~/{camera}/" if camera else "~/"

        def publisher(message_type: type, name: str):
            return node.create_lifecycle_publisher(message_type, prefix + name, OUTPUT_QOS)

        self._labels = publisher(Image, "labels")
        self._instances = publisher(PanopticInstanceArray, "instances")
        self._semantic = publisher(Image, "semantic")
        self._overlay = publisher(Image, "overlay")
        self._detections = None
        if messages.vision_msgs:
            self._detections = publisher(messages.vision_msgs.Detection2DArray, "detections")
        self._publishers = [
            self._labels,
            self._instances,
            self._semantic,
            self._overlay,
            *([self._detections] if self._detections else []),
        ]

    def wanted(self) -> bool:
        """Tell whether any output has a subscriber."""
        return any(map(_has_listener, self._publishers))

    def publish(
        self,
        header: Header,
        image: np.ndarray,
        prediction: PanopticPrediction,
        model: str,
        inference_time: float,
        overlay_opacity: float,
    ) -> None:
        """Publish the segmentation of an image.

        Args:
            header: Of the image; every output carries it.
            image: uint8, (H, W, 3), RGB.
            prediction: What was seen in it.
            model: Name of the model that saw it.
            inference_time: In seconds.
            overlay_opacity: 0..1.
        """
        if _has_listener(self._labels):
            self._labels.publish(messages.image_message(header, "16UC1", prediction.labels))
        if _has_listener(self._instances):
            self._instances.publish(
                messages.instances_message(header, prediction, model, inference_time)
            )
        if self._detections and _has_listener(self._detections):
            self._detections.publish(messages.detections_message(header, prediction))
        if _has_listener(self._semantic):
            self._semantic.publish(messages.image_message(header, "mono8", prediction.semantic()))
        if _has_listener(self._overlay):
            overlay = prediction.overlay(np.ascontiguousarray(image), overlay_opacity)
            self._overlay.publish(messages.image_message(header, "rgb8", overlay))

    def destroy(self) -> None:
        """Remove the publishers; call it in the executor's thread."""
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)


class CategoryOutputs:
    """The class table of the model in service, kept for late subscribers."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._categories = node.create_publisher(
            PanopticCategoryArray, "~/categories", LATCHED_QOS
        )
        self._label_info = None
        if messages.vision_msgs:
            self._label_info = node.create_publisher(
                messages.vision_msgs.LabelInfo, "~/label_info", LATCHED_QOS
            )

    def publish(self, model: str, categories: Sequence[Category]) -> None:
        """Publish the class table of a model that takes over now."""
        header = Header(stamp=self._node.get_clock().now().to_msg())
        self._categories.publish(messages.categories_message(header, model, categories))
        if self._label_info:
            self._label_info.publish(messages.label_info_message(header, categories))

    def destroy(self) -> None:
        """Remove the publishers, and with them the table that late subscribers would get."""
        self._node.destroy_publisher(self._categories)
        if self._label_info:
            self._node.destroy_publisher(self._label_info)


def _has_listener(publisher) -> bool:
    return publisher.get_subscription_count() > 0
