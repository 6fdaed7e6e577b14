"""Where the rows and columns of an enlarged map lie between those that it is made of."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Lines(NamedTuple):
    """Where bilinear interpolation (half-pixel centres) takes the lines of one axis from.

    Attributes:
        first: int64, (n,), the line before (above) each new one.
        second: int64, (n,), the line behind.
        weight: float32, (n,), of the second.
    """

    first: Tensor
    second: Tensor
    weight: Tensor

    @classmethod
    def of(cls, old: int, scale: float, new: int) -> Lines:
        """Return the ``new`` first lines of an axis of ``old`` ones enlarged by ``scale``."""
        position = ((torch.arange(new) + 0.5) / scale - 0.5).clamp(min=0, max=old - 1)
        first = position.long()
        return cls(first, (first + 1).clamp(max=old - 1), position - first)

    def between(self, first: int, last: int, margin: int) -> slice:
        """Return the new lines that see any of the old ones, and ``margin`` more on each side."""
        start = int(torch.searchsorted(self.second, first))
        stop = int(torch.searchsorted(self.first, last, right=True))
        return slice(max(start - margin, 0), max(min(stop + margin, len(self.first)), start))

    def interpolate(self, values: Tensor, lines: slice, dim: int, start: int) -> Tensor:
        """Return some new lines along ``dim`` of values (h, w), the old ones from ``start`` on."""
        first = values.index_select(dim, self.first[lines] - start)
        second = values.index_select(dim, self.second[lines] - start)
        weight = self.weight[lines]
        return first.lerp(second, weight if dim == 1 else weight[:, None])


class Intervals(NamedTuple):
    """The new lines between the centres of neighbouring old lines of one axis.

    The first interval is before the first old line, the last one behind the last: there both
    neighbours are the same line.

    Attributes:
        first: int64, (N,), the old line before each interval.
        second: int64, (N,), the one behind.
        lines: int64, (most, N), the new lines; an interval with fewer repeats its last.
        weight: float32, (most, N), of the old line behind, at these.
        number: int64, (N,), of new lines.
    """

    first: Tensor
    second: Tensor
    lines: Tensor
    weight: Tensor
    number: Tensor

    @classmethod
    def of(cls, old: int, scale: float, new: int) -> Intervals:
        """Divide the ``new`` first lines of an axis of ``old`` ones enlarged by ``scale``."""
        position = (torch.arange(new) + 0.5) / scale - 0.5
        before = position.floor()
        number = torch.bincount(before.long() + 1, minlength=old + 1)
        last = number.cumsum(0) - 1
        step = torch.arange(int(number.max()))[:, None]
        lines = torch.minimum(last - number + 1 + step, last).clamp(min=0)
        index = torch.arange(old + 1)
        neighbours = (index - 1).clamp(min=0), index.clamp(max=old - 1)
        return cls(*neighbours, lines, (position - before)[lines], number)

    def at(self, index: Tensor) -> Intervals:
        """Return some of the intervals, in the order of ``index``: int64, (B,)."""
        return Intervals(*(part.index_select(-1, index) for part in self))
