"""Pictures of a prediction: overlay, class legend, contact sheet, video.

All images here are uint8, (H, W, 3), RGB.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from panoptic_ros.prediction import (
    LABEL_DIVISOR,
    MAX_INSTANCES,
    VOID,
    Category,
    PanopticPrediction,
    Segment,
    Track,
)
from panoptic_ros.system import write_file

# FFmpeg reads it when OpenCV first opens a video. Trying a codec that is not there is no error.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

WHITE = (255, 255, 255)
DARK = (24, 24, 24)
FONT = cv2.FONT_HERSHEY_SIMPLEX
CODECS = ("avc1", "vp09", "mp4v")  # H.264 and VP9 play in browsers, MPEG-4 part 2 does not
VP9_PIXELS = 100_000_000  # about a minute on one core; MPEG-4 takes a second
LEGEND_ROW = 24  # pixels


@lru_cache(maxsize=8)
def label_colors(categories: tuple[Category, ...]) -> np.ndarray:
    """Return the colour of every value of a label image: uint8, (65536, 3), void is black.

    Stuff has the colour of its class. The instances of a thing class have shades of it: the same
    instance number always has the same shade, and consecutive numbers are far apart.
    """
    colors = np.zeros((LABEL_DIVISOR, LABEL_DIVISOR, 3), np.uint8)
    for category in categories:
        colors[category.id] = category.color
        if category.is_thing:
            colors[category.id, 1:] = _shades(category.color, MAX_INSTANCES)
    colors = colors.reshape(-1, 3)
    colors.flags.writeable = False  # the cache hands out the same array to everybody
    return colors


def _shades(color: tuple[int, int, int], number: int) -> np.ndarray:
    """Return shades of a colour: uint8, (number, 3).

    Hue, saturation and brightness follow Kronecker sequences (multiples of an irrational number,
    modulo 1), which spread any first n of them evenly.
    """
    n = np.arange(1, number + 1)
    steps = np.stack([n * 0.6180340, n * 0.7548777, n * 0.5698403], axis=1) % 1.0 - 0.5
    hsv = cv2.cvtColor(np.float32([[color]]) / 255, cv2.COLOR_RGB2HSV)[0, 0]
    hue = (hsv[0] + 40 * steps[:, 0]) % 360
    saturation = np.clip(hsv[1] + 0.3 * steps[:, 1], 0, 1) if hsv[1] > 0 else np.zeros(number)
    value = np.clip(max(hsv[2], 0.5) + 0.5 * steps[:, 2], 0.3, 1)
    shades = np.float32(np.stack([hue, saturation, value], axis=1))[None]
    return np.rint(cv2.cvtColor(shades, cv2.COLOR_HSV2RGB)[0] * 255).astype(np.uint8)


def draw_overlay(
    image: np.ndarray,
    prediction: PanopticPrediction,
    opacity: float = 0.6,
    outlines: bool = True,
    names: bool = False,
) -> np.ndarray:
    """Paint the segments over a camera image; void stays as it is.

    Args:
        image: uint8, (H, W, 3), RGB, the size of the label image; it is not changed.
        prediction: What was seen in it; a track has the same shade in every image.
        opacity: Of the paint, 0..1: 0 shows only the image, 1 only the segments.
        outlines: Draw the borders of segments: white around instances, dark between stuff.
        names: Write class name, number of the track and score on the instances that have room.

    Raises:
        ValueError: Image and labels differ in size, or opacity is out of range.
    """
    labels = prediction.labels
    if image.shape != (*labels.shape, 3) or image.dtype != np.uint8:
        raise ValueError(
            f"the image is {image.dtype} {image.shape}; expected uint8 {(*labels.shape, 3)}, "
            "the size of the label image"
        )
    if not 0.0 <= opacity <= 1.0:
        raise ValueError(f"opacity is {opacity}; expected 0..1")
    paint = np.take(_colors(prediction), labels, axis=0)
    canvas = cv2.addWeighted(image, 1.0 - opacity, paint, opacity, 0.0)
    cv2.copyTo(image, (labels == VOID).view(np.uint8), canvas)
    if outlines:
        _draw_outlines(canvas, labels)
    if names:
        for segment in reversed(prediction.instances):  # the best last, on top
            _write_name(canvas, segment, prediction.tracks.get(segment.id))
    return canvas


def _colors(prediction: PanopticPrediction) -> np.ndarray:
    colors = label_colors(prediction.categories)
    tracked = colors.copy() if prediction.tracks else colors
    for label, track in prediction.tracks.items():
        instance = 1 + (track.number - 1) % MAX_INSTANCES
        tracked[label] = colors[label // LABEL_DIVISOR * LABEL_DIVISOR + instance]
    return tracked


def _draw_outlines(canvas: np.ndarray, labels: np.ndarray) -> None:
    """Draw the pixels whose right or lower neighbour belongs to another segment."""
    instance = (labels & (LABEL_DIVISOR - 1)) > 0
    border = np.zeros(labels.shape, bool)
    touches_instance = np.zeros(labels.shape, bool)
    for here, there in (
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:-1], np.s_[1:]),
    ):
        differs = labels[here] != labels[there]
        border[here] |= differs
        touches_instance[here] |= differs & (instance[here] | instance[there])
    _paint_lines(canvas, border & ~touches_instance, DARK[0])
    _paint_lines(canvas, touches_instance, WHITE[0])


def _paint_lines(canvas: np.ndarray, mask: np.ndarray, grey: int) -> None:
    """Paint lines of one pixel, widened so that they can be seen in images above 540 rows."""
    lines = mask.view(np.uint8)
    width = round(mask.shape[0] / 540)
    if width >= 2:
        lines = cv2.dilate(lines, np.ones((width, width), np.uint8))
    cv2.copyTo(np.full_like(canvas, grey), lines, canvas)


def _write_name(canvas: np.ndarray, segment: Segment, track: Track | None) -> None:
    """Write class, track and score centred on a segment that is wide enough to be read."""
    height, width = canvas.shape[:2]
    scale = max(0.35, height / 1400)
    text = f"{segment.class_name} {f'{track.number} ' if track else ''}{segment.score:.0%}"
    (text_width, text_height), descent = cv2.getTextSize(text, FONT, scale, 1)
    if segment.bbox[2] < text_width / 2:
        return
    x = round(segment.center[0] - text_width / 2)
    y = round(segment.center[1] + text_height / 2)
    x = max(min(x, width - text_width), 0)
    y = max(min(y, height - descent), text_height)
    _write(canvas, text, (x, y), scale)


def _write(canvas: np.ndarray, text: str, origin: tuple[int, int], scale: float) -> None:
    """Write white text with a dark rim, readable on every background."""
    x, y = origin
    for rim in ((x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)):
        cv2.putText(canvas, text, rim, FONT, scale, DARK, 1, cv2.LINE_AA)
    cv2.putText(canvas, text, origin, FONT, scale, WHITE, 1, cv2.LINE_AA)


def draw_legend(categories: Sequence[Category], width: int) -> np.ndarray:
    """Return the names of classes on their colours, in as many rows as ``width`` pixels need."""
    widest = max(cv2.getTextSize(c.name, FONT, 0.45, 1)[0][0] for c in categories)
    columns = max(1, width // (widest + 16))
    rows = math.ceil(len(categories) / columns)
    legend = np.full((rows * LEGEND_ROW, width, 3), DARK, np.uint8)
    for index, category in enumerate(categories):
        row, column = divmod(index, columns)
        left, right = (width * c // columns for c in (column, column + 1))
        top = row * LEGEND_ROW
        legend[top + 1 : top + LEGEND_ROW - 1, left + 1 : right - 1] = category.color
        _write(legend, category.name, (left + 8, top + 16), 0.45)
    return legend


def contact_sheet(
    images: Sequence[np.ndarray],
    captions: Sequence[str] = (),
    columns: int = 4,
    tile_width: int = 480,
    categories: Sequence[Category] = (),
) -> np.ndarray:
    """Lay images out in a grid, row by row, each scaled to one width.

    Args:
        images: At least one; a tile has the shape of the first image.
        captions: Written into the lower left corner of the images, as many as there are.
        columns: Number of tiles in a row.
        tile_width: In pixels.
        categories: Classes to explain in a legend below the grid.

    Raises:
        ValueError: There is no image.
    """
    if not images:
        raise ValueError("a contact sheet needs at least one image, got none")
    height, width = images[0].shape[:2]
    tile_height = round(height * tile_width / width)
    rows = math.ceil(len(images) / columns)
    sheet = np.full((rows * tile_height, columns * tile_width, 3), DARK, np.uint8)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        tile = cv2.resize(image, (tile_width, tile_height), interpolation=cv2.INTER_AREA)
        if index < len(captions):
            _write(tile, captions[index], (8, tile_height - 10), 0.5)
        tile[:, -1] = tile[-1] = DARK
        top, left = row * tile_height, column * tile_width
        sheet[top : top + tile_height, left : left + tile_width] = tile
    if not categories:
        return sheet
    return np.concatenate((sheet, draw_legend(categories, sheet.shape[1])))


def write_image(path: Path, image: np.ndarray, *options: int) -> None:
    """Write an RGB or a one-channel image to a file, whole or not at all.

    Args:
        path: Of the file; the suffix chooses the format.
        image: (H, W, 3) or (H, W).
        options: Of cv2.imwrite.

    Raises:
        OSError: The file cannot be written.
    """
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(path.suffix, image, options)
    if not done:
        raise OSError(f"cannot write {path}: OpenCV cannot encode it")
    try:
        write_file(path, data.data, outlives_power=False)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}") from error


class VideoWriter:
    """Write RGB images to an mp4 file, one by one; use it in a ``with`` statement.

    Args:
        path: Of the file, which is replaced.
        frame_rate: Images per second.
        length: About how many images there will be. PyPI's OpenCV has no H.264 but VP9, which
            is slow: it is not taken for more than ``VP9_PIXELS``.

    Attributes:
        codec: The codec taken, four letters of ``CODECS``, once the first image is written.
    """

    def __init__(self, path: Path, frame_rate: float, length: int) -> None:
        self.path = path
        self.frame_rate = frame_rate
        self.length = length
        self.codec = ""
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.release()

    def write(self, image: np.ndarray) -> None:
        """Append an image; one of another size than the first is scaled to it.

        Raises:
            OSError: No codec works, or the file cannot be written.
        """
        if self._writer is None:
            height, width = image.shape[:2]
            self._size = (width // 2 * 2, height // 2 * 2)  # 4:2:0 colour needs even sizes
            self._writer = self._open()
        if image.shape[1::-1] != self._size:
            image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def _open(self) -> cv2.VideoWriter:
        too_long = self.length * self._size[0] * self._size[1] > VP9_PIXELS
        codecs = [codec for codec in CODECS if not (too_long and codec == "vp09")]
        log_level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            for codec in codecs:
                fourcc = cv2.VideoWriter_fourcc(*codec)
                writer = cv2.VideoWriter(str(self.path), fourcc, self.frame_rate, self._size)
                if writer.isOpened():
                    self.codec = codec
                    return writer
        finally:
            cv2.utils.logging.setLogLevel(log_level)
        raise OSError(
            f"cannot write {self.path}: the folder is missing or read-only, or this OpenCV "
            f"encodes none of {', '.join(codecs)}"
        )
