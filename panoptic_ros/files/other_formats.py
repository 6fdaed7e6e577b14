"""The declared size of image files that cameras do not send: BMP, WebP, TIFF, PNM."""

from __future__ import annotations

import re
import struct

Size = tuple[int, int]  # height, width

_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)")
TIFF_STARTS = (b"II*\0", b"MM\0*")
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257


def other_size(data: bytes) -> Size | None:
    """Return the (height, width) in a header; None for other formats.

    Raises:
        ValueError: The header is damaged or truncated.
    """
    try:
        if data.startswith(b"BM"):
            return _bmp_size(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp_size(data)
        if data.startswith(TIFF_STARTS):
            return _tiff_size(data)
    except (struct.error, IndexError, KeyError) as error:
        raise ValueError(f"the header of the image of {len(data)} bytes is damaged") from error
    if match := _PNM.match(data):
        width, height = (int(side[:10]) for side in match.groups())
        return height, width
    return None


def _bmp_size(data: bytes) -> Size:
    if struct.unpack_from("<I", data, 14)[0] == 12:  # of OS/2
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return abs(height), abs(width)


def _webp_size(data: bytes) -> Size:
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return height & 0x3FFF, width & 0x3FFF
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        if len(data) < 30:
            raise IndexError
        return height + 1, width + 1
    raise KeyError(kind)


def _tiff_size(data: bytes) -> Size:
    order = "<" if data.startswith(b"II") else ">"
    at = struct.unpack_from(f"{order}I", data, 4)[0]
    sides = {}
    for entry in range(struct.unpack_from(f"{order}H", data, at)[0]):
        start = at + 2 + 12 * entry
        tag, kind = struct.unpack_from(f"{order}HH", data, start)
        if tag in (_TIFF_WIDTH, _TIFF_HEIGHT):
            sides[tag] = struct.unpack_from(
                f"{order}{'H' if kind == 3 else 'I'}", data, start + 8
            )[0]
    return sides[_TIFF_HEIGHT], sides[_TIFF_WIDTH]
