"""The boxes of things in space, from labels and a registered depth image.

Masks are never exact, so some pixels of a thing show what is behind or before it. Its depth is
therefore found in the eroded mask: from its median on, nearer and farther, as long as the depths
have no gap. Only pixels of the mask within this range make its box.

All things of an image are done at once; large ones are looked at on a coarser grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from panoptic_ros.prediction import LABEL_DIVISOR, MAX_CLASS_ID, Box, Segment
from panoptic_ros.space.camera import Pinhole

MIN_DEPTH, MAX_DEPTH = 0.05, 250.0  # metres; what is outside has no depth
BIN = 0.01  # relative width of the bins of depth
GAP = 2  # bins on each side of an occupied one that count as occupied, too
REACH = 8  # bins that pixels outside of the eroded mask add on each side at most
SPARSE = 0.002  # part of a thing's pixels that makes a bin occupied
TRIMMED = 0.005  # part of the pixels that is cut off on the left, right, top and bottom
FEW = 8  # pixels: an eroded mask with fewer is not used, and nothing is said of fewer at all
ENOUGH = 1024  # pixels of a thing that are looked at; up to four times as many for some sizes
EROSION = 1 / 180  # of the height of the image
PIXELS = 300_000  # larger images are looked at on every second, third, ... row and column

_BINS = math.ceil(math.log(MAX_DEPTH / MIN_DEPTH) / BIN)


def find_boxes(
    depth: np.ndarray, labels: np.ndarray, instances: Sequence[Segment], camera: Pinhole
) -> dict[int, Box]:
    """Return the box of every thing of which enough is seen, by its id.

    A box holds what is visible of a thing; its sides are parallel to the axes of the camera.

    Args:
        depth: float32, (H, W), along the optical axis in metres; NaN or 0 where it is missing.
        labels: uint16, (H, W).
        instances: Things in the label image.
        camera: That took the images.
    """
    if not instances:
        return {}
    every = math.ceil(math.sqrt(labels.size / PIXELS))
    depth, labels = depth[::every, ::every], labels[::every, ::every]
    across, down = camera.slopes(*(side * every for side in labels.shape))
    slots = _slots(labels, instances)
    index, slot, z = _pixels(slots, depth, instances, every)
    bins = (np.log(z / MIN_DEPTH) * (1 / BIN)).astype(np.int32)
    eroded = _inner(slots, max(1, round(EROSION * len(slots)))).ravel()[index]
    first, last = _depth_ranges(bins, slot, eroded, len(instances))
    within = (bins >= first[slot]) & (bins <= last[slot])
    index, slot, z = index[within], slot[within], z[within]
    rows, columns = _grid(*slots.shape)
    points = np.stack((across[::every][columns[index]] * z, down[::every][rows[index]] * z, z))
    footprint = every / 2 / np.array((camera.fx, camera.fy))
    return _extents(points, slot, footprint, instances)


def _slots(labels: np.ndarray, instances: Sequence[Segment]) -> np.ndarray:
    """Return 1 + the place among the instances of every pixel: uint16, (H, W), 0 for none."""
    slot_of = np.zeros(LABEL_DIVISOR * (MAX_CLASS_ID + 1), np.uint16)
    slot_of[[segment.id for segment in instances]] = np.arange(1, len(instances) + 1)
    return slot_of[labels]


def _pixels(
    slots: np.ndarray, depth: np.ndarray, instances: Sequence[Segment], every: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the flat index, place among the instances and depth of the pixels to look at."""
    measured = (depth > MIN_DEPTH) & (depth < MAX_DEPTH)
    index = np.flatnonzero((slots > 0) & measured)
    slot = slots.ravel()[index] - np.uint16(1)
    step = np.sqrt([segment.area / (every**2 * ENOUGH) for segment in instances]).clip(min=1)
    skipped = (2 ** np.log2(step).astype(int) - 1).astype(np.uint16)
    if skipped.any():
        rows, columns = _grid(*slots.shape)
        looked_at = (rows[index] | columns[index]) & skipped[slot] == 0
        index, slot = index[looked_at], slot[looked_at]
    return index, slot, np.ascontiguousarray(depth).ravel()[index]


