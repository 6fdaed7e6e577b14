"""The publishers of one camera and of the class table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from panoptic_ros.drawing import draw_overlay
from panoptic_ros.msg import PanopticCategoryArray, PanopticInstanceArray
from panoptic_ros.prediction import Category, PanopticPrediction, find_categories
from panoptic_ros.ros import messages
from panoptic_ros.ros.parameters import Parameters
from panoptic_ros.ros.publishers import LATCHED_QOS, OUTPUT_QOS, has_listener, matched_event
from panoptic_ros.ros.space_outputs import SpaceOutputs


class CameraOutputs:
    """What is published for each image of a camera, below ``~/CAMERA/``.

    Nothing is computed for a publisher without subscribers, and nothing leaves while the node is
    not active.

    Args:
        node: Owner of the publishers.
        camera: Name of the camera; the empty name is the single one.
        parameters: Which outputs there are.
        on_listeners: Called in the executor's thread when a subscriber has come or gone (not in
            Humble).

    Attributes:
        space: Outputs that need depth, with parameter ``depth``.
    """

    def __init__(
        self,
        node: LifecycleNode,
        camera: str,
        parameters: Parameters,
        on_listeners: Callable[[], None],
    ) -> None:
        self._node = node
        self._mask_classes = parameters.classes_in_mask
        prefix = f"~/{camera}/" if camera else "~/"
        events = matched_event(on_listeners)

        def publisher(message_type: type, name: str):
            return node.create_lifecycle_publisher(
                message_type, prefix + name, OUTPUT_QOS, event_callbacks=events
            )

        self._labels = publisher(Image, "labels")
        self._instances = publisher(PanopticInstanceArray, "instances")
        self._semantic = publisher(Image, "semantic")
        self._confidence = publisher(Image, "confidence")
        self._overlay = publisher(Image, "overlay")
        self._mask = publisher(Image, "mask") if self._mask_classes else None
        self._detections = None
        if messages.vision_msgs:
            self._detections = publisher(messages.vision_msgs.Detection2DArray, "detections")
        self._publishers = [
            self._labels,
            self._instances,
            self._semantic,
            self._confidence,
            self._overlay,
            *filter(None, (self._mask, self._detections)),
        ]
        self.space = None
        if parameters.depth:
            self.space = SpaceOutputs(node, publisher, self._instances)
            self._publishers += self.space.publishers

    def wanted(self) -> bool:
        """Tell whether any output has a subscriber."""
        return any(map(has_listener, self._publishers))

    def wants_image(self) -> bool:
        """Tell whether ``publish`` needs the image itself, at its full size."""
        return has_listener(self._overlay) or self._wants_points()

    def wants_confidence(self) -> bool:
        """Tell whether ``publish`` needs the confidence of every pixel."""
        return has_listener(self._confidence) or self._wants_points()

    def _wants_points(self) -> bool:
        return bool(self.space and self.space.wants_points())

    def publish(
        self,
        header: Header,
        image: np.ndarray,
        prediction: PanopticPrediction,
        model: str,
        inference_time: float,
        parameters: Parameters,
    ) -> None:
        """Publish the segmentation of an image.

        Args:
            header: Of the image; every output carries it.
            image: uint8, (H, W, 3), RGB; of another size than the labels, it is not shown.
            prediction: What was seen in it.
            model: Name of the model that saw it.
            inference_time: In seconds.
            parameters: In force.
        """
        if has_listener(self._labels):
            self._labels.publish(messages.image_message(header, "16UC1", prediction.labels))
        if self._detections and has_listener(self._detections):
            self._detections.publish(messages.detections_message(header, prediction))
        if has_listener(self._semantic):
            self._semantic.publish(messages.image_message(header, "mono8", prediction.semantic()))
        # Who subscribes after the image was segmented gets the next one.
        if has_listener(self._confidence) and prediction.confidence is not None:
            self._confidence.publish(
                messages.image_message(header, "mono8", prediction.confidence)
            )
        if self._mask and has_listener(self._mask):
            classes = find_categories(prediction.categories, self._mask_classes)
            self._mask.publish(messages.image_message(header, "mono8", prediction.mask(classes)))
        # Who subscribes to the overlay of an image decoded at a fraction gets the next one.
        if has_listener(self._overlay) and image.shape[:2] == prediction.labels.shape:
            overlay = draw_overlay(
                np.ascontiguousarray(image), prediction, parameters.overlay_opacity
            )
            self._overlay.publish(messages.image_message(header, "rgb8", overlay))
        scene = None
        if self.space and self.space.wanted():  # last, as it may wait for depth
            scene = self.space.look(header, prediction, parameters)
        if has_listener(self._instances):
            boxes = scene.boxes if scene else {}
            self._instances.publish(
                messages.instances_message(header, prediction, model, inference_time, boxes)
            )
        if scene:
            self.space.publish(header, image, prediction, scene, parameters.voxel_size)

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
