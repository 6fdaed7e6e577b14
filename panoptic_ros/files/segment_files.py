"""What ``panoptic segment`` does: segment images, videos and bags, and write all there is to know.

The output folder gets, for every image NAME:

- ``labels/NAME.png``: the label image, 16 bit (encoding in panoptic_ros.prediction);
- ``overlays/NAME.png``, or one ``overlay.mp4`` for a video or a bag;
- ``segments/NAME.json``: the segments with class, score, area, box and centre;
- ``predictions.json`` and ``predictions/NAME.png``: all of it in the COCO panoptic format, as
  ``panoptic evaluate`` and panopticapi read it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from panoptic_ros.data.coco_panoptic import read_image, write_ids
from panoptic_ros.drawing import VideoWriter, draw_overlay, write_image
from panoptic_ros.prediction import Category, PanopticPrediction
from panoptic_ros.ros.conversions import image_from_message
from panoptic_ros.segmenter import Segmenter

IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
VIDEO_SUFFIXES = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}


class Frame(NamedTuple):
    """An image to segment: what to call its results, its own file, how to get it (may raise)."""

    name: str
    file_name: str
    load: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Source:
    """Where images come from; ``frame_rate`` is None for single images."""

    frames: Iterator[Frame]
    count: int
    frame_rate: float | None = None


class EncodedFile(NamedTuple):
    """An image file in the form of a sensor_msgs/CompressedImage."""

    format: str
    data: bytes


def segment_files(
    source: Path | str,
    model: Path | str,
    output: Path | str,
    *,
    device: str = "auto",
    precision: str = "auto",
    resolution: str | None = None,
    engine: str = "auto",
    topic: str | None = None,
) -> list[str]:
    """Segment an image, a folder of images, a video or a bag; see the module for what is written.

    An image that cannot be read or segmented is reported, skipped and listed.

    Args:
        source: File or folder (whose subfolders are left alone).
        model: Name of a model or path of its folder.
        output: Folder to write to, made if need be; files of the same names are replaced.
        device: As in ``Segmenter.load``; the next three likewise.
        precision: See there.
        resolution: See there.
        engine: See there.
        topic: Image topic of a bag; None takes the first.

    Returns:
        A line for each image that failed: its name and the reason.

    Raises:
        ValueError: The source has no images, or model, device or topic cannot be used.
        OSError: The output cannot be written.
    """
    images = open_source(Path(source), topic)
    segmenter = Segmenter.load(model, device, precision, resolution, engine)
    failures: list[str] = []
    with ResultWriter(Path(output), segmenter.categories, images) as results:
        bar = tqdm(images.frames, f"segment with {segmenter.name}", images.count, unit="image")
        for frame in bar:
            try:
                image = np.ascontiguousarray(frame.load())
                prediction = segmenter(image)
            except (ValueError, OSError) as error:
                failures.append(f"{frame.file_name} ({frame.name}): {error}")
                bar.write(f"skipped {failures[-1]}")
                continue
            results.write(frame, image, prediction)
    print(f"{results.count} images segmented, {len(failures)} skipped; results in {output}")
    return failures


def open_source(path: Path, topic: str | None = None) -> Source:
    """Find out what a path is: an image, a folder of images, a video or a bag.

    Raises:
        ValueError: It is none of these, does not exist, or is empty.
    """
    from panoptic_ros.files.bag import is_bag

    if not path.exists():
        raise ValueError(f"there is no file or folder {path}")
    if is_bag(path):
        return _open_bag(path, topic)
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise ValueError(f"folder {path} has no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        return Source(_files(files), len(files))
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return Source(_files([path]), 1)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return _open_video(path)
    known = ", ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
    raise ValueError(f"{path} is neither an image, a video ({known}), a folder nor a ROS bag")


def _files(files: list[Path]) -> Iterator[Frame]:
    stems = [file.stem for file in files]
    for file in files:
        name = file.stem if stems.count(file.stem) == 1 else file.name
        yield Frame(name, file.name, partial(_read_file, file))


def _read_file(path: Path) -> np.ndarray:
    if path.suffix.lower() in (".jpg", ".jpeg", ".png"):  # also finds truncated ones
        return image_from_message(EncodedFile("", path.read_bytes()))
    return read_image(path)


def _open_video(path: Path) -> Source:
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise ValueError(f"{path} is not a video that this OpenCV can read")
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))

    def frames() -> Iterator[Frame]:
        index = 0
        while (grabbed := video.read())[0]:
            image = grabbed[1][..., ::-1]
            yield Frame(f"{index:06}", path.name, lambda image=image: image)
            index += 1
        video.release()

    return Source(frames(), count, video.get(cv2.CAP_PROP_FPS) or 25.0)


def _open_bag(path: Path, topic: str | None) -> Source:
    from panoptic_ros.files.bag import ImageBag

    bag = ImageBag(path, topic)

    def frames() -> Iterator[Frame]:
        with bag:
            for frame in bag.frames():
                load = partial(image_from_message, frame.message)
                yield Frame(str(frame.stamp), path.name, load)

    return Source(frames(), len(bag), bag.frame_rate)


class ResultWriter:
    """Writes the results of one source; use it in a ``with`` statement.

    Args:
        output: Folder to write to.
        categories: The model's class table.
        source: Of the images; its frame rate decides between overlay.mp4 and single overlays.
    """

    def __init__(self, output: Path, categories: tuple[Category, ...], source: Source) -> None:
        self.output = output
        self._categories = categories
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._video = None
        folders = ["labels", "segments", "predictions"]
        if source.frame_rate is None:
            folders.append("overlays")
        else:
            self._video = VideoWriter(output / "overlay.mp4", source.frame_rate, source.count)
        for folder in folders:
            (output / folder).mkdir(parents=True, exist_ok=True)

    @property
    def count(self) -> int:
        """How many images were written."""
        return len(self._images)

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._video is not None:
            self._video.__exit__()
        self._write_predictions()

    def write(self, frame: Frame, image: np.ndarray, prediction: PanopticPrediction) -> None:
        """Write all results of one image."""
        name = frame.name
        if not cv2.imwrite(str(self.output / "labels" / f"{name}.png"), prediction.labels):
            raise OSError(f"cannot write {self.output / 'labels' / name}.png")
        overlay = draw_overlay(image, prediction, names=True)
        if self._video is not None:
            self._video.write(overlay)
        else:
            write_image(self.output / "overlays" / f"{name}.png", overlay)
        segments = [asdict(segment) for segment in prediction.segments]
        text = json.dumps({"image": name, "segments": segments}, indent=1)
        (self.output / "segments" / f"{name}.json").write_text(text, encoding="utf-8")
        write_ids(self.output / "predictions" / f"{name}.png", prediction.labels)
        self._add_prediction(frame, prediction)

    def _add_prediction(self, frame: Frame, prediction: PanopticPrediction) -> None:
        height, width = prediction.labels.shape
        # COCO's files are named by the image id; elsewhere readers match by file_name.
        image_id = int(frame.name) if frame.name.isdecimal() else frame.name
        self._images.append(
            {"id": image_id, "file_name": frame.file_name, "width": width, "height": height}
        )
        segments = [
            {
                "id": segment.id,
                "category_id": segment.class_id,
                "area": segment.area,
                "bbox": list(segment.bbox),
                "iscrowd": 0,
                "score": segment.score,
            }
            for segment in prediction.segments
        ]
        self._annotations.append(
            {"image_id": image_id, "file_name": f"{frame.name}.png", "segments_info": segments}
        )

    def _write_predictions(self) -> None:
        categories = [
            {"id": c.id, "name": c.name, "isthing": int(c.is_thing), "color": list(c.color)}
            for c in self._categories
        ]
        content = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": categories,
        }
        path = self.output / "predictions.json"
        path.write_text(json.dumps(content), encoding="utf-8")
