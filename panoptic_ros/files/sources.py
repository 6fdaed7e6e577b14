"""Images from wherever they are: a file, a folder, a video, a bag."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from panoptic_ros.files.camera_messages import image_from_message
from panoptic_ros.files.image_size import check_pixels
from panoptic_ros.files.pictures import read_image

BAG_SUFFIXES = (".mcap", ".db3", ".bag")
IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
VIDEO_SUFFIXES = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}


class SourceImage(NamedTuple):
    """An image to segment: what to call its results, its own file, how to get it (may raise)."""

    name: str
    file_name: str
    load: Callable[[], np.ndarray]


@dataclass(frozen=True)
class ImageSource:
    """Where images come from; ``frame_rate`` is None for single images."""

    frames: Iterator[SourceImage]
    count: int
    frame_rate: float | None = None


class EncodedFile(NamedTuple):
    """An image file in the form of a sensor_msgs/CompressedImage."""

    format: str
    data: bytes


def open_source(path: Path, topic: str | None = None) -> ImageSource:
    """Find out what a path is: an image, a folder of images, a video or a bag.

    Raises:
        ValueError: It is none of these, does not exist, or is empty.
    """
    if not path.exists():
        raise ValueError(f"there is no file or folder {path}")
    if is_bag(path):
        return _open_bag(path, topic)
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise ValueError(f"folder {path} has no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        return ImageSource(_files(files), len(files))
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSource(_files([path]), 1)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return _open_video(path)
    known = ", ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
    raise ValueError(f"{path} is neither an image, a video ({known}), a folder nor a ROS bag")


def _files(files: list[Path]) -> Iterator[SourceImage]:
    stems = [file.stem for file in files]
    for file in files:
        name = file.stem if stems.count(file.stem) == 1 else file.name
        yield SourceImage(name, file.name, partial(_read_file, file))


def _read_file(path: Path) -> np.ndarray:
    if path.suffix.lower() in (".jpg", ".jpeg", ".png"):  # also finds truncated ones
        return image_from_message(EncodedFile("", path.read_bytes()))
    return read_image(path)


def _open_video(path: Path) -> ImageSource:
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise ValueError(f"{path} is not a video that this OpenCV can read")
    sides = (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)
    try:
        check_pixels(tuple(int(video.get(side)) for side in sides))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))

    def frames() -> Iterator[SourceImage]:
        index = 0
        while (grabbed := video.read())[0]:
            image = grabbed[1][..., ::-1]
            yield SourceImage(f"{index:06}", path.name, lambda image=image: image)
            index += 1
        video.release()
        if index < count - 1:  # containers count one too many at times
            yield SourceImage(f"{index:06}", path.name, partial(_refuse_rest, index, count))

    return ImageSource(frames(), count, video.get(cv2.CAP_PROP_FPS) or 25.0)


def _refuse_rest(read: int, declared: int) -> np.ndarray:
    raise ValueError(
        f"the video declares {declared} frames, but only {read} can be read: it is damaged or cut "
        "short; repair it, for example by copying it with ffmpeg"
    )


def _open_bag(path: Path, topic: str | None) -> ImageSource:
    from panoptic_ros.files.bag import ImageBag  # rosbags is not needed for images and videos

    bag = ImageBag(path, topic)

    def frames() -> Iterator[SourceImage]:
        with bag:
            for frame in bag.frames():
                load = partial(image_from_message, frame.message)
                yield SourceImage(str(frame.stamp), path.name, load)

    return ImageSource(frames(), len(bag), bag.frame_rate)


def is_bag(path: Path) -> bool:
    """Whether a path looks like a bag: a folder with metadata.yaml, or a bag's suffix."""
    return (path / "metadata.yaml").is_file() or path.suffix in BAG_SUFFIXES
