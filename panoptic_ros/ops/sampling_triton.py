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
def _lines(line, ratio, old):
    """Return the old lines before and behind a new one and the weight of the latter."""
    position = tl.maximum((line.to(tl.float32) + 0.5) * ratio - 0.5, 0.0)
    first = tl.minimum(position.to(tl.int32), old - 1)
    return first, tl.minimum(first + 1, old - 1), position - first.to(tl.float32)


@triton.jit
def _between(upper_left, upper_right, lower_left, lower_right, down, across):
    upper = upper_left * (1 - across) + upper_right * across
    lower = lower_left * (1 - across) + lower_right * across
    return upper * (1 - down) + lower * down


@triton.jit
def bilinear(values, stride_y, stride_x, row, column, old_rows, old_columns, ratio_y, ratio_x):
    """Interpolate a map (old_rows, old_columns) at new lines, in float32."""
    top, bottom, down = _lines(row, ratio_y, old_rows)
    left, right, across = _lines(column, ratio_x, old_columns)
    upper_left = tl.load(values + top * stride_y + left * stride_x).to(tl.float32)
    upper_right = tl.load(values + top * stride_y + right * stride_x).to(tl.float32)
    lower_left = tl.load(values + bottom * stride_y + left * stride_x).to(tl.float32)
    lower_right = tl.load(values + bottom * stride_y + right * stride_x).to(tl.float32)
    return _between(upper_left, upper_right, lower_left, lower_right, down, across)


@triton.jit
def interpolated(
    values,
    stride_y,
    stride_x,
    row,
    column,
    old_rows,
    old_columns,
    middle_rows,
    middle_columns,
    ratio_y,
    ratio_x,
    second_y,
    second_x,
    two_steps: tl.constexpr,
):
    """Interpolate at lines of the result of one step or of two."""
    y, x, height, width = stride_y, stride_x, old_rows, old_columns
    if two_steps:
        top, bottom, down = _lines(row, second_y, middle_rows)
        left, right, across = _lines(column, second_x, middle_columns)
        ul = bilinear(values, y, x, top, left, height, width, ratio_y, ratio_x)
        ur = bilinear(values, y, x, top, right, height, width, ratio_y, ratio_x)
        ll = bilinear(values, y, x, bottom, left, height, width, ratio_y, ratio_x)
        lr = bilinear(values, y, x, bottom, right, height, width, ratio_y, ratio_x)
        value = _between(ul, ur, ll, lr, down, across)
    else:
        value = bilinear(values, y, x, row, column, height, width, ratio_y, ratio_x)
    return value
