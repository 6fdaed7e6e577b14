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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from panoptic_ros.data.coco_panoptic import predicted_segments
from panoptic_ros.drawing import VideoWriter, draw_overlay, write_image
from panoptic_ros.files.pictures import write_ids
from panoptic_ros.files.sources import ImageSource, SourceImage, open_source
from panoptic_ros.prediction import Category, PanopticPrediction, category_fields
from panoptic_ros.segmenter import Segmenter
from panoptic_ros.system import write_file


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


class ResultWriter:
    """Writes the results of one source; use it in a ``with`` statement.

    Args:
        output: Folder to write to.
        categories: The model's class table.
        source: Of the images; its frame rate decides between overlay.mp4 and single overlays.
    """

    def __init__(
        self, output: Path, categories: tuple[Category, ...], source: ImageSource
    ) -> None:
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

    def write(self, frame: SourceImage, image: np.ndarray, prediction: PanopticPrediction) -> None:
        """Write all results of one image."""
        name = frame.name
        write_image(self.output / "labels" / f"{name}.png", prediction.labels)
        overlay = draw_overlay(image, prediction, names=True)
        if self._video is not None:
            self._video.write(overlay)
        else:
            write_image(self.output / "overlays" / f"{name}.png", overlay)
        segments = [asdict(segment) for segment in prediction.segments]
        text = json.dumps({"image": name, "segments": segments}, indent=1)
        file = self.output / "segments" / f"{name}.json"
        write_file(file, text.encode(), outlives_power=False)
        write_ids(self.output / "predictions" / f"{name}.png", prediction.labels)
        self._add_prediction(frame, prediction)

    def _add_prediction(self, frame: SourceImage, prediction: PanopticPrediction) -> None:
        height, width = prediction.labels.shape
        # COCO's files are named by the image id; elsewhere readers match by file_name.
        image_id = int(frame.name) if frame.name.isdecimal() else frame.name
        self._images.append(
            {"id": image_id, "file_name": frame.file_name, "width": width, "height": height}
        )
        segments = predicted_segments(prediction)
        self._annotations.append(
            {"image_id": image_id, "file_name": f"{frame.name}.png", "segments_info": segments}
        )

    def _write_predictions(self) -> None:
        categories = category_fields(self._categories)
        content = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": categories,
        }
        write_file(self.output / "predictions.json", json.dumps(content).encode())
