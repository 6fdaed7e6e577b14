"""Scenes of boxes on a floor before a wall, ray-cast: depth, labels and the truth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from panoptic_ros.prediction import Category, PanopticPrediction, Segment
from panoptic_ros.space.camera import Pinhole

FLOOR = Category(1, "floor", False, (128, 64, 128))
WALL = Category(2, "wall", False, (70, 70, 70))
CRATE = Category(9, "crate", True, (0, 0, 142))
FLOOR_Y, WALL_Z = 1.5, 20.0  # metres below and before the camera


class Cuboid(NamedTuple):
    """A box with sides along the axes of the camera's optical frame, in metres."""

    center: tuple[float, float, float]
    size: tuple[float, float, float]


class Scene(NamedTuple):
    depth: np.ndarray
    prediction: PanopticPrediction
    camera: Pinhole


def cast(cuboids, height: int = 360, width: int = 480, focal: float = 400.0) -> Scene:
    """See cuboids, the first one as instance 1; (0, 0) is the centre of the first pixel."""
    camera = Pinhole(focal, focal, (width - 1) / 2, (height - 1) / 2)
    v, u = np.mgrid[:height, :width]
    ray = np.stack(((u - camera.cx) / focal, (v - camera.cy) / focal, np.ones(u.shape)))
    with np.errstate(divide="ignore"):
        floor = np.where(ray[1] > 0, FLOOR_Y / ray[1], np.inf)
    depth = np.minimum(floor, WALL_Z)
    labels = np.where(floor < WALL_Z, FLOOR.id, WALL.id) * 256
    for number, (center, size) in enumerate(cuboids, start=1):
        low, high = (
            np.array(center)[:, None, None] + s * np.array(size)[:, None, None] / 2
            for s in (-1, 1)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            first, second = low / ray, high / ray
        near = np.minimum(first, second).max(0)
        far = np.maximum(first, second).min(0)
        hit = (near <= far) & (near > 0) & (near < depth)
        depth = np.where(hit, near, depth)
        labels = np.where(hit, CRATE.id * 256 + number, labels)
    return Scene(depth.astype(np.float32), describe(labels.astype(np.uint16)), camera)


def describe(labels: np.ndarray) -> PanopticPrediction:
    """Return the prediction that a label image is."""
    segments = []
    for label in np.unique(labels[labels > 0]).tolist():
        category = {c.id: c for c in (FLOOR, WALL, CRATE)}[label // 256]
        y, x = np.nonzero(labels == label)
        box = (int(x.min()), int(y.min()), int(np.ptp(x)) + 1, int(np.ptp(y)) + 1)
        center = (float(x.mean()), float(y.mean()))
        segments.append(
            Segment(label, category.id, category.name, category.is_thing, 0.8, len(x), box, center)
        )
    segments.sort(key=lambda s: not s.is_thing)
    return PanopticPrediction(labels, tuple(segments), (FLOOR, WALL, CRATE))
