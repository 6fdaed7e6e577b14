"""Clouds of points that know their class, from a prediction and a registered depth image."""

from __future__ import annotations

import numpy as np

from panoptic_ros.prediction import LABEL_DIVISOR, PanopticPrediction
from panoptic_ros.space.camera import Pinhole

# As the Point Cloud Library reads it: colour is 0x00RRGGBB in the bits of a float.
POINT = np.dtype(
    {
        "names": ["x", "y", "z", "rgb", "class", "instance", "confidence"],
        "formats": ["<f4", "<f4", "<f4", "<u4", "<u2", "<u2", "<f4"],
    }
)


def organised_cloud(
    depth: np.ndarray, image: np.ndarray, prediction: PanopticPrediction, camera: Pinhole
) -> np.ndarray:
    """Return a point for every pixel: POINT, (H, W).

    Args:
        depth: float32, (H, W), along the optical axis in metres; NaN where it is missing. x, y
            and z are NaN there, too; the rest is known of every pixel.
        image: uint8, (H, W, 3), RGB.
        prediction: Of the image; its confidence if it has that, else the scores of its segments.
        camera: That took the images.
    """
    across, down = camera.slopes(*depth.shape)
    points = np.empty(depth.shape, POINT)
    np.multiply(depth, across, out=points["x"])
    np.multiply(depth, down[:, None], out=points["y"])
    points["z"] = depth
    bytes_ = points.view(np.uint8).reshape(*depth.shape, POINT.itemsize)
    start = POINT.fields["rgb"][1]
    bytes_[..., start : start + 3] = image[..., ::-1]
    bytes_[..., start + 3] = 0
    np.floor_divide(prediction.labels, LABEL_DIVISOR, out=points["class"])
    np.remainder(prediction.labels, LABEL_DIVISOR, out=points["instance"])
    scale = np.float32(1 / 255)
    np.multiply(prediction.confidence_or_scores(), scale, out=points["confidence"])
    return points


def thinned_cloud(points: np.ndarray, voxel_size: float) -> np.ndarray:
    """Return the first point of every cube that has any, in the order of the image: POINT, (N,).

    Args:
        points: POINT, of any shape; those without depth are left out.
        voxel_size: Side of the cubes in metres.
    """
    points = points[np.isfinite(points["z"])]
    cells = [np.floor(points[axis] / np.float32(voxel_size)) for axis in "xyz"]
    key = np.zeros(len(points), np.int64)
    for cell in cells:
        cell = (cell - cell.min(initial=0)).astype(np.int64)
        key = key * (cell.max(initial=0) + 1) + cell
    fresh = np.flatnonzero(np.diff(key, prepend=-1))  # neighbours in a cube come once
    _, first = np.unique(key[fresh], return_index=True)
    return points[fresh[np.sort(first)]]
