"""Numbers that a thing keeps from image to image, by where its mask is expected.

Each track predicts its box, with constant velocity of its centre and of the logarithm of its
size; its last mask moves and grows along. Masks that overlap most, by IoU, are one thing. Of those
left over, masks are one thing that lie in each other, as one may be hidden in part; then boxes
that overlap when they are enlarged. Each time the best assignment of all counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from panoptic_ros.prediction import PanopticPrediction, Segment, Track
from panoptic_ros.tracking.assignment import assign, require_scipy
from panoptic_ros.tracking.overlap import MaskGrid, MaskSamples, box_overlap

SECOND = 1_000_000_000  # nanoseconds
MEMORY = 1 * SECOND  # how long a thing may be out of sight
PAUSE = 5 * SECOND  # between two images; after a longer one, what was seen before is forgotten
MAX_LOST = 256  # tracks out of sight that are kept, the latest
MAX_NUMBER = (1 << 32) - 1

# Chosen on six synthetic drives that no benchmark uses; half or double changes little.
LEAST_IOU = 0.1  # of masks
LEAST_PART = 0.3  # that two masks share, of the smaller one
LEAST_BOX_IOU = 0.2
BOX_MARGIN = 0.3  # of its width and height that a box is enlarged by on each side
OTHER_CLASS = 0.5  # what an overlap with an instance of another class counts
SMOOTHING = 0.5  # share of the newest displacement in the velocity,
CAUTION = 4.0  # less the more the size surprises: by exp(-CAUTION) for a factor of e
FADE = 0.1  # share of what is no longer seen of a box that is given up per image
MAX_GROWTH = 0.7  # of the logarithm of a size between two sights: to its double or half

_Pairs = tuple[np.ndarray, np.ndarray]  # rows and columns: tracks and instances


@dataclass(frozen=True)
class _Tracks:
    """All tracks of a camera, one a row.

    Attributes:
        numbers: int64, (m,).
        classes: int64, (m,): class when last seen.
        ages: int64, (m,): images in which it was seen.
        first_seen: int64, (m,): nanoseconds; likewise last_seen.
        boxes: float, (m, 4): when last seen; centre x, y, log width, log height.
        velocities: float, (m, 4): change of ``boxes`` per second.
        wholes: float, (m, 4): likewise, of what may be hidden in part.
        masks: When last seen.
    """

    numbers: np.ndarray
    classes: np.ndarray
    ages: np.ndarray
    first_seen: np.ndarray
    last_seen: np.ndarray
    boxes: np.ndarray
    velocities: np.ndarray
    wholes: np.ndarray
    masks: MaskSamples

    @classmethod
    def none(cls) -> _Tracks:
        return cls(*[np.zeros(0, np.int64)] * 5, *[np.zeros((0, 4))] * 3, MaskSamples.empty())

    def __len__(self) -> int:
        return len(self.numbers)

    def columns(self) -> tuple[np.ndarray, ...]:
        return (
            self.numbers,
            self.classes,
            self.ages,
            self.first_seen,
            self.last_seen,
            self.boxes,
            self.velocities,
            self.wholes,
        )

    def take(self, rows: np.ndarray) -> _Tracks:
        columns = (column[rows] for column in self.columns())
        return _Tracks(*columns, self.masks.take(rows, len(self)))

    def joined(self, other: _Tracks) -> _Tracks:
        pairs = zip(self.columns(), other.columns(), strict=True)
        return _Tracks(*map(np.concatenate, pairs), self.masks.joined(other.masks, len(self)))


class Tracker:
    """Gives the instances of one camera's images numbers that last.

    A number is given again only after all 2^32 - 1 others. Stamps that jump back, a pause of more
    than 5 s, another model or another image size begin anew, with new numbers. May be used from
    any thread, by one at a time.

    Raises:
        ValueError: SciPy is not installed.
    """

    def __init__(self) -> None:
        require_scipy()
        self._last_number = 0
        self._tracks = _Tracks.none()
        self._stamp = 0
        self._origin: tuple[object, ...] = ()

    def update(
        self, prediction: PanopticPrediction, stamp: int, model: str = ""
    ) -> PanopticPrediction:
        """Follow the instances of the next image.

        Args:
            prediction: What was seen in it.
            stamp: When it was taken, in nanoseconds.
            model: Name of the model that saw it.

        Returns:
            The same prediction with ``tracks``: one for each of its instances.
        """
        origin = (model, prediction.categories, prediction.labels.shape)
        if origin != self._origin or not 0 <= stamp - self._stamp <= PAUSE:
            self._tracks = _Tracks.none()
        self._origin, self._stamp = origin, stamp
        instances = prediction.instances
        seen = self._follow(instances, prediction.labels, stamp)
        rows = np.stack((seen.numbers, seen.ages, seen.first_seen), 1).tolist()
        tracks = {s.id: Track(*row) for s, row in zip(instances, rows, strict=True)}
        return replace(prediction, tracks=tracks)

    def _follow(self, instances: Sequence[Segment], labels: np.ndarray, stamp: int) -> _Tracks:
        """Take over the tracks for the next image; returns those of its instances, in order."""
        old = self._tracks
        classes = np.array([s.class_id for s in instances], np.int64)
        boxes = _boxes(instances)
        grid = MaskGrid(labels, np.array([s.id for s in instances], np.int64))
        change = self._change(stamp, grid.size)
        rows, columns = self._match(grid, classes, boxes, change)
        seen = self._begin(classes, boxes, grid.samples(), stamp)
        seen.numbers[columns] = old.numbers[rows]
        seen.ages[columns] += old.ages[rows]
        seen.first_seen[columns] = old.first_seen[rows]
        seen.wholes[columns] = _wholes(old.wholes[rows] + change[rows], boxes[columns])
        seen.velocities[columns] = _velocities(old, rows, boxes[columns], stamp)
        fresh = seen.ages == 1
        seen.numbers[fresh] = self._new_numbers(int(fresh.sum()))
        lost = np.ones(len(old), bool)
        lost[rows] = False
        lost &= stamp - old.last_seen <= MEMORY
        latest = np.flatnonzero(lost)
        latest = latest[np.argsort(-old.last_seen[latest], kind="stable")[:MAX_LOST]]
        self._tracks = seen.joined(old.take(latest))
        return seen

    def _change(self, stamp: int, size: tuple[int, int]) -> np.ndarray:
        """Return how the boxes of all tracks are expected to change until a stamp: (m, 4)."""
        seconds = (stamp - self._tracks.last_seen) / SECOND
        # Stamps may be a hair apart, and velocities senseless.
        limit = np.array([max(size), max(size), MAX_GROWTH, MAX_GROWTH])
        return np.clip(self._tracks.velocities * seconds[:, None], -limit, limit)

    def _match(
        self, grid: MaskGrid, classes: np.ndarray, boxes: np.ndarray, change: np.ndarray
    ) -> _Pairs:
        """Return which tracks go on as which instances: rows and columns of the pairs."""
        old = self._tracks
        expected = old.boxes + change
        same_class = old.classes[:, None] == classes
        iou, part = grid.overlap(old.masks, old.boxes, expected)
        weight = np.where(same_class, 1.0, OTHER_CLASS)
        pairs = assign(weight * iou, LEAST_IOU)
        left, right = _left_over(pairs, iou.shape)
        pairs = _joined(pairs, left, right, (same_class * part)[np.ix_(left, right)], LEAST_PART)
        left, right = _left_over(pairs, iou.shape)
        near = box_overlap((old.wholes + change)[left], boxes[right], BOX_MARGIN)
        return _joined(pairs, left, right, same_class[np.ix_(left, right)] * near, LEAST_BOX_IOU)

    def _begin(
        self, classes: np.ndarray, boxes: np.ndarray, masks: MaskSamples, stamp: int
    ) -> _Tracks:
        """Return instances as tracks that are seen for the first time and have no number yet."""
        number = len(classes)
        stamps = np.full(number, stamp, np.int64)
        numbers, ages = np.zeros(number, np.int64), np.ones(number, np.int64)
        places = boxes, np.zeros((number, 4)), boxes.copy()
        return _Tracks(numbers, classes, ages, stamps, stamps.copy(), *places, masks)

    def _new_numbers(self, count: int) -> np.ndarray:
        numbers = (self._last_number + np.arange(count)) % MAX_NUMBER + 1
        self._last_number = int(numbers[-1]) if count else self._last_number
        return numbers


def _boxes(instances: Sequence[Segment]) -> np.ndarray:
    """Return boxes as centre x, y, log width, log height: float64, (n, 4)."""
    boxes = np.array([s.bbox for s in instances], np.float64).reshape(-1, 4)
    return np.concatenate((boxes[:, :2] + (boxes[:, 2:] - 1) / 2, np.log(boxes[:, 2:])), 1)


def _wholes(expected: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return what may be hidden in part: it reaches as far as is seen, and fades elsewhere."""
    low, high = (expected[:, :2] + side * np.exp(expected[:, 2:]) / 2 for side in (-1, 1))
    seen_low, seen_high = (boxes[:, :2] + side * np.exp(boxes[:, 2:]) / 2 for side in (-1, 1))
    low = np.minimum(seen_low, low + FADE * (seen_low - low))
    high = np.maximum(seen_high, high + FADE * (seen_high - high))
    return np.concatenate(((low + high) / 2, np.log(high - low)), 1)


