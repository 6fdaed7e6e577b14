"""From coarse logits to a full-size map of indices, without the full-size logits in between."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# Floats that are up-sampled at once: 64 MiB in float32 on devices, what a cache holds on CPUs.
ELEMENTS, _ELEMENTS_CPU = 2**24, 2**19


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


class Step(NamedTuple):
    """One bilinear interpolation with half-pixel centres, and what is kept of its result.

    Attributes:
        scale: Factor on rows and columns.
        size: Rows and columns to keep, at most those of the input times ``scale``.
    """

    scale: tuple[float, float]
    size: tuple[int, int]

    @classmethod
    def to(cls, size: tuple[int, int], old: Sequence[int]) -> Step:
        """Return the interpolation of all of an ``old`` size to another."""
        return cls((size[0] / old[0], size[1] / old[1]), size)

    def __call__(self, maps: Tensor) -> Tensor:
        """Interpolate maps (N, h, w)."""
        fine = F.interpolate(maps[None], size=self.whole(maps.shape[1:]), mode="bilinear")[0]
        return fine[:, : self.size[0], : self.size[1]]

    def whole(self, old: Sequence[int]) -> list[int]:
        """Return rows and columns of the whole result, of which ``size`` is kept."""
        return [round(n * scale) for n, scale in zip(old, self.scale, strict=True)]

    def ratios(self, old: Sequence[int]) -> list[float]:
        """Return rows and columns of an ``old`` size per one of the whole result."""
        return [n / new for n, new in zip(old, self.whole(old), strict=True)]

    def lines(self, old: Sequence[int]) -> tuple[Lines, Lines]:
        """Return where rows and columns come from."""
        rows, columns = (Lines.of(*item) for item in zip(old, self.scale, self.size, strict=True))
        return rows, columns

    def intervals(self, old: Sequence[int]) -> tuple[Intervals, Intervals]:
        """Return what lies between the rows and between the columns of an ``old`` size."""
        axes = zip(old, self.scale, self.size, strict=True)
        rows, columns = (Intervals.of(*axis) for axis in axes)
        return rows, columns


def upsampled_argmax(
    logits: Tensor, *steps: Step, covered: Tensor | None = None, best: Tensor | None = None
) -> Tensor:
    """Argmax over the channels of bilinearly up-sampled logits, in float32.

    Args:
        logits: (C, h, w), finite; less than 2**15 channels.
        steps: Interpolations, one after the other.
        covered: bool, of the last size: where channel 0 loses 1.
        best: What ``channel_argmax`` makes of the logits, if it is known already.

    Returns:
        int16, of the last size.
    """
    if logits.device.type != "cpu" or len(steps) > 1:
        return _argmax_everywhere(logits, steps, covered)
    index = _argmax_between_cells(logits, steps[0], best)
    if covered is not None and covered.any():
        less = logits.float()
        less = torch.cat((less[:1] - 1, less[1:]))
        index = torch.where(covered, _argmax_between_cells(less, steps[0]), index)
    return index


def _argmax_everywhere(
    logits: Tensor, steps: Sequence[Step], covered: Tensor | None = None
) -> Tensor:
    """Up-sample a few channels at a time and keep the best."""
    pixels = max(step.size[0] * step.size[1] for step in steps)
    number = max(1, (_ELEMENTS_CPU if logits.device.type == "cpu" else ELEMENTS) // pixels)
    best = torch.full(steps[-1].size, -torch.inf, device=logits.device)
    index = torch.zeros_like(best, dtype=torch.int16)
    for start in range(0, len(logits), number):
        fine = logits[start : start + number].float().contiguous()
        for step in steps:
            fine = step(fine)
        if start == 0 and covered is not None:
            fine[0] -= covered.to(fine.dtype)
        value, place = fine.max(0) if len(fine) > 1 else (fine[0], torch.zeros_like(index))
        index = torch.where(value > best, (place + start).to(index.dtype), index)
        best = torch.maximum(value, best)
    return index


def _argmax_between_cells(logits: Tensor, step: Step, best: Tensor | None = None) -> Tensor:
    """Interpolate only between cells that disagree, for CPUs.

    What is interpolated lies between the values of the four cells around a pixel. So a channel
    that is the best of all four is the best between them.
    """
    cells = logits.float().contiguous()
    best = _highest(cells) if best is None else best
    rows, columns = step.intervals(cells.shape[1:])
    corner = np.pad(best.numpy(), 1, mode="edge")
    same = corner[:, 1:] == corner[:, :-1]
    agree = same[1:] & same[:-1] & (corner[1:, :-1] == corner[:-1, :-1])
    down, across = rows.number.numpy(), columns.number.numpy()
    unsure = ~agree & (down > 0)[:, None] & (across > 0)
    if 2 * np.count_nonzero(unsure) > unsure.size:
        return _argmax_everywhere(logits, [step])
    upper_left = np.repeat(corner[:-1, :-1], across, axis=1)
    index = torch.from_numpy(np.repeat(upper_left, down, axis=0))
    if not unsure.any():
        return index
    places = (torch.from_numpy(axis) for axis in np.nonzero(unsure))
    length = max(1, _ELEMENTS_CPU // (4 * len(cells)))
    for y, x in zip(*(axis.split(length) for axis in places), strict=True):
        own_rows, own_columns = rows.at(y), columns.at(x)
        pixels = own_rows.lines[:, None] * step.size[1] + own_columns.lines
        channels = _argmax_within(cells, best, own_rows, own_columns)
        index.view(-1).scatter_(0, pixels.flatten(), channels.flatten())
    return index


def _argmax_within(cells: Tensor, best: Tensor, rows: Intervals, columns: Intervals) -> Tensor:
    """Interpolate between four cells, for each of B such places.

    The mean of some channels is nowhere above the best of them. So a channel that is below the
    mean of the four cells' best at all four cells wins nowhere between them; what remains is
    rarely more than two or three.

    Args:
        cells: (C, h, w), logits.
        best: int16, (h, w), the best channel of each cell.
        rows: B intervals that the places lie in.
        columns: Likewise.

    Returns:
        int16, (rows per interval, columns per interval, B).
    """
    places = torch.stack(
        [y * best.shape[1] + x for y in (rows.first, rows.second) for x in columns[:2]]
    )
    corners = cells.flatten(1).index_select(1, places.flatten()).unflatten(1, places.shape)
    of_best = best.flatten()[places].long()
    at_best = corners.gather(0, of_best[:, None].expand(-1, 4, -1))
    mean = torch.minimum(at_best.mean(0), at_best.amax(0))  # rounded it may be above all
    alive = (corners - mean).amax(1) >= 0
    alive = torch.from_numpy(np.flatnonzero(alive.T.contiguous().numpy()))
    place = torch.div(alive, len(cells), rounding_mode="floor")  # in ascending order
    channel = alive - place * len(cells)
    number = torch.bincount(place)
    rank = torch.arange(len(place)) - (number.cumsum(0) - number).index_select(0, place)
    highest = index = torch.empty(0)
    for turn in range(int(number.max())):  # the first channel of every place, then the second...
        own = torch.nonzero(rank == turn).flatten()
        at, candidate = place[own], channel[own]
        weights = (item.weight.index_select(1, at) for item in (rows, columns))
        value = _between(corners[candidate, :, at].T, *weights)
        at, candidate = at.expand(value.shape), candidate.to(torch.int16).expand(value.shape)
        if turn == 0:
            highest, index = value, candidate.clone()
            continue
        before = highest.gather(2, at)
        index.scatter_(2, at, torch.where(value > before, candidate, index.gather(2, at)))
        highest.scatter_(2, at, torch.maximum(value, before))
    return index


def _between(corners: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Interpolate one channel between cells: (m, n, B).

    Args:
        corners: (4, B): upper left, upper right, lower left, lower right.
        down: (m, B), weight of the lower corners.
        across: (n, B), weight of the right ones.
    """
    left, right = (corners[i].expand_as(down).lerp(corners[i + 2], down) for i in (0, 1))
    shape = (len(down), *across.shape)
    return left[:, None].expand(shape).lerp(right[:, None].expand(shape), across.expand(shape))


