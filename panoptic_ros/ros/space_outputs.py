"""What is published of a camera's things in space, from the depth beside its images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from panoptic_ros.files.depth_messages import (
    DepthError,
    camera_from_message,
    depth_from_message,
)
from panoptic_ros.prediction import Box, PanopticPrediction
from panoptic_ros.ros import messages, space_messages
from panoptic_ros.ros.depth_frames import DepthFrames, DepthPair, nanoseconds
from panoptic_ros.ros.parameters import Parameters
from panoptic_ros.ros.publishers import has_listener
from panoptic_ros.space.boxes import find_boxes
from panoptic_ros.space.camera import Pinhole
from panoptic_ros.space.points import organised_cloud, thinned_cloud

WARN_PERIOD = 5.0  # seconds between two warnings


@dataclass(frozen=True)
class Scene:
    """An image with its depth.

    Attributes:
        depth: float32, (H, W), in metres; NaN where it is missing.
        camera: That took both.
        boxes: Of the things, by id.
    """

    depth: np.ndarray
    camera: Pinhole
    boxes: Mapping[int, Box]


class SpaceOutputs:
    """``~/points`` and ``~/instances_3d`` of a camera, and the depth that they need.

    Args:
        node: For its log.
        publisher: Makes a publisher of a type and a name.
        instances: Publisher of other messages that say where things are.

    Attributes:
        frames: The depth that has come.
        publishers: Those that are here.
    """

    def __init__(self, node: Node, publisher: Callable[[type, str], Any], instances: Any) -> None:
        self._node = node
        self.frames = DepthFrames()
        self._points = publisher(PointCloud2, "points")
        self._boxes = None
        if messages.vision_msgs:
            self._boxes = publisher(messages.vision_msgs.Detection3DArray, "instances_3d")
        self.publishers = list(filter(None, (self._points, self._boxes)))
        self._served = [*self.publishers, instances]

    def wanted(self) -> bool:
        """Tell whether somebody wants to know where things are."""
        return any(map(has_listener, self._served))

    def wants_points(self) -> bool:
        """Tell whether somebody wants the cloud, which needs the image and confidence."""
        return has_listener(self._points)

    def look(
        self, header: Header, prediction: PanopticPrediction, parameters: Parameters
    ) -> Scene | None:
        """Return the scene of an image, for whose depth it may wait a moment; None if none came.

        Args:
            header: Of the image.
            prediction: What was seen in it.
            parameters: In force.
        """
        tolerance = round(parameters.depth_tolerance * 1e9)
        pair = self.frames.match(nanoseconds(header.stamp), tolerance)
        if pair is None:
            return None
        try:
            return _scene(pair, prediction)
        except DepthError as error:
            number = self.frames.refuse(str(error))
            self._node.get_logger().warning(
                f"refused a depth image: {error} ({number} so far)",
                throttle_duration_sec=WARN_PERIOD,
            )
            return None

    def publish(
        self,
        header: Header,
        image: np.ndarray,
        prediction: PanopticPrediction,
        scene: Scene,
        voxel_size: float,
    ) -> None:
        """Publish a scene.

        Args:
            header: Of the image; every output carries it.
            image: uint8, (H, W, 3), RGB; of another size than the labels, there is no cloud.
            prediction: What was seen in it.
            scene: Where that is.
            voxel_size: In metres; 0 for the organised cloud.
        """
        if self._boxes and has_listener(self._boxes):
            self._boxes.publish(space_messages.boxes_message(header, prediction, scene.boxes))
        # Who subscribes to the cloud of an image decoded at a fraction gets the next one.
        if has_listener(self._points) and image.shape[:2] == prediction.labels.shape:
            points = organised_cloud(scene.depth, image, prediction, scene.camera)
            if voxel_size > 0:
                points = thinned_cloud(points, voxel_size)
            self._points.publish(space_messages.cloud_message(header, points))


def _scene(pair: DepthPair, prediction: PanopticPrediction) -> Scene:
    labels = prediction.labels
    camera = camera_from_message(pair.info, labels.shape)
    depth = depth_from_message(pair.image, labels.shape)
    return Scene(depth, camera, find_boxes(depth, labels, prediction.instances, camera))
