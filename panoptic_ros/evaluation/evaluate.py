"""Evaluate a model, or predictions already written, against panoptic truth."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from panoptic_ros.data.coco_panoptic import CocoPanoptic
from panoptic_ros.evaluation.panoptic_quality import PanopticQuality, SegmentTable
from panoptic_ros.files.pictures import read_ids, read_image
from panoptic_ros.prediction import Category, PanopticPrediction

Segment = Callable[[np.ndarray], PanopticPrediction]


class TruthImage(NamedTuple):
    """One image of a data set with its truth.

    Attributes:
        name: For people, and to find its prediction.
        image: uint8, (H, W, 3), RGB.
        id_map: Integer, (H, W): segment ids, 0 is void.
        segments: The segments listed for it.
    """

    name: str
    image: np.ndarray
    id_map: np.ndarray
    segments: SegmentTable


class Evaluation(NamedTuple):
    """Result of an evaluation.

    Attributes:
        metrics: See PanopticQuality.result, with ``images`` and, for a model, ``seconds``: the
            mean time of each stage of an image, and of the ``metric`` itself.
        per_image: Name and PQ of every image, in order.
    """

    metrics: dict[str, Any]
    per_image: list[tuple[str, float]]


def coco_truth(dataset: CocoPanoptic) -> Iterator[TruthImage]:
    """Walk a data set in the COCO panoptic format with ids and areas as its files have them."""
    for image, annotation in dataset.entries:
        yield TruthImage(
            image["file_name"],
            read_image(dataset.images / image["file_name"]),
            read_ids(dataset.segments / annotation["file_name"]),
            SegmentTable.from_segments_info(annotation["segments_info"]),
        )


def dataset_truth(dataset: Any) -> Iterator[TruthImage]:
    """Walk any data set of (image, PanopticTarget): Cityscapes, synthetic streets."""
    for index in range(len(dataset)):
        image, target = dataset[index]
        ids = np.arange(1, len(target.class_ids) + 1)
        table = SegmentTable(ids, target.class_ids.numpy(), target.is_crowd.numpy())
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        yield TruthImage(f"{index:06d}", pixels, target.slots.numpy(), table)


def evaluate(
    segmenter: Segment,
    truth: Iterable[TruthImage],
    categories: tuple[Category, ...],
    total: int | None = None,
    seen: Callable[[TruthImage, PanopticPrediction, float], None] | None = None,
    progress: bool = True,
) -> Evaluation:
    """Segment every image and compare it with its truth.

    Args:
        segmenter: Image in, prediction out; its category ids are the truth's.
        truth: Images with truth.
        categories: Classes of the truth.
        total: Number of images, for the progress bar.
        seen: Called with each image, its prediction and its PQ.
        progress: Whether to show a progress bar on stderr.

    Raises:
        ValueError: The model's categories are not among the truth's, or there is no image.
    """
    quality = PanopticQuality(categories)
    per_image, stages = [], []
    start = time.monotonic()
    for item in tqdm(truth, total=total, desc="evaluate", unit="image", disable=not progress):
        prediction = segmenter(item.image)
        segmented = time.perf_counter()
        pq = quality.add(item.id_map, item.segments, *as_segment_table(prediction))
        stages.append({**prediction.timings, "metric": time.perf_counter() - segmented})
        per_image.append((item.name, pq))
        if seen:
            seen(item, prediction, pq)
    if not per_image:
        raise ValueError("there is no image to evaluate")
    metrics = quality.result()
    metrics["images"] = len(per_image)
    metrics["seconds"] = {k: float(np.mean([s[k] for s in stages])) for k in stages[0]}
    metrics["wall_seconds"] = time.monotonic() - start
    return Evaluation(metrics, per_image)


def as_segment_table(prediction: PanopticPrediction) -> tuple[np.ndarray, SegmentTable]:
    """Return a prediction as the id map and table that PanopticQuality takes."""
    ids = np.array([s.id for s in prediction.segments], np.int64)
    classes = np.array([s.class_id for s in prediction.segments], np.int64)
    return prediction.labels, SegmentTable(ids, classes, np.zeros(len(ids), bool))


def evaluate_predictions(
    annotations: Path | str, predictions: Path | str, progress: bool = True
) -> Evaluation:
    """Compare predictions written in the COCO panoptic format with the truth.

    Args:
        annotations: JSON of the truth; its PNG folder is its path without ``.json``.
        predictions: JSON of the predictions; likewise. They are matched by the file
            names in its ``images`` where there are any, else by image id.
        progress: Whether to show a progress bar on stderr.

    Raises:
        ValueError: A file is not in the format, an image has no prediction, or one does not fit.
        OSError: A file is missing.
    """
    annotations, predictions = Path(annotations), Path(predictions)
    dataset = CocoPanoptic(annotations, annotations.parent)
    content = json.loads(predictions.read_text(encoding="utf-8"))
    try:
        by_image = {a["image_id"]: a for a in content["annotations"]}
        # panoptic segment does not know the truth's ids: its images are found by file name.
        by_name = {i["file_name"]: by_image.get(i["id"]) for i in content.get("images", ())}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{predictions} is not COCO panoptic JSON: no {error}") from error
    quality = PanopticQuality(dataset.categories)
    per_image = []
    for image, truth in tqdm(dataset.entries, "evaluate", unit="image", disable=not progress):
        guess = by_name.get(image["file_name"]) or by_image.get(image["id"])
        if guess is None:
            raise ValueError(f"{predictions} has no prediction for image {image['file_name']}")
        try:
            pq = quality.add(
                read_ids(dataset.segments / truth["file_name"]),
                SegmentTable.from_segments_info(truth["segments_info"]),
                read_ids(predictions.with_suffix("") / guess["file_name"]),
                SegmentTable.from_segments_info(
                    {"id": s["id"], "category_id": s["category_id"]}
                    for s in guess["segments_info"]
                ),
            )
        except ValueError as error:
            raise ValueError(f"image {image['file_name']}: {error}") from error
        per_image.append((image["file_name"], pq))
    return Evaluation({**quality.result(), "images": len(per_image)}, per_image)


def format_table(metrics: dict[str, Any]) -> str:
    """Return the metrics as a table for people, in percent."""
    lines = [f"{'':24}{'PQ':>7}{'SQ':>7}{'RQ':>7}{'n':>5}"]
    for group in ("All", "Things", "Stuff"):
        row = metrics[group]
        values = "".join(f"{100 * row[k]:7.1f}" for k in ("pq", "sq", "rq"))
        lines.append(f"{group:24}{values}{row['n']:5}")
    lines.append(f"{'mIoU':24}{100 * metrics['miou']:7.1f}")
    lines.append("")
    lines.append(f"{'class':24}{'PQ':>7}{'SQ':>7}{'RQ':>7}{'IoU':>7}{'TP':>7}{'FP':>7}{'FN':>7}")
    for row in metrics["per_class"].values():
        values = "".join(f"{100 * row[k]:7.1f}" for k in ("pq", "sq", "rq", "iou"))
        counts = "".join(f"{row[k]:7}" for k in ("tp", "fp", "fn"))
        lines.append(f"{row['name'][:23]:24}{values}{counts}")
    if seconds := metrics.get("seconds"):
        stages = ", ".join(f"{name} {1e3 * value:.1f}" for name, value in seconds.items())
        total = 1e3 * sum(value for name, value in seconds.items() if name != "metric")
        lines += ["", f"image to labels, mean: {total:.1f} ms (of each stage: {stages})"]
    return "\n".join(lines)
