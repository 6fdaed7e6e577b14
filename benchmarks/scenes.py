"""Scenes with a given number of instances.

Cost must not depend on what a camera sees, so it is measured with 0, 50, 200 instances. No
picture holds exactly that many for every network, and fresh weights see nothing sensible anyway.
So the outputs of ``forward`` are replaced by those of a network that sees ``count`` equal boxes
in rows and columns (``planting``), and everything behind them runs as ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

FILLED = 0.7  # of the side of a cell of the layout, taken by its box


@dataclass(frozen=True)
class Layout:
    """Equal boxes in rows and columns, with a gap between them.

    Attributes:
        boxes: float32, (count, 4), (x1, y1, x2, y2) in pixels of the network input.
        classes: int64, (count,), index of the thing class, one after the other.
        size: Rows and columns of the network input that hold the image.
    """

    boxes: Tensor
    classes: Tensor
    size: tuple[int, int]

    @classmethod
    def of(cls, count: int, things: int, size: tuple[int, int]) -> Layout:
        """Lay ``count`` boxes of ``things`` classes out over ``size``."""
        height, width = size
        columns = max(1, math.ceil(math.sqrt(count * width / height)))
        rows = max(1, math.ceil(count / columns))
        index = torch.arange(count)
        cell = torch.tensor([width / columns, height / rows])
        center = (torch.stack((index % columns, index // columns), 1) + 0.5) * cell
        half = cell * FILLED / 2
        return cls(torch.cat((center - half, center + half), 1), index % things, size)

    def owners(self, grid: tuple[int, int], stride: int) -> Tensor:
        """Return whose box the centre of each cell of a map lies in: int64, ``grid``, or -1.

        A box between the centres gets the cell that its centre is in, so that none is lost.
        """
        y, x = ((torch.arange(cells) + 0.5) * stride for cells in grid)
        owner = torch.full(grid, -1)
        for index, (x1, y1, x2, y2) in enumerate(self.boxes):
            inside = ((y >= y1) & (y < y2))[:, None] & ((x >= x1) & (x < x2))
            owner[inside] = index
        rows, columns = self.cells(grid, stride)
        owner[rows, columns] = torch.arange(len(self.boxes))
        return owner

    def cells(self, grid: tuple[int, int], stride: int) -> tuple[Tensor, Tensor]:
        """Return row and column of the cell that holds the centre of each box: (count,) each."""
        center = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2 / stride
        columns, rows = center.long().unbind(1)
        return rows.clamp(max=grid[0] - 1), columns.clamp(max=grid[1] - 1)
