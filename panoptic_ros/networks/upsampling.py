"""From coarse logits to a full-size map of indices, without the full-size logits in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# Floats that are up-sampled at once: 64 MiB in float32 on devices, what a cache holds on CPUs.
ELEMENTS, _ELEMENTS_CPU = 2**24, 2**19
_CANDIDATES = 4  # channels that are compared between cells that disagree


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
        whole = [round(n * scale) for n, scale in zip(maps.shape[1:], self.scale, strict=True)]
        fine = F.interpolate(maps[None], size=whole, mode="bilinear")[0]
        return fine[:, : self.size[0], : self.size[1]]

    def lines(self, old: Sequence[int]) -> tuple[Lines, Lines]:
        """Return where rows and columns come from."""
        rows, columns = (Lines.of(*item) for item in zip(old, self.scale, self.size, strict=True))
        return rows, columns


def upsampled_argmax(logits: Tensor, *steps: Step, covered: Tensor | None = None) -> Tensor:
    """Argmax over the channels of bilinearly up-sampled logits, in float32.

    Args:
        logits: (C, h, w), finite; less than 2**15 channels.
        steps: Interpolations, one after the other.
        covered: bool, of the last size: where channel 0 loses 1.

    Returns:
        int16, of the last size.
    """
    if logits.is_cuda or len(steps) > 1:
        return _argmax_everywhere(logits, steps, covered)
    index = _argmax_between_cells(logits, steps[0])
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
    number = max(1, (ELEMENTS if logits.is_cuda else _ELEMENTS_CPU) // pixels)
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


def _argmax_between_cells(logits: Tensor, step: Step) -> Tensor:
    """Interpolate only between cells that disagree, for CPUs.

    What is interpolated lies between the values of the four cells around a pixel. So a channel
    that is the best of all four is the best between them.
    """
    width = logits.shape[2]
    rows, columns = step.lines(logits.shape[1:])
    cells = logits.permute(1, 2, 0).float().contiguous()
    best = cells.max(2).indices.to(torch.int16)
    right = torch.cat((best[:, 1:], best[:, -1:]), dim=1)
    agree = best == right
    for line in (best, right):
        agree &= torch.cat((line[1:], line[-1:])) == best
    block = (rows.first * width)[:, None] + columns.first
    index = torch.where(agree, best, -1).flatten().index_select(0, block.flatten())
    pixels = torch.from_numpy(np.flatnonzero(index.numpy() < 0))
    if 2 * len(pixels) > len(index):
        return _argmax_everywhere(logits, [step])
    index[pixels] = _argmax_at(pixels, cells, ~agree, rows, columns)
    return index.view(step.size)


def _argmax_at(
    pixels: Tensor, cells: Tensor, blocks: Tensor, rows: Lines, columns: Lines
) -> Tensor:
    """Interpolate at some pixels only: int16, (M,).

    The mean of some channels is nowhere above the best of them. So a channel that is below the
    mean of the four cells' best at all four cells wins nowhere between them; what remains is
    rarely more than two or three.

    Args:
        pixels: int64, (M,), index into the full-size map.
        cells: (h, w, C), logits.
        blocks: bool, (h, w), the upper left cells of the pixels.
        rows: Of the full-size map.
        columns: Likewise.
    """
    height, width, channels = cells.shape
    upper, left = torch.nonzero(blocks).unbind(1)
    lower, right = (upper + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    flat = cells.view(-1, channels)
    corners = torch.stack(
        [flat.index_select(0, y * width + x) for y in (upper, lower) for x in (left, right)], 1
    )
    mean = corners.gather(2, corners.max(2).indices[:, None].expand(-1, 4, -1)).mean(2)
    ahead = (corners - mean[..., None]).amax(1)
    number = (ahead >= 0).sum(1)
    order = torch.empty(height * width, dtype=torch.int64)
    order[upper * width + left] = torch.arange(len(upper))
    row = torch.div(pixels, len(columns.first), rounding_mode="floor")
    column = pixels - row * len(columns.first)
    block = order.index_select(0, rows.first[row] * width + columns.first[column])
    weights = (rows.weight[row], columns.weight[column])

    few = ahead.topk(min(_CANDIDATES, channels)).indices
    candidates = corners.gather(2, few[:, None].expand(-1, 4, -1))
    place = _best_of(candidates, block, *weights)
    result = few.index_select(0, block).gather(1, place[:, None])[:, 0]
    many = torch.nonzero(number.index_select(0, block) > few.shape[1]).flatten()
    for part in many.split(max(1, _ELEMENTS_CPU // channels)):
        result[part] = _best_of(corners, block[part], *(weight[part] for weight in weights))
    return result.to(torch.int16)


def _best_of(corners: Tensor, block: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Return which channel is the best at every pixel: int64, (M,).

    Args:
        corners: (B, 4, C): upper left, upper right, lower left, lower right.
        block: int64, (M,), 0..B - 1.
        down: (M,), weight of the lower corners.
        across: (M,), weight of the right ones.
    """
    corner = corners.flatten(1).index_select(0, block).unflatten(1, corners.shape[1:])
    left_right = corner[:, 0::2].lerp(corner[:, 1::2], across[:, None, None])
    return left_right[:, 0].lerp(left_right[:, 1], down[:, None]).max(1).indices


def resize_nearest(indices: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a map of indices (H, W) to ``size``, each pixel from the one nearest its centre."""
    if indices.shape == size:
        return indices
    for dim, (old, new) in enumerate(zip(indices.shape, size, strict=True)):
        lines = (torch.arange(new, device=indices.device) + 0.5) * (old / new)
        indices = indices.index_select(dim, lines.long().clamp(max=old - 1))
    return indices
