"""Deformable convolution on CUDA in half precision, channels last, without its columns.

torchvision writes the nine interpolated inputs of every pixel to memory, in float32 600 MB for a
map of 200x336 cells and 258 channels, and multiplies then. Here a block of pixels interpolates a
few channels of one tap, multiplies them with the weights and goes on.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_PIXELS, _CHANNELS = 64, 64  # of a block
# In float16 for GPUs older than Ampere, too, which have no bfloat16: their blocks hold less.
_MOST_OUTPUTS = {torch.bfloat16: 256, torch.float16: 64}


@triton.jit
def _convolve(
    x,
    offsets,
    weight,
    bias,
    out,
    height,
    width,
    channels,
    outputs,
    x_image,
    x_channel,
    x_row,
    x_column,
    offsets_image,
    offsets_channel,
    offsets_row,
    offsets_column,
    weight_output,
    weight_channel,
    weight_row,
    weight_column,
    has_bias: tl.constexpr,
    pixels_at_once: tl.constexpr,
    channels_at_once: tl.constexpr,
    outputs_at_once: tl.constexpr,
):
    """Compute some outputs of some pixels; ``out`` is (B, H, W, O)."""
    image = tl.program_id(2).to(tl.int64)
    pixel = tl.program_id(0) * pixels_at_once + tl.arange(0, pixels_at_once)
    there = pixel < height * width
    row, column = pixel // width, pixel % width
    output = tl.program_id(1) * outputs_at_once + tl.arange(0, outputs_at_once)
    wanted = output < outputs
    x += image * x_image
    offsets += image * offsets_image + row * offsets_row + column * offsets_column
    total = tl.zeros([pixels_at_once, outputs_at_once], tl.float32)
    for tap in range(0, 9):
        down, across = tap // 3, tap % 3
        y = tl.load(offsets + 2 * tap * offsets_channel, there, 0.0).to(tl.float32)
        u = tl.load(offsets + (2 * tap + 1) * offsets_channel, there, 0.0).to(tl.float32)
        logit = tl.load(offsets + (18 + tap) * offsets_channel, there, 0.0).to(tl.float32)
        y = y + (row + down - 1).to(tl.float32)
        u = u + (column + across - 1).to(tl.float32)
        # What is far outside is 0 wherever it lies; int32 would overflow.
        y = tl.minimum(tl.maximum(y, -2.0), height + 1.0)
        u = tl.minimum(tl.maximum(u, -2.0), width + 1.0)
        y0, u0 = tl.floor(y), tl.floor(u)
        below, right = y - y0, u - u0
        modulation = 1.0 / (1.0 + tl.exp(-logit))
        top, bottom = (1.0 - below) * modulation, below * modulation
        y0, u0 = y0.to(tl.int32), u0.to(tl.int32)
        taps = weight + down * weight_row + across * weight_column
        for start in range(0, channels, channels_at_once):
            channel = start + tl.arange(0, channels_at_once)
            inside = channel < channels
            value = tl.zeros([pixels_at_once, channels_at_once], tl.float32)
            for corner in tl.static_range(4):
                line, place = y0 + corner // 2, u0 + corner % 2
                share = bottom if corner // 2 else top
                share = share * (right if corner % 2 else 1.0 - right)
                seen = there & (line >= 0) & (line < height) & (place >= 0) & (place < width)
                at = (line * x_row + place * x_column)[:, None] + channel[None, :] * x_channel
                part = tl.load(x + at, seen[:, None] & inside[None, :], 0.0)
                value += part.to(tl.float32) * share[:, None]
            factor = tl.load(
                taps + channel[:, None] * weight_channel + output[None, :] * weight_output,
                inside[:, None] & wanted[None, :],
                0.0,
            )
            total = tl.dot(value.to(factor.dtype), factor, total)
    if has_bias:
        total += tl.load(bias + output, wanted, 0.0).to(tl.float32)[None, :]
    place = (image * height * width + pixel)[:, None] * outputs + output[None, :]
    tl.store(out + place, total.to(out.dtype.element_ty), there[:, None] & wanted[None, :])


@torch.library.custom_op("panoptic_ros::deformable_convolution", mutates_args=())
def convolve_half(
    x: Tensor, offsets_and_mask: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """Do what ``deformable_convolution`` does; see there. All are bfloat16, or float16."""
    x = x.contiguous(memory_format=torch.channels_last)
    batch, channels, height, width = x.shape
    outputs = weight.shape[0]
    out = x.new_empty(batch, height, width, outputs)
    at_once = max(16, min(_MOST_OUTPUTS[x.dtype], triton.next_power_of_2(outputs)))
    _convolve[(triton.cdiv(height * width, _PIXELS), triton.cdiv(outputs, at_once), batch)](
        x,
        offsets_and_mask,
        weight,
        weight if bias is None else bias,
        out,
        height,
        width,
        channels,
        outputs,
        *x.stride(),
        *offsets_and_mask.stride(),
        *weight.stride(),
        bias is not None,
        _PIXELS,
        _CHANNELS,
        at_once,
        num_warps=8,
        num_stages=2,
    )
    return out.permute(0, 3, 1, 2)


@convolve_half.register_fake
def _(x: Tensor, offsets_and_mask: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    batch, _, height, width = x.shape
    return x.new_empty(batch, height, width, weight.shape[0]).permute(0, 3, 1, 2)
