"""How much masks and boxes of one image agree with those of another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SAMPLES = 40_000  # of a label image, at most: as many as an image of 180x240 has pixels


@dataclass(frozen=True)
class MaskSamples:
    """Masks that do not overlap, as the points of a grid that belong to them.

    Attributes:
        x: float32, (n,): in pixels of the image.
        y: Likewise.
        owners: int64, (n,): index of the mask.
    """

    x: np.ndarray
    y: np.ndarray
    owners: np.ndarray

    @classmethod
    def empty(cls) -> MaskSamples:
        """Return no masks."""
        return cls(np.zeros(0, np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))

    def take(self, masks: np.ndarray, number: int) -> MaskSamples:
        """Return some of ``number`` masks, numbered anew.

        Args:
            masks: int64, (k,): indices, each once.
            number: Of masks in all.
        """
        index = np.full(number, -1)
        index[masks] = np.arange(len(masks))
        owners = index[self.owners]
        kept = owners >= 0
        return MaskSamples(self.x[kept], self.y[kept], owners[kept])

    def joined(self, other: MaskSamples, offset: int) -> MaskSamples:
        """Return these masks and then those of ``other``, numbered from ``offset``."""
        return MaskSamples(
            np.concatenate((self.x, other.x)),
            np.concatenate((self.y, other.y)),
            np.concatenate((self.owners, other.owners + offset)),
        )


class MaskGrid:
    """The instances of a label image on a grid of at most about ``SAMPLES`` points.

    Args:
        labels: uint16, (H, W).
        ids: int64, (n,): values of the instances in it, each once.

    Attributes:
        size: (H, W) of the label image.
    """

    def __init__(self, labels: np.ndarray, ids: np.ndarray) -> None:
        self.size = labels.shape
        self._number = len(ids)
        self._step = max(1, int(np.ceil(np.sqrt(labels.size / SAMPLES))))
        self._start = self._step // 2
        table = np.zeros(1 << 16, np.int64)
        table[ids] = np.arange(1, self._number + 1)
        # 0 where there is no instance, 1 + its index, and a rim for all that is outside.
        inside = table[labels[self._start :: self._step, self._start :: self._step]]
        self._owners = np.pad(inside, 1, constant_values=self._number + 1)

    def samples(self) -> MaskSamples:
        """Return the points of the instances."""
        owners = self._owners.reshape(-1)
        places = np.flatnonzero((owners > 0) & (owners <= self._number))
        rows, columns = np.divmod(places, self._owners.shape[1])
        x, y = ((n - 1) * np.float32(self._step) + self._start for n in (columns, rows))
        return MaskSamples(x.astype(np.float32), y.astype(np.float32), owners[places] - 1)

    def overlap(
        self, masks: MaskSamples, before: np.ndarray, after: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return how far moved masks cover the instances.

        Args:
            masks: Of another image.
            before: float, (m, 4): boxes of these masks, as centre x, y, log width, log height.
            after: Where these boxes are expected here; the masks move and grow with them.

        Returns:
            Two of (m, n), 0..1: the IoU, and what both share as a part of the smaller one. What
            would be outside of the image does not count.
        """
        number, columns = len(before), self._number + 2
        growth = np.exp(after[:, 2:] - before[:, 2:])
        shift = after[:, :2] - before[:, :2] * growth
        height, width = self._owners.shape
        place = self._cells(masks.y, growth[:, 1], shift[:, 1], masks.owners, height) * width
        place += self._cells(masks.x, growth[:, 0], shift[:, 0], masks.owners, width)
        pairs = masks.owners * columns + self._owners.reshape(-1)[place]
        counts = np.bincount(pairs, minlength=number * columns).reshape(number, columns)
        # A sample of a mask that grew stands for more.
        shared = counts[:, :-1] * growth.prod(1)[:, None]
        areas = np.bincount(self._owners.reshape(-1), minlength=columns)[1:-1]
        expected, shared = shared.sum(1, keepdims=True), shared[:, 1:]
        wholes = expected + areas - shared, np.minimum(expected, areas)
        iou, part = (np.minimum(shared / np.maximum(whole, 1e-6), 1.0) for whole in wholes)
        return iou, part

    def _cells(
        self,
        values: np.ndarray,
        growth: np.ndarray,
        shift: np.ndarray,
        owners: np.ndarray,
        length: int,
    ) -> np.ndarray:
        """Return the row (column) of the grid that a coordinate moves to; the rim is outside."""
        growth, shift = growth / self._step, (shift - self._start) / self._step + 1.5
        moved = values * growth.astype(np.float32)[owners] + shift.astype(np.float32)[owners]
        return np.clip(moved, 0, length - 1).astype(np.int64)


def box_overlap(boxes: np.ndarray, others: np.ndarray, margin: float) -> np.ndarray:
    """Return the IoU of boxes that are enlarged before.

    Args:
        boxes: float, (m, 4): centre x, y, log width, log height.
        others: float, (n, 4).
        margin: Part of a box's width and height that is added on each side (C-BIoU, Yang et al.,
            WACV 2023).

    Returns:
        (m, n), 0..1.
    """
    shared = np.ones((len(boxes), len(others)))
    areas, other_areas = np.ones(len(boxes)), np.ones(len(others))
    for axis in (0, 1):
        size, other_size = ((1 + 2 * margin) * np.exp(b[:, 2 + axis]) for b in (boxes, others))
        distance = np.abs(boxes[:, None, axis] - others[None, :, axis])
        smaller = np.minimum(size[:, None], other_size)
        shared *= np.clip((size[:, None] + other_size) / 2 - distance, 0, smaller)
        areas, other_areas = areas * size, other_areas * other_size
    return shared / (areas[:, None] + other_areas - shared)
