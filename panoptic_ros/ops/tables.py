"""From label images and tables, as ``segments`` makes them, to predictions, on the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from panoptic_ros.prediction import LABEL_DIVISOR, Category, PanopticPrediction, Segment


def describe_segments(
    labels: np.ndarray,
    table: np.ndarray,
    categories: Sequence[Category],
    timings: Mapping[str, float],
) -> PanopticPrediction:
    """Return the prediction that a label image and its table are.

    Args:
        labels: uint16, (H, W), or (2, H, W) with the confidence of every pixel.
        table: float64, (S, 9), see ``EncodedSegments``.
        categories: The model's class table.
        timings: Seconds per stage.
    """
    confidence = None
    if labels.ndim == 3:
        labels, confidence = labels[0], labels[1].astype(np.uint8)
    by_id = {category.id: category for category in categories}
    rows = table[table[:, 1] > 0]
    thing_labels = [int(row[0]) for row in rows if by_id[int(row[0]) // LABEL_DIVISOR].is_thing]
    overflow = sum(label % LABEL_DIVISOR == 0 for label in thing_labels)
    segments = [_segment_from(row, by_id) for row in _join_equal_labels(rows)]
    segments.sort(key=lambda s: (not s.is_thing, -s.score if s.is_thing else s.class_id))
    return PanopticPrediction(
        labels, tuple(segments), tuple(categories), overflow, timings, confidence
    )


def _segment_from(row: np.ndarray, categories: Mapping[int, Category]) -> Segment:
    label, area, x1, y1, x2, y2 = (int(value) for value in row[:6])
    category = categories[label // LABEL_DIVISOR]
    return Segment(
        id=label,
        class_id=category.id,
        class_name=category.name,
        is_thing=category.is_thing,
        score=float(row[6]),
        area=area,
        bbox=(x1, y1, x2 - x1 + 1, y2 - y1 + 1),
        center=(float(row[7]), float(row[8])),
    )


def _join_equal_labels(rows: np.ndarray) -> np.ndarray:
    """Join the rows of instances that share instance 0 of their class into one row each."""
    labels, first, count = np.unique(rows[:, 0], return_index=True, return_counts=True)
    joined = rows[first].copy()
    for label, row in zip(labels[count > 1], joined[count > 1], strict=True):
        same = rows[rows[:, 0] == label]
        row[1] = same[:, 1].sum()
        row[2:4] = same[:, 2:4].min(0)
        row[4:7] = same[:, 4:7].max(0)
        row[7:9] = np.average(same[:, 7:9], axis=0, weights=same[:, 1])
        joined[labels == label] = row
    return joined
