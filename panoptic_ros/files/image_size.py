"""How large an encoded image says it is, and whether that is accepted: before it is decoded.

Decoders allocate what a header declares. A JPEG of 631 bytes may declare 65500x65500 pixels, for
which OpenCV takes 12 GB, and so may a small PNG in which one bit flipped.
"""

from __future__ import annotations

import struct
import zlib

MAX_PIXELS = 64_000_000  # an 8K image has 33 million

JPEG_START, PNG_START = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0..15 but DHT, JPG, DAC
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))
_SCAN = 0xDA

Size = tuple[int, int]


def check_pixels(size: Size, max_pixels: int = MAX_PIXELS) -> Size:
    """Return a (height, width) that is accepted.

    Raises:
        ValueError: It has no pixel, or more than ``max_pixels``.
    """
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"its size is {width}x{height}")
    if height * width > max_pixels:
        raise ValueError(
            f"it declares {width}x{height} pixels, more than max_pixels ({max_pixels}); raise "
            "max_pixels if the camera is as large as that"
        )
    return size


def encoded_size(data: bytes) -> Size | None:
    """Return the (height, width) in the header of a JPEG or PNG; None for other formats.

    Raises:
        ValueError: The header is damaged or truncated.
    """
    if data.startswith(PNG_START):
        return _png_size(data)
    return _jpeg_size(data) if data.startswith(JPEG_START) else None


def _png_size(data: bytes) -> Size:
    header = data[8:33]  # length, "IHDR", 13 bytes, checksum
    if len(header) < 25 or header[:8] != b"\x00\x00\x00\x0dIHDR":
        raise ValueError(f"the PNG of {len(data)} bytes is broken: it has no header")
    if zlib.crc32(header[4:21]) != struct.unpack(">I", header[21:])[0]:
        raise ValueError(f"the header of the PNG of {len(data)} bytes is damaged")
    width, height = struct.unpack(">II", header[8:16])
    return height, width


def _jpeg_size(data: bytes) -> Size:
    """Walk the segments to the frame header."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        elif marker in _FRAME_HEADERS and at + 9 <= len(data):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return height, width
        elif marker == _SCAN:
            break
        else:
            at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    raise ValueError(f"the JPEG of {len(data)} bytes is broken: it has no frame header")
