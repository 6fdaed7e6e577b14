"""What ``panoptic evaluate`` does: choose the truth, evaluate, print, write, draw."""

from __future__ import annotations

import heapq
import itertools
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from panoptic_ros.data.coco_panoptic import CocoPanoptic
from panoptic_ros.drawing import draw_overlay
from panoptic_ros.evaluation.evaluate import (
    TruthImage,
    coco_truth,
    dataset_truth,
    evaluate,
    evaluate_predictions,
    format_table,
)
from panoptic_ros.ops.segments import encode_segments
from panoptic_ros.prediction import Category, PanopticPrediction
from panoptic_ros.segmenter import Segmenter
from panoptic_ros.system import write_file
from panoptic_ros.truth import SegmentMap

SYNTHETIC_SEED = 2020  # of the fixed set; training draws from other seeds
SYNTHETIC_SIZE = (360, 480)


def run_evaluation(
    *,
    annotations: Path | None = None,
    images: Path | None = None,
    only: str = "",
    cityscapes: Path | None = None,
    split: str = "val",
    synthetic: int = 0,
    predictions: Path | None = None,
    model: str = "",
    device: str = "auto",
    precision: str = "auto",
    resolution: str = "",
    engine: str = "auto",
    json_file: Path | None = None,
    pictures: Path | None = None,
) -> dict[str, Any]:
    """Evaluate, print the table, and return the metrics; arguments are those of the command.

    Raises:
        ValueError: The arguments do not name exactly one truth and one source of predictions.
    """
    if bool(predictions) == bool(model):
        raise ValueError("give either --model, or --predictions that are already written")
    if predictions:
        if not annotations or cityscapes or synthetic or pictures:
            raise ValueError("--predictions goes with --annotations alone (and --json)")
        metrics = evaluate_predictions(annotations, predictions).metrics
        facts: dict[str, Any] = {"predictions": str(predictions)}
    else:
        dataset, truth, categories = _open_truth(
            annotations, images, only, cityscapes, split, synthetic
        )
        segmenter = Segmenter.load(model, device, precision, resolution, engine)
        segmenter.warm_up()
        gallery = _Gallery(categories) if pictures else None
        metrics = evaluate(segmenter, truth, categories, len(dataset), gallery).metrics
        facts = _facts(segmenter)
        if gallery and pictures:
            gallery.write(pictures)
    print(format_table(metrics))
    if json_file:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        write_file(json_file, json.dumps({**metrics, **facts}, indent=2).encode())
    return metrics


def _open_truth(
    annotations: Path | None,
    images: Path | None,
    only: str,
    cityscapes: Path | None,
    split: str,
    synthetic: int,
) -> tuple[Any, Iterable[TruthImage], tuple[Category, ...]]:
    if sum((annotations is not None, cityscapes is not None, synthetic > 0)) != 1:
        raise ValueError(
            "give one truth: --annotations JSON --images DIR, --cityscapes DIR or --synthetic N"
        )
    if annotations:
        if not images:
            raise ValueError("--annotations with --model needs --images, the folder of the images")
        dataset = CocoPanoptic(annotations, images, only=only)
        return dataset, coco_truth(dataset), dataset.categories
    if cityscapes:
        from panoptic_ros.data.cityscapes import Cityscapes

        streets: Any = Cityscapes(cityscapes, split)
    else:
        from panoptic_ros.data.synthetic import SyntheticStreets

        streets = SyntheticStreets(synthetic, SYNTHETIC_SIZE, SYNTHETIC_SEED)
    return streets, dataset_truth(streets), streets.categories


def _facts(segmenter: Segmenter) -> dict[str, Any]:
    return {
        "model": segmenter.name,
        "device": str(segmenter.device),
        "precision": segmenter.precision,
        "engine": segmenter.engine,
        "resolution": list(segmenter.resolution),
        "torch": torch.__version__,
    }


class _Gallery:
    """Keeps the pictures of the worst and the best images of an evaluation.

    Args:
        categories: Classes of the truth.
        size: How many of each to keep.
    """

    def __init__(self, categories: tuple[Category, ...], size: int = 6) -> None:
        self._categories, self._size = categories, size
        self._best: list[tuple[float, int, np.ndarray, str]] = []
        self._worst: list[tuple[float, int, np.ndarray, str]] = []
        self._count = itertools.count()  # settles ties, so that no array is compared

    def __call__(self, item: TruthImage, prediction: PanopticPrediction, pq: float) -> None:
        if math.isnan(pq):
            return
        for heap, key in ((self._best, pq), (self._worst, -pq)):
            if len(heap) == self._size and key <= heap[0][0]:
                continue
            truth = as_prediction(item, self._categories)
            row = (
                item.image,
                draw_overlay(item.image, truth),
                draw_overlay(item.image, prediction),
            )
            entry = (key, next(self._count), np.hstack(row), f"{item.name}  PQ {100 * pq:.1f}")
            heapq.heappush(heap, entry)
            if len(heap) > self._size:
                heapq.heappop(heap)

    def write(self, folder: Path) -> None:
        """Write worst.png and best.png: image, truth and prediction side by side."""
        from panoptic_ros.drawing import contact_sheet, write_image

        folder.mkdir(parents=True, exist_ok=True)
        for name, heap in (("worst", self._worst), ("best", self._best)):
            entries = sorted(heap, reverse=True)
            if entries:
                sheet = contact_sheet(
                    [entry[2] for entry in entries],
                    [entry[3] for entry in entries],
                    columns=1,
                    tile_width=1440,
                    categories=self._categories,
                )
                write_image(folder / f"{name}.png", sheet)


def as_prediction(item: TruthImage, categories: tuple[Category, ...]) -> PanopticPrediction:
    """Return the truth of an image in the form of a prediction, to draw it."""
    slots = np.zeros(item.id_map.shape, np.int64)
    for slot, segment_id in enumerate(item.segments.ids, start=1):
        slots[item.id_map == segment_id] = slot
    segments = SegmentMap(
        torch.from_numpy(slots),
        torch.from_numpy(item.segments.classes),
        torch.ones(len(item.segments.ids)),
    )
    things = torch.tensor([c.id for c in categories if c.is_thing])
    labels = encode_segments(segments, things).labels.numpy().view(np.uint16)
    return PanopticPrediction(labels, (), categories)
