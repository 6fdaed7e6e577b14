"""From coarse logits to a full-size map of indices, without the full-size logits in between."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from panoptic_ros.ops.lines import Intervals, Lines

_ELEMENTS_AT_ONCE = 2**19  # floats that are up-sampled at once, what a cache of a CPU holds


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

    def lines(self, old: Sequence[int]) -> tuple[Lines, Lines]:
        """Return where rows and columns come from."""
        rows, columns = (Lines.of(*item) for item in zip(old, self.scale, self.size, strict=True))
        return rows, columns

    def intervals(self, old: Sequence[int]) -> tuple[Intervals, Intervals]:
        """Return what lies between the rows and between the columns of an ``old`` size."""
        axes = zip(old, self.scale, self.size, strict=True)
        rows, columns = (Intervals.of(*axis) for axis in axes)
        return rows, columns


def ratios_of(steps: Sequence[Step], old: Sequence[int]) -> list[float]:
    """Return old over new side of each step from an ``old`` size on: y, x, then y, x again."""
    ratios = []
    for step in steps:
        ratios += [n / new for n, new in zip(old, step.whole(old), strict=True)]
        old = step.size
    return ratios


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
    if logits.device.type != "cpu":
        return _argmax_on_cuda(logits, steps, covered)
    if len(steps) > 1:
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
    number = max(1, _ELEMENTS_AT_ONCE // pixels)
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


def _argmax_on_cuda(
    logits: Tensor, steps: Sequence[Step], covered: Tensor | None = None
) -> Tensor:
    """Do the same for all channels at once, without the up-sampled ones."""
    from panoptic_ros.ops import upsampling_triton

    return upsampling_triton.upsampled_argmax(
        logits,
        covered,
        ratios_of(steps, logits.shape[1:]),
        list(steps[0].size),
        list(steps[-1].size),
    )


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
    length = max(1, _ELEMENTS_AT_ONCE // (4 * len(cells)))
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
