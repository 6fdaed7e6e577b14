"""A part: the labels of a span of a bag, until its bag is whole.

labels/             label images and instances, as in the whole bag
frames.jsonl        a line for each frame, in the order of the bag
ids/000000.png      with format coco: segment ids
instance_ids/       with format cityscapes; class_ids/ likewise
images/000000.jpg   with images
totals.json         numbers of frames by topic and end
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from panoptic_ros.data.coco_panoptic import predicted_segments
from panoptic_ros.files.bag import IMAGE, NANOSECONDS
from panoptic_ros.files.bag_spans import CameraFrame
from panoptic_ros.files.image_size import JPEG_START
from panoptic_ros.files.label_messages import INSTANCES, LabelBag, LabelMessages
from panoptic_ros.files.pictures import ids_to_rgb
from panoptic_ros.fleet.places import Settings
from panoptic_ros.prediction import LABEL_DIVISOR, Category, PanopticPrediction

LABELLED, REFUSED = "labelled", "refused"


@dataclass(frozen=True)
class Totals:
    """Numbers of frames by (topic, ``LABELLED`` or ``REFUSED``), and what is broken."""

    counts: Counter[tuple[str, str]]
    damage: str = ""


def read_totals(part: Path) -> Totals:
    """Read the totals of a part."""
    fields = json.loads((part / "totals.json").read_text(encoding="utf-8"))
    return Totals(Counter({(t, end): n for t, end, n in fields["counts"]}), fields["damage"])


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read a file of a JSON object a line."""
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


class PartWriter:
    """Writes a part; use it in a ``with`` statement.

    Args:
        folder: Empty.
        settings: Of the run.
        messages: Of the model.
    """

    def __init__(self, folder: Path, settings: Settings, messages: LabelMessages) -> None:
        self._folder, self._settings, self._messages = folder, settings, messages
        self._bag = LabelBag(folder / "labels", messages.types)
        self._counts: Counter[tuple[str, str]] = Counter()
        self._damage = ""
        self._written = 0

    def __enter__(self) -> PartWriter:
        self._bag.__enter__()
        self._frames = (self._folder / "frames.jsonl").open("w", encoding="utf-8")
        return self

    def __exit__(self, *error: Any) -> None:
        self._frames.close()
        self._bag.__exit__(*error)
        if error[0]:
            return
        counts = [[*key, count] for key, count in self._counts.items()]
        text = json.dumps({"counts": counts, "damage": self._damage})
        (self._folder / "totals.json").write_text(text, encoding="utf-8")

    def refuse(self, frame: CameraFrame, reason: str) -> None:
        """Note that a frame has no labels, and why."""
        self._note(frame, REFUSED, {"reason": reason})

    def damage(self, reason: str) -> None:
        """Note that the bag is damaged in this span."""
        self._damage = reason

    def add(
        self, frame: CameraFrame, image: np.ndarray, prediction: PanopticPrediction, seconds: float
    ) -> None:
        """Write the labels of a frame.

        Args:
            frame: It.
            image: uint8, (H, W, 3), RGB; at a fraction of its size, it is not written.
            prediction: Its segmentation.
            seconds: That it took.
        """
        stamp = frame.message.header.stamp
        header = self._messages.header(stamp.sec, stamp.nanosec, frame.message.header.frame_id)
        topic = f"/panoptic/{frame.topic.strip('/')}"
        labels = self._messages.labels(header, prediction)
        self._bag.add(f"{topic}/labels", IMAGE, frame.time, labels)
        instances = self._messages.instances(header, prediction, seconds)
        self._bag.add(f"{topic}/instances", INSTANCES, frame.time, instances)
        name, what = f"{self._written:06}", {"size": list(prediction.labels.shape)}
        self._written += 1
        if "coco" in self._settings.formats:
            self._png("ids", name, ids_to_rgb(prediction.labels)[..., ::-1])
            what["segments"] = predicted_segments(prediction)
        if "cityscapes" in self._settings.formats:
            self._png(
                "instance_ids", name, cityscapes_ids(prediction.labels, prediction.categories)
            )
            self._png("class_ids", name, prediction.semantic())
        if self._settings.images:
            what["image"] = self._image(name, frame.message, image)
        self._note(frame, LABELLED, {"name": name, **what})

    def _note(self, frame: CameraFrame, end: str, what: dict[str, Any]) -> None:
        stamp = None
        if frame.message is not None:
            time = frame.message.header.stamp
            stamp = time.sec * NANOSECONDS + time.nanosec
        line = {"end": end, "topic": frame.topic, "time": frame.time, "stamp": stamp, **what}
        self._frames.write(json.dumps(line) + "\n")
        self._counts[frame.topic, end] += 1

    def _image(self, name: str, message: Any, image: np.ndarray) -> str:
        """Write the camera image: the bytes of the camera where there are, else a PNG."""
        if not hasattr(message, "format") or "cityscapes" in self._settings.formats:
            return self._png("images", name, image[..., ::-1])
        data = bytes(message.data)
        suffix = "jpg" if data.startswith(JPEG_START) else "png"
        return self._write("images", f"{name}.{suffix}", data)

    def _png(self, folder: str, name: str, image: np.ndarray) -> str:
        # Not imwrite: a disk that is full would leave an empty file, and no error.
        encoded, data = cv2.imencode(".png", np.ascontiguousarray(image))
        if not encoded:
            raise RuntimeError(f"OpenCV cannot encode an image of shape {image.shape}")
        return self._write(folder, f"{name}.png", data.tobytes())

    def _write(self, folder: str, name: str, data: bytes) -> str:
        (self._folder / folder).mkdir(exist_ok=True)
        (self._folder / folder / name).write_bytes(data)
        return name


def cityscapes_ids(labels: np.ndarray, categories: tuple[Category, ...]) -> np.ndarray:
    """Turn a label image into Cityscapes instance ids: uint16, (H, W).

    A thing is class id * 1000 + number; stuff, and things without a number, the class id.

    Args:
        labels: uint16, (H, W); see ``panoptic_ros.prediction``.
        categories: With the label ids of Cityscapes.
    """
    table = np.arange(1 << 16, dtype=np.uint32) // LABEL_DIVISOR
    for category in categories:
        if category.is_thing:
            first = category.id * LABEL_DIVISOR
            numbers = np.arange(1, LABEL_DIVISOR)
            table[first + 1 : first + LABEL_DIVISOR] = category.id * 1000 + numbers
    return table.astype(np.uint16)[labels]
