"""Encodings against OpenCV and values worked out by hand; damaged messages are refused."""

from __future__ import annotations

import array

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import Image

from panoptic_ros.files.camera_messages import (
    ENCODINGS,
    ImageError,
    image_from_message,
)

HEIGHT, WIDTH = 6, 8
RGB = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
GRAY = RGB[..., 1]
SMOOTH = cv2.resize(RGB[:2, :2], (64, 48), interpolation=cv2.INTER_LINEAR)


def raw(encoding: str, pixels: np.ndarray, padding: int = 0, big_endian: bool = False) -> Image:
    """Make a message of rows of pixels, each followed by ``padding`` bytes of rubbish."""
    if pixels.dtype == np.uint16:
        pixels = pixels.astype(">u2" if big_endian else "<u2")
    rows = [row.tobytes() + b"\xaa" * padding for row in pixels]
    return Image(
        height=HEIGHT,
        width=WIDTH,
        encoding=encoding,
        step=len(rows[0]),
        is_bigendian=big_endian,
        data=array.array("B", b"".join(rows)),
    )


def with_alpha(rgb: np.ndarray) -> np.ndarray:
    return np.dstack([rgb, np.full(rgb.shape[:2], 77, rgb.dtype)])


GRAY_RGB = np.repeat(GRAY[..., None], 3, axis=2)
PACKED = {
    "rgb8": (RGB, RGB),
    "bgr8": (RGB[..., ::-1], RGB),
    "rgba8": (with_alpha(RGB), RGB),
    "bgra8": (with_alpha(RGB[..., ::-1]), RGB),
    "mono8": (GRAY, GRAY_RGB),
    "8UC1": (GRAY, GRAY_RGB),
    "8UC3": (RGB[..., ::-1], RGB),
    "8UC4": (with_alpha(RGB[..., ::-1]), RGB),
    # v * 257 is v in 16 bits: 0 stays 0, 255 becomes 65535
    "rgb16": (RGB.astype(np.uint16) * 257, RGB),
    "bgr16": (RGB[..., ::-1].astype(np.uint16) * 257, RGB),
    "rgba16": (with_alpha(RGB.astype(np.uint16) * 257), RGB),
    "bgra16": (with_alpha(RGB[..., ::-1].astype(np.uint16) * 257), RGB),
    "mono16": (GRAY.astype(np.uint16) * 257, GRAY_RGB),
}
PATTERNS = {  # colour of the pixels (0, 0), (0, 1), (1, 0), (1, 1)
    "bayer_rggb": (0, 1, 1, 2),
    "bayer_bggr": (2, 1, 1, 0),
    "bayer_gbrg": (1, 2, 0, 1),
    "bayer_grbg": (1, 0, 2, 1),
}


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", PACKED)
def test_packed_encodings(encoding, padding):
    pixels, expected = PACKED[encoding]
    image = image_from_message(raw(encoding, pixels, padding))
    assert image.dtype == np.uint8 and image.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("encoding", ["mono16", "rgb16", "bgra16"])
def test_big_endian(encoding):
    pixels, expected = PACKED[encoding]
    image = image_from_message(raw(encoding, pixels, padding=3, big_endian=True))
    np.testing.assert_array_equal(image, expected)


