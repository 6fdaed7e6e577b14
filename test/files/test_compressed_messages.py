"""Compressed camera messages: JPEG, PNG, damaged ones."""

from __future__ import annotations

import array

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image

from panoptic_ros.files import camera_messages
from panoptic_ros.files.camera_messages import (
    ENCODINGS,
    ImageError,
    image_and_size,
    image_from_message,
)
from test.files.test_camera_messages import HEIGHT, RGB, SMOOTH, WIDTH, raw


def compressed(extension: str, pixels: np.ndarray, form: str) -> CompressedImage:
    done, data = cv2.imencode(extension, pixels, [cv2.IMWRITE_JPEG_QUALITY, 98])
    assert done
    return CompressedImage(format=form, data=array.array("B", data.tobytes()))


@pytest.fixture(params=["simplejpeg", "cv2"])
def decoder(request, monkeypatch):
    """Run a test with each of the JPEG decoders."""
    if request.param == "cv2":
        monkeypatch.setattr(camera_messages, "simplejpeg", None)
    elif camera_messages.simplejpeg is None:
        pytest.skip("simplejpeg is not installed")


@pytest.mark.parametrize("form", ["jpeg", "jpg", "", "rgb8; jpeg compressed bgr8"])
def test_jpeg(decoder, form):
    image = image_from_message(compressed(".jpg", SMOOTH[..., ::-1], form))
    assert image.shape == SMOOTH.shape
    assert np.abs(image.astype(int) - SMOOTH).mean() < 3


@pytest.mark.parametrize(
    ("enough", "decoded"),
    [
        ((200, 300), (200, 300)),
        ((101, 150), (200, 300)),  # 5/8 would be slower than the whole
        ((100, 150), (100, 150)),
        ((75, 100), (75, 113)),
        ((50, 75), (50, 75)),
        ((1, 75), (50, 75)),  # both sides must be enough
        ((1, 1), (25, 38)),
    ],
)
def test_jpeg_at_a_fraction(enough, decoded):
    pytest.importorskip("simplejpeg", reason="simplejpeg is not installed")
    large = cv2.resize(SMOOTH, (300, 200), interpolation=cv2.INTER_CUBIC)
    asked = []

    def fit(size):
        asked.append(size)
        return enough

    image, size = image_and_size(compressed(".jpg", large[..., ::-1], "jpeg"), fit)
    assert size == (200, 300) and asked == [size]
    assert image.shape == (*decoded, 3)
    expected = cv2.resize(large, decoded[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(int) - expected).mean() < 2


def test_what_has_no_fractions_comes_whole(monkeypatch):
    image, size = image_and_size(raw("bgr8", RGB[..., ::-1]), lambda size: (1, 1))
    np.testing.assert_array_equal(image, RGB)
    assert size == (HEIGHT, WIDTH)
    image, size = image_and_size(compressed(".png", RGB[..., ::-1], "png"), lambda size: (1, 1))
    np.testing.assert_array_equal(image, RGB)
    assert size == (HEIGHT, WIDTH)
    monkeypatch.setattr(camera_messages, "simplejpeg", None)
    image, size = image_and_size(compressed(".jpg", SMOOTH, "jpeg"), lambda size: (1, 1))
    assert image.shape == SMOOTH.shape and size == SMOOTH.shape[:2]


def test_gray_jpeg(decoder):
    image = image_from_message(compressed(".jpg", SMOOTH[..., 1], "mono8; jpeg compressed "))
    assert image.shape == SMOOTH.shape
    assert np.abs(image.astype(int) - SMOOTH[..., 1:2]).mean() < 3


def test_jpeg_with_padding_behind_it(decoder):
    message = compressed(".jpg", SMOOTH[..., ::-1], "jpeg")
    expected = image_from_message(message)
    message.data.frombytes(bytes(64))
    np.testing.assert_array_equal(image_from_message(message), expected)


def test_orientation_tag_does_not_turn_the_image(decoder):
    data = bytes(compressed(".jpg", SMOOTH[..., ::-1], "jpeg").data)
    tag = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"  # orientation 6: rotated by 90
    exif = b"Exif\0\0MM\0*\x00\x00\x00\x08\x00\x01" + tag + bytes(4)
    data = data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]
    message = CompressedImage(format="jpeg", data=array.array("B", data))
    assert image_from_message(message).shape == SMOOTH.shape


@pytest.mark.parametrize("form", ["png", "bgr8; png compressed bgr8"])
def test_png_is_exact(form):
    image = image_from_message(compressed(".png", RGB[..., ::-1], form))
    np.testing.assert_array_equal(image, RGB)


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9, 0.999])
def test_truncated(decoder, extension, kept):
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    message = compressed(extension, noise, "")
    message.data = message.data[: int(kept * len(message.data))]
    with pytest.raises(ImageError, match="truncated|broken"):
        image_from_message(message)


@pytest.mark.parametrize(
    ("form", "data", "reason"),
    [
        ("jpeg", b"", "neither JPEG nor PNG"),
        ("jpeg", b"rubbish", "neither JPEG nor PNG"),
        ("jpeg", b"\xff\xd8\xff\xda rubbish \xff\xd9", "broken"),
        ("png", b"\x89PNG\r\n\x1a\n rubbish IEND\xaeB`\x82", "broken"),
        ("16UC1; compressedDepth png", b"", "depth image"),
        ("16UC1; png compressed ", b"", "depth image"),
        ("bayer_rggb8; png compressed ", b"", "Bayer mosaic"),
    ],
)
def test_compressed_that_cannot_be_used(decoder, form, data, reason):
    with pytest.raises(ImageError, match=reason):
        image_from_message(CompressedImage(format=form, data=array.array("B", data)))


def test_only_image_errors_come_out():
    """Whatever the fields say, the answer is an image or an ImageError."""
    random = np.random.default_rng(2)
    for _ in range(500):
        message = Image(
            encoding=str(random.choice(ENCODINGS)),
            height=int(random.integers(0, 9)),
            width=int(random.integers(0, 9)),
            step=int(random.integers(0, 40)),
            is_bigendian=int(random.integers(0, 2)),
        )
        message.data.frombytes(
            bytes(message.step * message.height * int(random.integers(1, 4)) // 2)
        )
        try:
            image = image_from_message(message)
        except ImageError:
            continue
        assert image.shape == (message.height, message.width, 3) and image.dtype == np.uint8