def channel_argmax(logits: Tensor) -> Tensor:
    """Return which of less than 2**15 channels (C, ...) is the highest: int16, (...)."""
    return _highest(logits) if logits.device.type == "cpu" else logits.argmax(0).to(torch.int16)


def _highest(maps: Iterable[Tensor]) -> Tensor:
    """Return which of some maps is the highest at every place, the first of equal ones: int16.

    One after the other, since ``argmax`` over the first dimension is several times slower.
    """
    maps = iter(maps)
    best = next(maps)
    index = torch.zeros(best.shape, dtype=torch.int16)
    for number, value in enumerate(maps, 1):
        index = torch.where(value > best, torch.tensor(number, dtype=index.dtype), index)
        best = torch.maximum(best, value)
    return index


def enlarge(cells: Tensor, factor: int, size: Sequence[int]) -> Tensor:
    """Repeat every cell of a map ``factor`` times along rows and columns; keep ``size`` of it."""
    # columns first: rows are then copied whole
    whole = cells.repeat_interleave(factor, 1).repeat_interleave(factor, 0)
    return whole[: size[0], : size[1]].contiguous()


def resize_nearest(indices: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a map of indices (H, W) to ``size``, each pixel from the one nearest its centre."""
    if indices.shape == size:
        return indices
    for dim, (old, new) in enumerate(zip(indices.shape, size, strict=True)):
        lines = (torch.arange(new, device=indices.device) + 0.5) * (old / new)
        indices = indices.index_select(dim, lines.long().clamp(max=old - 1))
    return indices
