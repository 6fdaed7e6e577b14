"""Bilinear interpolation inside Triton kernels, half-pixel centres, as PyTorch defines it."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def first_line(line, ratio, old):
    """Return the old line before (above) a new one; ``ratio`` is old over new side."""
    position = tl.maximum((line.to(tl.float32) + 0.5) * ratio - 0.5, 0.0)
    return tl.minimum(position.to(tl.int32), old - 1)


@triton.jit
def bilinear(values, row, column, old_rows, old_columns, ratio_y, ratio_x):
    """Interpolate a map (old_rows, old_columns) at new lines, in float32."""
    y = tl.maximum((row.to(tl.float32) + 0.5) * ratio_y - 0.5, 0.0)
    x = tl.maximum((column.to(tl.float32) + 0.5) * ratio_x - 0.5, 0.0)
    top = tl.minimum(y.to(tl.int32), old_rows - 1)
    left = tl.minimum(x.to(tl.int32), old_columns - 1)
    down, across = y - top.to(tl.float32), x - left.to(tl.float32)
    bottom = tl.minimum(top + 1, old_rows - 1)
    right = tl.minimum(left + 1, old_columns - 1)
    upper_left = tl.load(values + top * old_columns + left).to(tl.float32)
    upper_right = tl.load(values + top * old_columns + right).to(tl.float32)
    lower_left = tl.load(values + bottom * old_columns + left).to(tl.float32)
    lower_right = tl.load(values + bottom * old_columns + right).to(tl.float32)
    upper = upper_left * (1 - across) + upper_right * across
    lower = lower_left * (1 - across) + lower_right * across
    return upper * (1 - down) + lower * down
