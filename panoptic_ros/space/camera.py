"""The pinhole camera that relates pixels to space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pinhole:
    """Focal lengths and principal point of a rectified image, in pixels.

    (0, 0) is the centre of the first pixel. The camera's optical frame has x to the right, y down
    and z forward.
    """

    fx: float
    fy: float
    cx: float
    cy: float

    def slopes(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return x / z of every column and y / z of every row: float32, (W,) and (H,)."""
        across = (np.arange(width) - self.cx) / self.fx
        down = (np.arange(height) - self.cy) / self.fy
        return across.astype(np.float32), down.astype(np.float32)
