"""The argmax of up-sampled logits on CUDA: nothing of full size is stored but the indices."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from panoptic_ros.ops.sampling_triton import interpolated

_ROWS, _COLUMNS = 4, 64  # of a program


@triton.jit
def _argmax(
    logits,
    covered,
    index,
    channels,
    stride_c,
    stride_y,
    stride_x,
    old_rows,
    old_columns,
    middle_rows,
    middle_columns,
    rows,
    columns,
    ratio_y,
    ratio_x,
    second_y,
    second_x,
    has_covered: tl.constexpr,
    two_steps: tl.constexpr,
    tile_rows: tl.constexpr,
    tile_columns: tl.constexpr,
):
    """Interpolate one channel after the other in a tile and keep the first of the highest."""
    row = tl.program_id(1) * tile_rows + tl.arange(0, tile_rows)[:, None]
    column = tl.program_id(0) * tile_columns + tl.arange(0, tile_columns)[None, :]
    inside = (row < rows) & (column < columns)
    pixel = row.to(tl.int64) * columns + column
    best = tl.full([tile_rows, tile_columns], float("-inf"), tl.float32)
    which = tl.zeros([tile_rows, tile_columns], tl.int32)
    for channel in range(0, channels):
        own = logits + tl.cast(channel, tl.int64) * stride_c
        value = interpolated(
            own,
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
            two_steps,
        )
        if has_covered:
            less = (tl.load(covered + pixel, inside, 0) != 0) & (channel == 0)
            value = tl.where(less, value - 1, value)
        which = tl.where(value > best, channel, which)
        best = tl.maximum(value, best)
    tl.store(index + pixel, which.to(tl.int16), inside)


@torch.library.custom_op("panoptic_ros::upsampled_argmax", mutates_args=())
def upsampled_argmax(
    logits: Tensor,
    covered: Tensor | None,
    ratios: list[float],
    between: list[int],
    size: list[int],
) -> Tensor:
    """Return the channel that is highest after one or two bilinear steps.

    Args:
        logits: float of any precision, (C, h, w), with any strides.
        covered: bool, of ``size``: where channel 0 loses 1.
        ratios: Old over new side of each step: y, x, or y, x, y, x.
        between: Rows and columns of the first step's result that a second one sees.
        size: Rows and columns of the result.

    Returns:
        int16, of ``size``.
    """
    index = torch.empty(size, dtype=torch.int16, device=logits.device)
    two_steps = len(ratios) == 4
    _argmax[(triton.cdiv(size[1], _COLUMNS), triton.cdiv(size[0], _ROWS))](
        logits,
        index if covered is None else covered.contiguous().view(torch.int8),
        index,
        len(logits),
        *logits.stride(),
        *logits.shape[1:],
        *(between if two_steps else (0, 0)),
        *size,
        *ratios[:2],
        *(ratios[2:] if two_steps else (1.0, 1.0)),
        covered is not None,
        two_steps,
        _ROWS,
        _COLUMNS,
    )
    return index


@upsampled_argmax.register_fake
def _(
    logits: Tensor,
    covered: Tensor | None,
    ratios: list[float],
    between: list[int],
    size: list[int],
) -> Tensor:
    return logits.new_empty(size, dtype=torch.int16)
