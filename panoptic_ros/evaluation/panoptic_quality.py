"""Panoptic quality (Kirillov et al., Panoptic Segmentation, CVPR 2019, Eq. 1), as panopticapi.

One joint histogram of truth and prediction per image; everything else is arithmetic on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from panoptic_ros.prediction import Category


class SegmentTable(NamedTuple):
    """The listed segments of one image.

    Attributes:
        ids: int64, (S,): values in the id map; never 0, which is void.
        classes: int64, (S,): category ids.
        is_crowd: bool, (S,): groups that are never found nor missed. False for predictions.
        areas: int64, (S,) or None: for the truth, areas as listed; None counts the id map's.
    """

    ids: np.ndarray
    classes: np.ndarray
    is_crowd: np.ndarray
    areas: np.ndarray | None = None

    @classmethod
    def from_segments_info(cls, segments: Iterable[Mapping[str, Any]]) -> SegmentTable:
        """Build the table from ``segments_info`` of the COCO panoptic format."""
        segments = list(segments)
        has_areas = all("area" in s for s in segments)
        return cls(
            np.array([s["id"] for s in segments], np.int64),
            np.array([s["category_id"] for s in segments], np.int64),
            np.array([s.get("iscrowd", 0) for s in segments], bool),
            np.array([s["area"] for s in segments], np.int64) if has_areas else None,
        )


class PanopticQuality:
    """Accumulates panoptic quality and mIoU over images.

    A pair of segments of one class matches when its IoU, pixels of void left out, is above 0.5.
    Truth that is not matched is missed (FN) unless it is a crowd; a prediction that is not
    matched is false (FP) unless more than half of it is void or crowd of its class.

    Args:
        categories: Classes of the truth.
    """

    def __init__(self, categories: Sequence[Category]) -> None:
        self.categories = tuple(categories)
        number = len(self.categories)
        self._class_index = {c.id: i for i, c in enumerate(self.categories)}
        self._iou = np.zeros(number)
        self._tp, self._fp, self._fn = (np.zeros(number, np.int64) for _ in range(3))
        # pixels of truth class by predicted class; the last row and column are "no class"
        self._confusion = np.zeros((number + 1, number + 1), np.int64)

    def add(
        self,
        truth_map: np.ndarray,
        truth: SegmentTable,
        predicted_map: np.ndarray,
        predicted: SegmentTable,
    ) -> float:
        """Count one image and return its own PQ, averaged over the classes in it (NaN if none).

        Args:
            truth_map: Integer, (H, W): segment ids, 0 is void.
            truth: The segments listed for it; ids in the map that are not listed are ignored.
            predicted_map: Integer, (H, W), the same size.
            predicted: Must list exactly the ids in ``predicted_map``.

        Raises:
            ValueError: Sizes differ, a predicted id is listed but not in the map or the other
                way round, or a category is unknown.
        """
        if truth_map.shape != predicted_map.shape:
            raise ValueError(
                f"prediction is {predicted_map.shape}, the truth {truth_map.shape}; they must "
                "have the same height and width"
            )
        histogram = _joint_histogram(truth_map, truth.ids, predicted_map, predicted.ids)
        _check_listed(histogram, predicted.ids)
        truth_class = self._indices(truth.classes)
        predicted_class = self._indices(predicted.classes)
        counts = _match(histogram, truth, truth_class, predicted_class, len(self.categories))
        for total, count in zip((self._iou, self._tp, self._fp, self._fn), counts, strict=True):
            total += count
        self._add_confusion(histogram, truth_class, predicted_class)
        return float(np.mean(_quality(*counts)[0])) if any(c.any() for c in counts[1:]) else np.nan

    def result(self) -> dict[str, Any]:
        """Return the metric as fractions.

        ``All``, ``Things`` and ``Stuff`` each hold ``pq``, ``sq``, ``rq`` and ``n``, plain means
        over the ``n`` classes that occur in truth or prediction; ``per_class`` holds the same by
        category id with ``tp``, ``fp``, ``fn`` and ``iou``; ``miou`` is over the classes that
        occur, on pixels where the truth is not void.
        """
        occurs = self._tp + self._fp + self._fn > 0
        things = np.array([c.is_thing for c in self.categories], bool)
        pq, sq, rq = np.zeros((3, len(self.categories)))
        pq[occurs], sq[occurs], rq[occurs] = _quality(self._iou, self._tp, self._fp, self._fn)
        iou, has_pixels = self._class_iou()

        def mean(of: np.ndarray) -> dict[str, float]:
            chosen = of & occurs
            values = {
                k: float(v[chosen].mean()) if chosen.any() else 0.0
                for k, v in (("pq", pq), ("sq", sq), ("rq", rq))
            }
            return {**values, "n": int(chosen.sum())}

        return {
            "All": mean(np.ones_like(things)),
            "Things": mean(things),
            "Stuff": mean(~things),
            "miou": float(iou[has_pixels].mean()) if has_pixels.any() else 0.0,
            "per_class": {
                c.id: {
                    "name": c.name,
                    "pq": float(pq[i]),
                    "sq": float(sq[i]),
                    "rq": float(rq[i]),
                    "tp": int(self._tp[i]),
                    "fp": int(self._fp[i]),
                    "fn": int(self._fn[i]),
                    "iou": float(iou[i]),
                }
                for i, c in enumerate(self.categories)
            },
        }

    def _indices(self, category_ids: np.ndarray) -> np.ndarray:
        unknown = set(category_ids.tolist()) - self._class_index.keys()
        if unknown:
            raise ValueError(
                f"category {sorted(unknown)} is not among the truth's categories "
                f"{sorted(self._class_index)}; was the model trained for other classes?"
            )
        return np.array([self._class_index[c] for c in category_ids.tolist()], np.int64)

    def _add_confusion(
        self, histogram: np.ndarray, truth_class: np.ndarray, predicted_class: np.ndarray
    ) -> None:
        number = len(self.categories)
        rows = np.concatenate(([number], truth_class, [number]))
        columns = np.concatenate(([number], predicted_class))
        np.add.at(self._confusion, (rows[:, None], columns[None, :]), histogram)

    def _class_iou(self) -> tuple[np.ndarray, np.ndarray]:
        labelled = self._confusion[:-1]
        inter = labelled[:, :-1].diagonal()
        union = labelled.sum(1) + labelled[:, :-1].sum(0) - inter
        return inter / np.maximum(union, 1), union > 0


def _joint_histogram(
    truth_map: np.ndarray, truth_ids: np.ndarray, predicted_map: np.ndarray, ids: np.ndarray
) -> np.ndarray:
    """Count pixels by truth and prediction: int64, (G + 2, P + 1).

    Row 0 and column 0 are void, then the listed segments in order; the last row is truth that
    is not listed.

    Raises:
        ValueError: A pixel of the prediction has an id that is not listed.
    """
    rows = _dense(truth_map, truth_ids)
    columns = _dense(predicted_map, ids)
    shape = (len(truth_ids) + 2, len(ids) + 2)
    index = rows * np.int32(shape[1])
    index += columns
    histogram = np.bincount(index.ravel(), minlength=shape[0] * shape[1]).reshape(shape)
    histogram = np.roll(histogram, -1, axis=(0, 1))  # what is not listed goes last
    if histogram[:, -1].any():
        unlisted = sorted(set(np.unique(predicted_map).tolist()) - {0, *ids.tolist()})
        raise ValueError(f"prediction has pixels of segments {unlisted[:5]} that it does not list")
    return histogram[:, :-1]


def _dense(id_map: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Renumber an id map: int32, 0 for any id that is not listed, 1 for void, k + 2 for ids[k]."""
    highest = max(int(id_map.max(initial=0)), int(ids.max(initial=0)))
    table = np.zeros(highest + 1, np.int32)  # ids go up to 2^24: untouched zeros cost nothing
    table[ids] = np.arange(2, len(ids) + 2)
    table[0] = 1
    return table[id_map]