def _inner(slots: np.ndarray, radius: int) -> np.ndarray:
    """Return the pixels whose neighbours at a distance are of the same thing: bool, (H, W)."""
    inner = np.zeros(slots.shape, bool)
    center = slots[radius:-radius, radius:-radius]
    inside = center == slots[: -2 * radius, radius:-radius]
    inside &= center == slots[2 * radius :, radius:-radius]
    inside &= center == slots[radius:-radius, : -2 * radius]
    inside &= center == slots[radius:-radius, 2 * radius :]
    inner[radius:-radius, radius:-radius] = inside
    return inner


def _depth_ranges(
    bins: np.ndarray, slot: np.ndarray, eroded: np.ndarray, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and last bin of depth of every thing, (number,) each."""
    whole = _counts(bins, slot, number)
    inner = _counts(bins[eroded], slot[eroded], number)
    few = inner.sum(1) < FEW
    inner[few] = whole[few]
    total = inner.sum(1, keepdims=True)
    middle = (inner.cumsum(1) * 2 < total).sum(1).clip(max=_BINS - 1)
    first, last = _run(inner > SPARSE * total, middle, middle)
    # What erosion took from surfaces that lead away from the camera comes back, but no more.
    farther = _run(whole > SPARSE * total, first, last)
    return np.maximum(farther[0], first - REACH), np.minimum(farther[1], last + REACH)


def _counts(bins: np.ndarray, slot: np.ndarray, number: int) -> np.ndarray:
    """Return how many pixels every thing has in every bin: int64, (number, _BINS)."""
    place = slot * np.int64(_BINS) + bins
    return np.bincount(place, minlength=number * _BINS).reshape(number, _BINS)


def _run(seen: np.ndarray, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Extend a range of bins on both sides to the next gap; (number,) each."""
    number = len(seen)
    occupied = np.zeros((number, _BINS + 2 * GAP + 2), bool)  # never at its ends
    for shift in range(2 * GAP + 1):
        occupied[:, 1 + shift : 1 + shift + _BINS] |= seen
    column = np.arange(occupied.shape[1])
    before, behind = first[:, None] + GAP + 1, last[:, None] + GAP + 1  # among the columns
    end = np.where(~occupied & (column > behind), column, column[-1]).min(1)
    start = np.where(~occupied & (column < before), column, 0).max(1)
    return start, end - 2 * GAP - 2  # from the columns beside the run back to bins


def _extents(
    points: np.ndarray, slot: np.ndarray, footprint: np.ndarray, instances: Sequence[Segment]
) -> dict[int, Box]:
    """Return the boxes around points (3, N) of some things.

    Args:
        points: float32, (3, N).
        slot: uint16, (N,), the place of their things among the instances.
        footprint: (2,), how far a pixel reaches beyond its centre in x and y, by its depth.
        instances: Things, some of which have points.
    """
    order = np.argsort(slot, kind="stable")
    points = points[:, order]
    ends = np.bincount(slot, minlength=len(instances)).cumsum()
    boxes = {}
    for segment, start, end in zip(instances, np.r_[0, ends[:-1]], ends, strict=True):
        number = int(end - start)
        if number < FEW:
            continue
        cut = int(TRIMMED * number)
        sides = np.partition(points[:2, start:end], (cut, number - 1 - cut), axis=1)
        z = points[2, start:end]  # within a range that is robust already
        near, far = float(z.min()), float(z.max())
        margin = footprint * ((near + far) / 2)
        low, high = sides[:, cut] - margin, sides[:, number - 1 - cut] + margin
        center = (*((low + high) / 2).tolist(), (near + far) / 2)
        boxes[segment.id] = Box(center, (*(high - low).tolist(), far - near))
    return boxes


@lru_cache(maxsize=8)
def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column of every pixel: uint16, (H * W,) each."""
    rows, columns = np.indices((height, width), np.uint16)
    return rows.ravel(), columns.ravel()
