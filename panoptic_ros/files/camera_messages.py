"""Camera messages to images: the only place that knows encodings.

An image is uint8, (height, width, 3), RGB. It is a view of the message's bytes where the encoding
allows: BGR messages give a view with reversed channels, mono messages one that repeats theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from panoptic_ros.files.image_size import (
    JPEG_START,
    MAX_PIXELS,
    PNG_START,
    Size,
    check_pixels,
    encoded_size,
)

if TYPE_CHECKING:
    from sensor_msgs.msg import CompressedImage, Image

try:
    import simplejpeg
except ImportError:  # cv2 decodes JPEG too, about half as fast
    simplejpeg = None

PNG_END = b"IEND"


class ImageError(ValueError):
    """An image message that cannot be used; the message of the error says why."""


class _Packed(NamedTuple):
    """Pixels of interleaved channels; ``rgb`` picks red, green and blue among them."""

    bits: int
    channels: int
    rgb: slice


_RGB, _BGR = slice(0, 3), slice(2, None, -1)

PACKED = {
    "rgb8": _Packed(8, 3, _RGB),
    "rgba8": _Packed(8, 4, _RGB),
    "rgb16": _Packed(16, 3, _RGB),
    "rgba16": _Packed(16, 4, _RGB),
    "bgr8": _Packed(8, 3, _BGR),
    "bgra8": _Packed(8, 4, _BGR),
    "bgr16": _Packed(16, 3, _BGR),
    "bgra16": _Packed(16, 4, _BGR),
    "mono8": _Packed(8, 1, _RGB),
    "mono16": _Packed(16, 1, _RGB),
    "8UC1": _Packed(8, 1, _RGB),
    "8UC3": _Packed(8, 3, _BGR),  # OpenCV's names, hence its channel order
    "8UC4": _Packed(8, 4, _BGR),
}

# OpenCV names a Bayer pattern by the second and third pixel of its second row.
BAYER = {
    "bayer_rggb": cv2.COLOR_BayerBG2RGB,
    "bayer_bggr": cv2.COLOR_BayerRG2RGB,
    "bayer_gbrg": cv2.COLOR_BayerGR2RGB,
    "bayer_grbg": cv2.COLOR_BayerGB2RGB,
}

# Two bytes per pixel; two pixels share their chroma.
YUV422 = {
    "uyvy": cv2.COLOR_YUV2RGB_UYVY,
    "yuv422": cv2.COLOR_YUV2RGB_UYVY,
    "yuyv": cv2.COLOR_YUV2RGB_YUY2,
    "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUY2,
}

# A plane of luma, then one of half as many rows with interleaved chroma.
YUV420 = {
    "nv12": cv2.COLOR_YUV2RGB_NV12,
    "nv21": cv2.COLOR_YUV2RGB_NV21,
}

ENCODINGS = (
    *PACKED,
    *(f"{pattern}{bits}" for pattern in BAYER for bits in (8, 16)),
    *YUV422,
    *YUV420,
)


def image_from_message(message: Image | CompressedImage) -> np.ndarray:
    """Return the image in a message: uint8, (height, width, 3), RGB.

    Raises:
        ImageError: The message is damaged, or of an encoding that is not a colour or grey image.
    """
    return image_and_size(message, lambda size: size)[0]


def image_and_size(
    message: Image | CompressedImage,
    fit: Callable[[Size], Size],
    max_pixels: int = MAX_PIXELS,
) -> tuple[np.ndarray, Size]:
    """Return the image in a message, a JPEG perhaps at a fraction of its size, and its size.

    Args:
        message: From the camera.
        fit: Returns the (height, width) of an image that is enough where that of the camera is
            given. A JPEG of at least twice that is decoded at 1/2, 3/8, 1/4 or 1/8.
        max_pixels: What declares more is refused before anything is allocated for it.

    Returns:
        The image, uint8, (height, width, 3), RGB, and the (height, width) of the camera's.

    Raises:
        ImageError: The message is damaged, or of an encoding that is not a colour or grey image.
    """
    try:
        if hasattr(message, "format"):  # rosbags' messages have other types, the same fields
            return _from_compressed(message, fit, max_pixels)
        _check_pixels((message.height, message.width), max_pixels)
        return _with_size(_from_raw(message))
    except cv2.error as error:
        raise ImageError(f"OpenCV cannot convert it: {error}") from error


def _check_pixels(size: Size, max_pixels: int) -> None:
    try:
        check_pixels(size, max_pixels)
    except ValueError as error:
        raise ImageError(str(error)) from error


def _with_size(image: np.ndarray) -> tuple[np.ndarray, Size]:
    return image, image.shape[:2]


def _from_raw(message: Image) -> np.ndarray:
    encoding = message.encoding
    if packed := PACKED.get(encoding):
        return _from_packed(message, packed)
    if (code := BAYER.get(encoding.rstrip("0123456789"))) is not None and encoding in ENCODINGS:
        mosaic = packed_pixels(message, 16 if encoding.endswith("16") else 8, channels=1)
        return cv2.cvtColor(_to_8_bit(mosaic), code)
    if (code := YUV422.get(encoding)) is not None:
        _check_even(message, width=True)
        return cv2.cvtColor(packed_pixels(message, 8, channels=2), code)
    if (code := YUV420.get(encoding)) is not None:
        _check_even(message, width=True, height=True)
        return cv2.cvtColor(
            packed_pixels(message, 8, channels=1, rows=message.height * 3 // 2), code
        )
    raise ImageError(f"encoding {encoding!r} is not one of {', '.join(ENCODINGS)}")


def _from_packed(message: Image, packed: _Packed) -> np.ndarray:
    image = _to_8_bit(packed_pixels(message, packed.bits, packed.channels))
    if packed.channels > 1:
        return image[..., packed.rgb]
    height, width, _ = image.shape
    return np.lib.stride_tricks.as_strided(image, (height, width, 3), (*image.strides[:2], 0))


def packed_pixels(
    message: Image, bits: int, channels: int, rows: int | None = None, kind: str = "u"
) -> np.ndarray:
    """Return the pixels as (rows, width, channels), of the message's byte order.

    Args:
        message: From a camera.
        bits: Of a channel.
        channels: Of a pixel.
        rows: Of bytes; by default those of the image.
        kind: NumPy's letter for the numbers: ``u`` or ``f``.

    Raises:
        ImageError: The size is zero, or step and length do not fit it.
    """
    height, width, step = rows or message.height, message.width, message.step
    if not height or not width:
        raise ImageError(f"its size is {message.width}x{message.height}")
    pixel = channels * bits // 8
    if step < width * pixel:
        raise ImageError(
            f"its step is {step} bytes; {width} pixels of {message.encoding} need {width * pixel}"
        )
    if len(message.data) != height * step:
        raise ImageError(
            f"it has {len(message.data)} bytes of data; {height} rows of {step} bytes are "
            f"{height * step}"
        )
    order = ">" if message.is_bigendian else "<"
    strides = (step, pixel, bits // 8)
    dtype = f"{order}{kind}{bits // 8}"
    return np.ndarray((height, width, channels), dtype, message.data, 0, strides)


def _to_8_bit(image: np.ndarray) -> np.ndarray:
    """Scale 0..65535 to 0..255; 8 bit images come back as they are."""
    if image.dtype == np.uint8:
        return image
    native = np.ascontiguousarray(image, np.uint16)
    return cv2.convertScaleAbs(native, alpha=255 / 65535).reshape(image.shape)


def _check_even(message: Image, width: bool = False, height: bool = False) -> None:
    if (width and message.width % 2) or (height and message.height % 2):
        raise ImageError(
            f"its size is {message.width}x{message.height}; {message.encoding} shares chroma "
            "between neighbours and needs even sizes"
        )


def _from_compressed(
    message: CompressedImage, fit: Callable[[Size], Size], max_pixels: int
) -> tuple[np.ndarray, Size]:
    # image_transport writes "ENCODING; jpeg compressed bgr8", camera drivers just "jpeg".
    encoding = message.format.partition(";")[0].strip()
    if "compressedDepth" in message.format or encoding in ("16UC1", "32FC1"):
        raise ImageError(f"format {message.format!r} is a depth image")
    if encoding.startswith("bayer_") and not message.format.rstrip().endswith(("bgr8", "rgb8")):
        raise ImageError(f"format {message.format!r} is a compressed Bayer mosaic")
    data = bytes(message.data)
    try:
        size = encoded_size(data)
    except ValueError as error:
        raise ImageError(str(error)) from error
    if size:
        _check_pixels(size, max_pixels)
    if data.startswith(JPEG_START):
        return _from_jpeg(data, fit)
    if data.startswith(PNG_START):
        if PNG_END not in data[-12:]:
            raise ImageError(f"the PNG of {len(data)} bytes is truncated")
        return _with_size(_decode(data, "PNG"))
    raise ImageError(
        f"its {len(data)} bytes of format {message.format!r} are neither JPEG nor PNG"
    )


def _from_jpeg(data: bytes, fit: Callable[[Size], Size]) -> tuple[np.ndarray, Size]:
    if simplejpeg is None:
        return _with_size(_decode(data, "JPEG"))
    try:
        size = simplejpeg.decode_jpeg_header(data)[:2]
        rows, columns = fit(size)
        # Fractions between 1/2 and 1 take longer than the whole: hence min_factor.
        image = simplejpeg.decode_jpeg(
            data, colorspace="RGB", min_height=rows, min_width=columns, min_factor=2
        )
        return image, size
    except ValueError as error:
        raise ImageError(f"the JPEG of {len(data)} bytes is broken: {error}") from error


def _decode(data: bytes, kind: str) -> np.ndarray:
    # The orientation tag is for viewers: labels must match the pixels that others see.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        raise ImageError(f"the {kind} of {len(data)} bytes is broken")
    return image[..., ::-1]
