"""Image files, and PNGs that hold segment ids as the COCO panoptic format does."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from panoptic_ros.drawing import write_image
from panoptic_ros.files.image_size import JPEG_START, PNG_START, check_pixels, encoded_size
from panoptic_ros.files.other_formats import TIFF_STARTS

_HEADER = 1 << 20  # bytes


def rgb_to_ids(rgb: np.ndarray) -> np.ndarray:
    """Decode uint8 (H, W, 3) RGB to ids, int32 (H, W): R + 256 G + 65536 B."""
    red, green, blue = (rgb[..., i].astype(np.int32) for i in range(3))
    return red + 256 * green + 65536 * blue


def ids_to_rgb(id_map: np.ndarray) -> np.ndarray:
    """Encode ids, integers (H, W) of 0..2**24 - 1, as uint8 (H, W, 3) RGB.

    Raises:
        ValueError: An id does not fit into 24 bits.
    """
    if id_map.size and (id_map.min() < 0 or id_map.max() >= 1 << 24):
        raise ValueError(f"segment ids are {id_map.min()}..{id_map.max()}; 24 bits hold them")
    ids = id_map.astype(np.int32)
    return np.stack((ids & 255, ids >> 8 & 255, ids >> 16), axis=-1).astype(np.uint8)


def read_ids(path: Path | str) -> np.ndarray:
    """Read a PNG of segment ids: int32, (H, W)."""
    return rgb_to_ids(read_image(path))


def write_ids(path: Path | str, id_map: np.ndarray) -> None:
    """Write segment ids (H, W) as a PNG; see ``ids_to_rgb``."""
    write_image(Path(path), ids_to_rgb(id_map))


def read_image(path: Path | str) -> np.ndarray:
    """Read an image file: uint8, (H, W, 3), RGB, as stored (an EXIF orientation is ignored).

    Raises:
        OSError: As ``read_stored``.
    """
    image = read_stored(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_stored(path: Path | str, flags: int = cv2.IMREAD_UNCHANGED) -> np.ndarray:
    """Read an image file with OpenCV's type and channels, after a look at its header.

    Raises:
        OSError: The file is missing, declares more than ``image_size.MAX_PIXELS``, or cannot be
            decoded.
    """
    try:
        with open(path, "rb") as file:
            header = file.read(_HEADER)
            if header.startswith((JPEG_START, PNG_START, *TIFF_STARTS)):  # all of it is looked at
                header += file.read()
            size = encoded_size(header, os.fstat(file.fileno()).st_size)
        if size:
            check_pixels(size)
    except ValueError as error:
        raise OSError(f"cannot read the image {path}: {error}") from error
    except OSError as error:
        raise OSError(f"cannot read the image {path}: {error.strerror}") from error
    try:
        image = cv2.imread(str(path), flags)
    except cv2.error as error:
        raise OSError(f"cannot read the image {path}: {error}") from error
    if image is None:
        raise OSError(f"cannot read the image {path}: it is missing or not an image")
    return image
