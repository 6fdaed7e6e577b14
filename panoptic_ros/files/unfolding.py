"""Decompression that stops at a limit, for rosbags, too.

A chunk of 66 kB can unfold to gigabytes, whatever its header declares. Importing this module has
rosbags use the functions here, as it has no limit of its own.
"""

from __future__ import annotations

from bz2 import BZ2Decompressor
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

from lz4.frame import LZ4FrameDecompressor
from rosbags.rosbag2 import reader as rosbag2
from rosbags.rosbag2 import storage_mcap as mcap

RATIO = 50  # times its bytes that anything may unfold to; raw images of cameras reach 2 to 4
CHUNK = 26 << 20  # bytes that a chunk may unfold to however small: a black image of 3840x2160
FILE = 1 << 30  # bytes that a compressed file may unfold to on the disk, likewise
FRAMES = 1000  # of zstd in a chunk, each of which costs a copy of what is behind it
ZSTD = rosbag2.zstd


def check_unfolded(size: int, compressed: int, least: int = CHUNK) -> None:
    """Raise ValueError if ``compressed`` bytes may not unfold to ``size``; ``least`` they may."""
    if size > max(least, RATIO * compressed):
        raise ValueError(
            f"a chunk of {compressed} bytes unfolds to {size} or more: more than {least} and "
            f"{RATIO} times as much; write the bag anew without compression if that is right"
        )


def unfold_zstd(data: bytes, declared: int | None = None) -> bytes:
    """Decompress zstd frames.

    Args:
        data: The compressed bytes.
        declared: How many they unfold to, if a header says so.

    Raises:
        ValueError: They are truncated, or unfold to more.
    """
    parts, size, rest = [], 0, data
    while rest or not parts:
        if len(parts) == FRAMES:
            raise ValueError(f"a chunk of {len(data)} bytes has more than {FRAMES} zstd frames")
        decompressor = ZSTD.ZstdDecompressor()
        parts.append(_unfold(decompressor, rest, len(data), declared, size))
        size += len(parts[-1])
        rest = decompressor.unused_data
    return b"".join(parts)


def unfold_lz4(data: bytes, declared: int | None = None) -> bytes:
    """As ``unfold_zstd`` for an LZ4 frame."""
    return _unfold(LZ4FrameDecompressor(), data, len(data), declared)


def unfold_bz2(data: bytes, declared: int | None = None) -> bytes:
    """As ``unfold_zstd`` for bzip2."""
    return _unfold(BZ2Decompressor(), data, len(data), declared)


def _unfold(
    decompressor: Any, data: bytes, compressed: int, declared: int | None = None, before: int = 0
) -> bytes:
    limit = max(CHUNK, RATIO * compressed)
    limit = limit if declared is None else min(limit, declared)
    result = decompressor.decompress(data, max_length=limit - before + 1)
    if before + len(result) > limit:
        check_unfolded(before + len(result), compressed)
        raise ValueError(f"a chunk declares {declared} bytes, but unfolds to more")
    if not decompressor.eof:
        raise ValueError(f"a compressed chunk of {compressed} bytes is truncated")
    return result


class LimitedFile(ZSTD.ZstdFile):
    """A zstd file to read, as far as the limit.

    Args:
        file: The compressed one, open.
        mode: ``rb``.
    """

    def __init__(self, file: Any, mode: str) -> None:
        super().__init__(file, mode)
        self._compressed = file.seek(0, 2)
        self._unfolded = file.seek(0)

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes.

        Raises:
            ValueError: The file unfolds to too much.
        """
        data = super().read(size)
        self._unfolded += len(data)
        check_unfolded(self._unfolded, self._compressed, FILE)
        return data


def _limit_rosbags() -> None:
    known = getattr(mcap, "DECOMPRESSORS", ())
    if not hasattr(rosbag2, "zstd") or not {"lz4", "zstd"} <= set(known):
        raise ImportError(
            f"rosbags {version('rosbags')} decompresses bags in a way that is not known here, "
            "so without a limit: install rosbags 0.11.9"
        )
    mcap.DECOMPRESSORS.update(zstd=unfold_zstd, lz4=unfold_lz4)
    limited = {"decompress": unfold_zstd, "open": LimitedFile}
    rosbag2.zstd = SimpleNamespace(**{**vars(ZSTD), **limited})


_limit_rosbags()
