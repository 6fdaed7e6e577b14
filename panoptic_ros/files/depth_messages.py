"""Depth and camera_info messages to arrays: what REP 118 says of depth images, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from panoptic_ros.files.camera_messages import ImageError, packed_pixels
from panoptic_ros.files.image_size import Size
from panoptic_ros.space.camera import Pinhole

if TYPE_CHECKING:
    from sensor_msgs.msg import CameraInfo, Image


class DepthError(ValueError):
    """A depth image or a camera_info that cannot be used; the message of the error says why."""


def depth_from_message(message: Image, size: Size) -> np.ndarray:
    """Return a depth image: float32, (H, W), in metres; NaN where there is none.

    Args:
        message: 16UC1 (also called mono16) in millimetres, or 32FC1 in metres.
        size: (height, width) of the image to which it has to be registered.

    Raises:
        DepthError: It is of another encoding or size, or damaged.
    """
    if (message.height, message.width) != tuple(size):
        raise DepthError(
            f"the depth image is {message.width}x{message.height} and the colour image "
            f"{size[1]}x{size[0]}; depth has to be registered to the colour image"
        )
    try:
        if message.encoding in ("16UC1", "mono16"):
            millimetres = packed_pixels(message, 16, 1)[..., 0]
            depth = millimetres * np.float32(0.001)
            depth[millimetres == 0] = np.nan
        elif message.encoding == "32FC1":
            depth = packed_pixels(message, 32, 1, kind="f")[..., 0].astype(np.float32)
            depth[~((depth > 0) & (depth < np.inf))] = np.nan
        else:
            raise DepthError(
                f"the depth image has encoding {message.encoding!r}; expected 16UC1 in "
                "millimetres or 32FC1 in metres"
            )
    except ImageError as error:
        raise DepthError(f"the depth image is damaged: {error}") from error
    return depth


def camera_from_message(message: CameraInfo, size: Size) -> Pinhole:
    """Return the camera of rectified images: the projection P, else the matrix K.

    Args:
        message: Of the camera.
        size: (height, width) of the image.

    Raises:
        DepthError: It is not calibrated, or for images of another size.
    """
    roi = message.roi
    binning = max(message.binning_x, 1), max(message.binning_y, 1)
    whole = (
        (roi.width, roi.height) if roi.width and roi.height else (message.width, message.height)
    )
    width, height = (side // n for side, n in zip(whole, binning, strict=True))
    if (height, width) != tuple(size):
        raise DepthError(
            f"camera_info is for images of {width}x{height}, the image is {size[1]}x{size[0]}"
        )
    p, k = message.p, message.k
    fx, fy, cx, cy = (p[0], p[5], p[2], p[6]) if p[0] > 0 else (k[0], k[4], k[2], k[5])
    if not (fx > 0 and fy > 0 and np.isfinite((fx, fy, cx, cy)).all()):
        raise DepthError(f"camera_info is not calibrated: its focal lengths are {fx} and {fy}")
    return Pinhole(
        fx / binning[0],
        fy / binning[1],
        (cx - roi.x_offset) / binning[0],
        (cy - roi.y_offset) / binning[1],
    )