def test_16_bits_are_rounded_to_8():
    values = np.array([0, 128, 129, 385, 386, 32768, 65406, 65535] * HEIGHT, np.uint16)
    image = image_from_message(raw("mono16", values.reshape(HEIGHT, WIDTH)))
    assert image[0, :, 0].tolist() == [0, 0, 1, 1, 2, 128, 254, 255]


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
def test_8_bit_images_are_views(encoding):
    message = raw(encoding, PACKED[encoding][0])
    image = image_from_message(message)
    assert np.shares_memory(image, np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_bayer(pattern, bits, padding):
    color = np.array([200, 120, 40])
    tile = color[list(PATTERNS[pattern])].reshape(2, 2).astype(np.uint8)
    mosaic = np.tile(tile, (HEIGHT // 2, WIDTH // 2))
    if bits == 16:
        mosaic = mosaic.astype(np.uint16) * 257
    image = image_from_message(raw(f"{pattern}{bits}", mosaic, padding))
    np.testing.assert_array_equal(image, np.broadcast_to(color, (HEIGHT, WIDTH, 3)))


def yuv_of(red, green, blue):
    """BT.601 in video range, by the standard's formula."""
    y = 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255
    u = 128 + (-37.797 * red - 74.203 * green + 112.0 * blue) / 255
    v = 128 + (112.0 * red - 93.786 * green - 18.214 * blue) / 255
    return tuple(round(value) for value in (y, u, v))


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("encoding", ["uyvy", "yuv422", "yuyv", "yuv422_yuy2", "nv12", "nv21"])
def test_yuv(encoding, padding):
    color = (200, 90, 30)
    y, u, v = yuv_of(*color)
    if encoding in ("nv12", "nv21"):
        chroma = [u, v] if encoding == "nv12" else [v, u]
        luma_rows = np.full((HEIGHT, WIDTH), y, np.uint8)
        chroma_rows = np.tile(np.array(chroma, np.uint8), (HEIGHT // 2, WIDTH // 2))
        pixels = np.concatenate([luma_rows, chroma_rows])
    else:
        pair = [u, y, v, y] if encoding in ("uyvy", "yuv422") else [y, u, y, v]
        pixels = np.tile(np.array(pair, np.uint8), (HEIGHT, WIDTH // 2))
    image = image_from_message(raw(encoding, pixels, padding))
    assert image.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_allclose(image, np.broadcast_to(color, image.shape), atol=3)


def test_every_encoding_is_tested():
    tested = {*PACKED, *(f"{p}{b}" for p in PATTERNS for b in (8, 16))}
    tested |= {"uyvy", "yuv422", "yuyv", "yuv422_yuy2", "nv12", "nv21"}
    assert tested == set(ENCODINGS)


def test_equal_to_cv_bridge():
    cv_bridge = pytest.importorskip("cv_bridge", reason="cv_bridge comes with a ROS installation")
    bridge = cv_bridge.CvBridge()
    for encoding, (pixels, _) in PACKED.items():
        if not encoding.startswith("8UC"):
            message = raw(encoding, pixels)
            np.testing.assert_array_equal(
                image_from_message(message), bridge.imgmsg_to_cv2(message, "rgb8"), encoding
            )


@pytest.mark.parametrize("encoding", ["", "32FC1", "16UC1", "RGB8", "bayer_rggb12", "mono"])
def test_unknown_encoding(encoding):
    message = raw("rgb8", RGB)
    message.encoding = encoding
    with pytest.raises(ImageError, match="encoding .* is not one of rgb8"):
        image_from_message(message)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"step": 3 * WIDTH - 1}, "step is 23 bytes; 8 pixels of rgb8 need 24"),
        ({"step": 0}, "step is 0"),
        ({"step": 3 * WIDTH + 1}, "has 144 bytes of data; 6 rows of 25 bytes are 150"),
        ({"height": HEIGHT + 1}, "has 144 bytes of data"),
        ({"height": HEIGHT - 1}, "has 144 bytes of data"),
        ({"height": 0}, "size is 8x0"),
        ({"width": 0}, "size is 0x6"),
        ({"width": 2**32 - 1}, "declares 4294967295x6"),
        ({"data": array.array("B")}, "has 0 bytes"),
    ],
)
def test_size_that_does_not_fit(change, reason):
    message = raw("rgb8", RGB)
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(ImageError, match=reason):
        image_from_message(message)


@pytest.mark.parametrize(
    ("encoding", "width", "height"), [("yuyv", 7, 6), ("nv12", 8, 5), ("nv21", 7, 6)]
)
def test_odd_sizes_of_shared_chroma(encoding, width, height):
    message = Image(encoding=encoding, width=width, height=height, step=100)
    message.data = array.array("B", bytes(100 * height * 2))
    with pytest.raises(ImageError, match="needs even sizes"):
        image_from_message(message)
