"""How large an encoded image says it is, and whether that is accepted: before it is decoded.

Decoders allocate what a header declares. A JPEG of 631 bytes may declare 65500x65500 pixels, for
which OpenCV takes 12 GB, and so may a small PNG in which one bit flipped.
"""

from __future__ import annotations

import struct
import zlib

from panoptic_ros.files.other_formats import Size, other_size

MAX_PIXELS = 64_000_000  # an 8K image has 33 million

JPEG_START, PNG_START = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0..15 but DHT, JPG, DAC
_ARITHMETIC_CODING = frozenset(range(0xC9, 0xD0))  # the codes of others are of whole bits
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))
_SCAN = 0xDA
_SCAN_START, _JPEG_END = b"\xff\xda", b"\xff\xd9"
MOST_SCANS = 100  # progressive encoders write about ten; each walks over the whole image


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


def encoded_size(data: bytes, length: int | None = None) -> Size | None:
    """Return the (height, width) in the header of an image; None for a format not known here.

    Known are JPEG, PNG, BMP, WebP, TIFF and PNM.

    Args:
        data: The image, or as much of its beginning as holds the header.
        length: Of the whole image in bytes, if ``data`` is its beginning.

    Raises:
        ValueError: The header is damaged or truncated, or declares more pixels than the bytes
            can hold.
    """
    length = len(data) if length is None else length
    if data.startswith(PNG_START):
        return _png_size(data, length)
    if data.startswith(JPEG_START):
        return _jpeg_size(data, length)
    return other_size(data)


def _png_size(data: bytes, length: int) -> Size:
    header = data[8:33]  # length, "IHDR", 13 bytes, checksum
    if len(header) < 25 or header[:8] != b"\x00\x00\x00\x0dIHDR":
        raise ValueError(f"the PNG of {length} bytes is broken: it has no header")
    if zlib.crc32(header[4:21]) != struct.unpack(">I", header[21:])[0]:
        raise ValueError(f"the header of the PNG of {length} bytes is damaged")
    width, height = struct.unpack(">II", header[8:16])
    if len(data) == length:
        _check_png_chunks(data)
    return _held((height, width), length, "PNG", width * height // (8 * 1032))


def _check_png_chunks(data: bytes) -> None:
    """Raise ValueError if a chunk is longer than the file: decoders allocate what it declares."""
    at = len(PNG_START)
    while at + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + size
        if at > len(data):
            raise ValueError(
                f"the PNG of {len(data)} bytes is broken or truncated: its chunk {kind!r} "
                f"declares {size} bytes"
            )
        if kind == b"IEND":
            return


def _jpeg_size(data: bytes, length: int) -> Size:
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
            least = 0 if marker in _ARITHMETIC_CODING else height * width // (64 * 8)
            size = _held((height, width), length, "JPEG", least)
            if len(data) == length:
                _check_scans(data)
            return size
        elif marker == _SCAN:
            break
        else:
            at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    raise ValueError(f"the JPEG of {length} bytes is broken: it has no frame header")


def _check_scans(data: bytes) -> None:
    """Raise ValueError if a JPEG ends within its scans, or has too many of them.

    Decoders fill the missing part of a truncated one with grey. The end marker cannot occur inside
    compressed data; cameras may append padding after it.
    """
    if data.rfind(_JPEG_END) <= data.rfind(_SCAN_START):
        raise ValueError(f"the JPEG of {len(data)} bytes is truncated")
    if data.count(_SCAN_START) > MOST_SCANS:
        raise ValueError(f"the JPEG of {len(data)} bytes has more than {MOST_SCANS} scans")


def _held(size: Size, length: int, kind: str, least: int) -> Size:
    if length < least:
        height, width = size
        raise ValueError(
            f"the {kind} declares {width}x{height} pixels, for which its {length} bytes are too "
            f"few (at least {least}): it is damaged"
        )
    return size