def _left_over(pairs: _Pairs, shape: tuple[int, int]) -> _Pairs:
    """Return the rows and the columns that are in no pair."""
    rows, columns = (
        np.setdiff1d(np.arange(n), side) for n, side in zip(shape, pairs, strict=True)
    )
    return rows, columns


def _joined(
    pairs: _Pairs, left: np.ndarray, right: np.ndarray, agreement: np.ndarray, least: float
) -> _Pairs:
    """Return pairs, and those of some more rows and columns that agree."""
    rows, columns = assign(agreement, least)
    return np.concatenate((pairs[0], left[rows])), np.concatenate((pairs[1], right[columns]))


def _velocities(old: _Tracks, rows: np.ndarray, boxes: np.ndarray, stamp: int) -> np.ndarray:
    """Return the velocities of tracks that were seen again at ``boxes``: (k, 4)."""
    seconds = (stamp - old.last_seen[rows])[:, None] / SECOND
    newest = (boxes - old.boxes[rows]) / np.maximum(seconds, 1e-9)
    # What is hidden little by little seems to shrink and to slow down.
    surprise = np.abs(boxes - old.boxes[rows] - old.velocities[rows] * seconds)[:, 2:].sum(1)
    share = np.where(old.ages[rows] == 1, 1.0, SMOOTHING) * np.exp(-CAUTION * surprise)
    share = share[:, None]
    velocities = (1 - share) * old.velocities[rows] + share * newest
    return np.where(seconds > 0, velocities, old.velocities[rows])