def _check_listed(histogram: np.ndarray, ids: np.ndarray) -> None:
    missing = ids[histogram[:, 1:].sum(0) == 0]
    if missing.size:
        raise ValueError(f"prediction lists segments {missing[:5].tolist()} that have no pixels")


def _match(
    histogram: np.ndarray,
    truth: SegmentTable,
    truth_class: np.ndarray,
    predicted_class: np.ndarray,
    classes: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the sum of IoU, and the counts TP, FP, FN, per class."""
    inter = histogram[1:-1, 1:]
    void = histogram[0, 1:]
    area = histogram[:, 1:].sum(0)
    truth_area = histogram[1:-1].sum(1) if truth.areas is None else truth.areas
    union = area[None, :] + truth_area[:, None] - inter - void[None, :]
    iou = inter / np.maximum(union, 1)
    same = truth_class[:, None] == predicted_class[None, :]
    match = (iou > 0.5) & same & ~truth.is_crowd[:, None]
    found, right = match.any(1), match.any(0)

    crowd = np.zeros(len(predicted_class), np.int64)
    # of several crowds of a class in one image only the last listed counts, as in panopticapi
    for g in np.flatnonzero(truth.is_crowd):
        crowd = np.where(same[g], inter[g], crowd)
    false = ~right & ~((void + crowd) / np.maximum(area, 1) > 0.5)
    missed = ~found & ~truth.is_crowd

    def per_class(of: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(of, weights, minlength=classes)

    g, p = np.nonzero(match)
    return (
        per_class(truth_class[g], iou[g, p]),
        per_class(truth_class[g]),
        per_class(predicted_class[false]),
        per_class(truth_class[missed]),
    )


def _quality(
    iou: np.ndarray, tp: np.ndarray, fp: np.ndarray, fn: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return PQ, SQ and RQ (Eq. 1 and 2) of the classes that occur, in order."""
    occurs = tp + fp + fn > 0
    iou, tp, fp, fn = (v[occurs] for v in (iou, tp, fp, fn))
    size = tp + fp / 2 + fn / 2
    return iou / size, iou / np.maximum(tp, 1), tp / size
