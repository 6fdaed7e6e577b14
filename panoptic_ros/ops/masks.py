"""From soft masks at the network's resolution to masks of the label image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from panoptic_ros.ops.lines import Lines
from panoptic_ros.ops.upsampling import Step


class Mask(NamedTuple):
    """A mask, or the part of it outside of which it is false.

    Attributes:
        inside: bool, (h, w).
        rows: Which ones of the image these are.
        columns: Likewise.
    """

    inside: Tensor
    rows: slice
    columns: slice

    @classmethod
    def whole(cls, inside: Tensor) -> Mask:
        """Return a mask of the whole image."""
        return cls(inside, slice(None), slice(None))

    def placed(self, size: tuple[int, int]) -> Tensor:
        """Return the mask of an image of ``size`` (rows, columns): bool."""
        image = torch.zeros(size, dtype=torch.bool, device=self.inside.device)
        image[self.rows, self.columns] = self.inside
        return image


@dataclass(frozen=True)
class EnlargedMasks:
    """Soft masks to be up-sampled and compared with a threshold, when they are asked for.

    Iterating makes the masks one by one in their order, on CPUs, in parts: only around what is
    above the threshold, since elsewhere nothing between values below it can be above. On CUDA
    ``merge_panoptic`` takes them as they are.

    Attributes:
        soft: float, (n, h, w) each, some masks after the other.
        threshold: What is above belongs to the mask.
        steps: One or two.
    """

    soft: Iterable[Tensor]
    threshold: float
    steps: Sequence[Step]

    def __iter__(self) -> Iterator[Mask]:
        for soft in self.soft:
            if len(soft) > 0:
                yield from _enlarged_parts(soft, self.threshold, self.steps)


def _enlarged_parts(soft: Tensor, threshold: float, steps: Sequence[Step]) -> Iterator[Mask]:
    """Up-sample and compare around what is above the threshold."""
    sizes = [soft.shape[1:], *(step.size for step in steps)]
    axes = [step.lines(size) for step, size in zip(steps, sizes, strict=False)]
    above = (soft > threshold).numpy()
    spans = [[_span(line) for line in above.any(axis)] for axis in (2, 1)]
    for values, rows, columns in zip(soft, *spans, strict=True):
        yield _enlarged_part(values, threshold, axes, rows, columns)


def _enlarged_part(
    values: Tensor,
    threshold: float,
    axes: Sequence[tuple[Lines, Lines]],
    rows: tuple[int, int],
    columns: tuple[int, int],
) -> Mask:
    """Up-sample what can become true of one mask.

    Args:
        values: (h, w), soft mask.
        threshold: Of the mask.
        axes: Of every step.
        rows: First and last row with a value above the threshold.
        columns: Likewise.
    """
    top = left = 0
    for number, (vertical, horizontal) in enumerate(axes):
        if number > 0:
            above = (values > threshold).numpy()
            rows, columns = (_span(above.any(axis), n) for axis, n in ((1, top), (0, left)))
        margin = len(axes) - 1 - number  # the next step interpolates with the lines beside
        new_rows = vertical.between(*rows, margin)
        new_columns = horizontal.between(*columns, margin)
        across = horizontal.interpolate(values, new_columns, dim=1, start=left)
        values = vertical.interpolate(across, new_rows, dim=0, start=top)
        top, left = new_rows.start, new_columns.start
    return Mask(values > threshold, new_rows, new_columns)


def _span(line: np.ndarray, start: int = 0) -> tuple[int, int]:
    """Return first and last place that is true; (0, -2), around which is nothing, if none is."""
    (places,) = np.nonzero(line)
    return (start + int(places[0]), start + int(places[-1])) if len(places) else (0, -2)
