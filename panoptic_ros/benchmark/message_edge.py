"""Both ends of the node without its transport: messages to images, predictions to messages.

What the middleware adds (serialising, the way between processes) is measured through a running
node, not here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from panoptic_ros.prediction import PanopticPrediction


class MessageEdge:
    """Camera messages of some images, and the messages of what was seen in them.

    Args:
        images: uint8, (H, W, 3), RGB; sent as bgr8, as most camera drivers do.

    Raises:
        ImportError: The ROS messages are not installed.
    """

    def __init__(self, images: Sequence[np.ndarray]) -> None:
        from std_msgs.msg import Header

        from panoptic_ros.files import camera_messages
        from panoptic_ros.ros import messages

        self._messages, self._conversions = messages, camera_messages
        header = Header(frame_id="camera")
        self.frames = [
            messages.image_message(header, "bgr8", image[..., ::-1]) for image in images
        ]

    def convert(self) -> list[np.ndarray]:
        """Return the images in the messages, as the node gets them: views of their bytes."""
        return [self._conversions.image_from_message(frame) for frame in self.frames]

    def publish(self, predictions: Sequence[PanopticPrediction], model: str) -> list[object]:
        """Make the label image and the instances of every prediction."""
        made = []
        for frame, prediction in zip(self.frames, predictions, strict=True):
            header = frame.header
            made.append(self._messages.image_message(header, "16UC1", prediction.labels))
            made.append(self._messages.instances_message(header, prediction, model, 0.0))
        return made


def message_edge(images: Sequence[np.ndarray]) -> MessageEdge | None:
    """Return the messages of images, or None where ROS is not installed."""
    try:
        return MessageEdge(images)
    except ImportError:
        return None
