"""Depth images and camera_info: units, byte orders, and what is refused."""

from __future__ import annotations

import array

import numpy as np
import pytest

sensor_msgs = pytest.importorskip("sensor_msgs.msg", reason="ROS 2 is not installed")

from panoptic_ros.files.depth_messages import (  # noqa: E402
    DepthError,
    camera_from_message,
    depth_from_message,
)
from panoptic_ros.space.camera import Pinhole  # noqa: E402

SIZE = (2, 3)
MILLIMETRES = np.array([[0, 1, 1000], [65535, 2500, 12]], np.uint16)
METRES = np.array([[np.nan, 0.001, 1], [65.535, 2.5, 0.012]], np.float32)


def message(encoding, pixels, padding=0, big_endian=False, **fields):
    pixels = pixels.astype(pixels.dtype.newbyteorder(">" if big_endian else "<"))
    rows = [row.tobytes() + b"\xff" * padding for row in pixels]
    values = {"height": 2, "width": 3, "step": len(rows[0])} | fields
    data = array.array("B", b"".join(rows))
    return sensor_msgs.Image(encoding=encoding, is_bigendian=big_endian, data=data, **values)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize(
    ("encoding", "pixels"), [("16UC1", MILLIMETRES), ("mono16", MILLIMETRES), ("32FC1", METRES)]
)
def test_depth_is_in_metres(encoding, pixels, padding, big_endian):
    depth = depth_from_message(message(encoding, pixels, padding, big_endian), SIZE)
    assert depth.dtype == np.float32 and depth.dtype.isnative
    np.testing.assert_allclose(depth, METRES, rtol=1e-6)


def test_what_is_no_depth_is_nan():
    odd = np.array([[np.inf, -np.inf, -1], [0, np.nan, 3]], np.float32)
    expected = [[np.nan] * 3, [np.nan, np.nan, 3]]
    np.testing.assert_array_equal(depth_from_message(message("32FC1", odd), SIZE), expected)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (message("rgb8", MILLIMETRES), "encoding 'rgb8'; expected 16UC1 in millimetres or 32FC1"),
        (message("32SC1", METRES), "encoding '32SC1'"),
        (message("16UC1", MILLIMETRES, width=4), "is 4x2 and the colour image 3x2; .*registered"),
        (message("16UC1", MILLIMETRES, step=5), "damaged: its step is 5 bytes; 3 pixels of 16UC1"),
        (message("32FC1", METRES, step=13), "damaged: it has 24 bytes of data; 2 rows of 13"),
        (message("32FC1", MILLIMETRES), "damaged: its step is 6 bytes"),
    ],
)
def test_what_cannot_be_used_is_refused(made, reason):
    with pytest.raises(DepthError, match=reason):
        depth_from_message(made, SIZE)


def info(**fields):
    k = [300.0, 0, 31.5, 0, 310.0, 23.5, 0, 0, 1]
    return sensor_msgs.CameraInfo(**({"height": 48, "width": 64, "k": k} | fields))


def test_the_projection_is_that_of_rectified_images():
    assert camera_from_message(info(), (48, 64)) == Pinhole(300, 310, 31.5, 23.5)
    p = [280.0, 0, 30, 0, 0, 290.0, 20, 0, 0, 0, 1, 0]
    assert camera_from_message(info(p=p), (48, 64)) == Pinhole(280, 290, 30, 20)


def test_parts_and_binned_images():
    roi = sensor_msgs.RegionOfInterest(x_offset=4, y_offset=8, width=40, height=20)
    half = info(roi=roi, binning_x=2, binning_y=2)
    assert camera_from_message(half, (10, 20)) == Pinhole(150, 155, 13.75, 7.75)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (info(width=640), "is for images of 640x48, the image is 64x48"),
        (info(k=[0.0] * 9), "not calibrated: its focal lengths are 0.0 and 0.0"),
        (info(k=[float("nan")] * 9), "not calibrated"),
    ],
)
def test_camera_info_that_cannot_be_used_is_refused(made, reason):
    with pytest.raises(DepthError, match=reason):
        camera_from_message(made, (48, 64))
