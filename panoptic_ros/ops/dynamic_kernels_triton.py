"""Peaks, regions and masks of kernels on CUDA. Sums are of whole numbers: they have no order."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_PROGRAMS = 128  # that share the cells of an image
_ONE = tl.constexpr(float(2**24))  # of the sums
_TO_ONE = 2.0**-24


@triton.jit
def _sigmoid(value):
    return 1.0 / (1.0 + tl.exp(-value))


@triton.jit
def _whole(value):
    return (value * _ONE + tl.where(value < 0, -0.5, 0.5)).to(tl.int64)


@triton.jit
def _mask_scores(
    kernels,
    encoding,
    sums,
    threshold,
    stride_b,
    stride_c,
    stride_n,
    number,
    channels,
    cells,
    kernels_at_once: tl.constexpr,
    channels_at_once: tl.constexpr,
    cells_at_once: tl.constexpr,
):
    """Sum what is above the threshold in some masks, over the cells of a program."""
    image = tl.program_id(2)
    kernel = tl.program_id(1) * kernels_at_once + tl.arange(0, kernels_at_once)
    part = tl.arange(0, channels_at_once)
    kernels += image * number * channels
    encoding += image.to(tl.int64) * stride_b
    total = tl.zeros([kernels_at_once], tl.float32)
    count = tl.zeros([kernels_at_once], tl.int32)
    step = tl.num_programs(0) * cells_at_once
    for start in range(tl.program_id(0) * cells_at_once, cells, step):
        cell = start + tl.arange(0, cells_at_once)
        logits = tl.zeros([kernels_at_once, cells_at_once], tl.float32)
        for first in range(0, channels, channels_at_once):
            channel = first + part
            at = kernels + kernel[:, None] * channels + channel[None, :]
            there = (kernel < number)[:, None] & (channel < channels)[None, :]
            weights = tl.load(at, there, 0.0)
            at = encoding + channel[:, None].to(tl.int64) * stride_c + cell[None, :] * stride_n
            there = (channel < channels)[:, None] & (cell < cells)[None, :]
            values = tl.load(at, there, 0.0).to(tl.float32)
            logits += tl.dot(weights, values, input_precision="tf32x3")
        probability = _sigmoid(logits)
        inside = (probability > threshold) & (cell < cells)[None, :]
        total += tl.sum(tl.where(inside, probability, 0.0), axis=1)
        count += tl.sum(inside.to(tl.int32), axis=1)
    place = (image * number + kernel) * 2
    here = (kernel < number) & (count > 0)
    tl.atomic_add(sums + place, _whole(total), here, sem="relaxed")
    tl.atomic_add(sums + place + 1, count.to(tl.int64), here, sem="relaxed")


@torch.library.custom_op("panoptic_ros::mask_scores", mutates_args=())
def mask_scores(kernels: Tensor, encoding: Tensor, threshold: float) -> Tensor:
    """Average the soft mask of each kernel where it is above a threshold.

    Args:
        kernels: float32, (B, N, C_e).
        encoding: float of any precision, (B, C_e, h, w), contiguous or channels last.
        threshold: 0..1.

    Returns:
        float32, (B, N), 0 where no pixel is above.
    """
    batch, number, channels = kernels.shape
    sums = torch.zeros(batch, number, 2, dtype=torch.int64, device=kernels.device)
    features = encoding.flatten(2)
    if sums.numel():
        _mask_scores[(_programs(features.shape[2]), triton.cdiv(number, 64), batch)](
            kernels.contiguous(),
            features,
            sums,
            threshold,
            *features.stride(),
            number,
            channels,
            features.shape[2],
            64,
            32,
            64,
        )
    return (sums[..., 0].double() * _TO_ONE / (sums[..., 1] + 1e-6)).float()


@mask_scores.register_fake
def _(kernels: Tensor, encoding: Tensor, threshold: float) -> Tensor:
    return kernels.new_empty(kernels.shape[:2])


def _programs(cells: int) -> int:
    return max(1, min(_PROGRAMS, triton.cdiv(cells, 64)))


@triton.jit
def _smoothed(centers, row, column, rows, columns, window: tl.constexpr):
    """Return the mean of the score of cells and its average over a window."""
    total = tl.zeros_like(row).to(tl.float32)
    own = total
    for dy in range(-(window // 2), window // 2 + 1):
        for dx in range(-(window // 2), window // 2 + 1):
            y, x = row + dy, column + dx
            inside = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
            value = tl.load(centers + y * columns + x, inside, float("-inf")).to(tl.float32)
            score = _sigmoid(value)
            total += score
            own = tl.where((dy == 0) & (dx == 0), score, own)
    return (own + total / (window * window)) / 2


@triton.jit
def _peaks(centers, peaks, rows, columns, window: tl.constexpr, cells: tl.constexpr):
    """Smooth some cells of a map and their neighbours; keep those that are the highest."""
    cell = tl.program_id(0) * cells + tl.arange(0, cells)
    row, column = cell // columns, cell % columns
    there = row < rows
    centers += tl.program_id(1).to(tl.int64) * rows * columns
    peaks += tl.program_id(1).to(tl.int64) * rows * columns
    own = _smoothed(centers, row, column, rows, columns, window)
    is_peak = there
    for neighbour in range(0, 9):
        y, x = row + neighbour // 3 - 1, column + neighbour % 3 - 1
        inside = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
        higher = _smoothed(centers, y, x, rows, columns, window) > own
        is_peak = is_peak & ~(inside & higher)
    tl.store(peaks + cell, tl.where(is_peak, own, 0.0), there)


@torch.library.custom_op("panoptic_ros::center_peaks", mutates_args=())
def center_peaks(centers: Tensor, window: int) -> Tensor:
    """Return smoothed scores where they are peaks, 0 elsewhere; see ``dynamic_kernels``.

    Args:
        centers: Logits of any precision, (B, N, h, w).
        window: Side of the window, odd.

    Returns:
        float32, (B, N, h, w).
    """
    centers = centers.contiguous()
    rows, columns = centers.shape[2:]
    peaks = torch.empty(centers.shape, dtype=torch.float32, device=centers.device)
    grid = triton.cdiv(rows * columns, 256), len(centers) * centers.shape[1]
    _peaks[grid](centers, peaks, rows, columns, window, 256)
    return peaks


@center_peaks.register_fake
def _(centers: Tensor, window: int) -> Tensor:
    return centers.new_empty(centers.shape, dtype=torch.float32)


@triton.jit
def _pool(
    regions,
    kernels,
    kernel_sums,
    score_sums,
    regions_b,
    regions_c,
    regions_n,
    kernels_b,
    kernels_c,
    kernels_n,
    number,
    channels,
    cells,
    padded: tl.constexpr,
    channels_at_once: tl.constexpr,
    cells_at_once: tl.constexpr,
):
    """Add the kernels and scores of the cells of a program to the highest channel of each."""
    image = tl.program_id(2).to(tl.int64)
    region = tl.arange(0, padded)
    channel = tl.program_id(1) * channels_at_once + tl.arange(0, channels_at_once)
    regions += image * regions_b
    kernels += image * kernels_b
    total = tl.zeros([padded, channels_at_once], tl.float32)
    score = tl.zeros([padded], tl.float32)
    count = tl.zeros([padded], tl.int32)
    step = tl.num_programs(0) * cells_at_once
    for start in range(tl.program_id(0) * cells_at_once, cells, step):
        cell = start + tl.arange(0, cells_at_once)
        at = regions + region[:, None] * regions_c + cell[None, :] * regions_n
        there = (region < number)[:, None] & (cell < cells)[None, :]
        value = tl.load(at, there, float("-inf")).to(tl.float32)
        best = tl.argmax(value, axis=0)
        own = (region[:, None] == best[None, :]) & (cell < cells)[None, :]
        at = kernels + cell[:, None] * kernels_n + channel[None, :] * kernels_c
        there = (cell < cells)[:, None] & (channel < channels)[None, :]
        weights = tl.load(at, there, 0.0).to(tl.float32)
        total += tl.dot(own.to(tl.float32), weights, input_precision="tf32x3")
        score += tl.sum(tl.where(own, _sigmoid(value), 0.0), axis=1)
        count += tl.sum(own.to(tl.int32), axis=1)
    found = (region < number) & (count > 0)
    at = kernel_sums + (image * number + region)[:, None] * channels + channel[None, :]
    there = found[:, None] & (channel < channels)[None, :]
    tl.atomic_add(at, _whole(total), there, sem="relaxed")
    if tl.program_id(1) == 0:
        place = (image * number + region) * 2
        tl.atomic_add(score_sums + place, _whole(score), found, sem="relaxed")
        tl.atomic_add(score_sums + place + 1, count.to(tl.int64), found, sem="relaxed")


@torch.library.custom_op("panoptic_ros::pool_regions", mutates_args=())
def pool_regions(regions: list[Tensor], kernels: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Sum kernels and scores of the cells where a channel is the highest of its level.

    Args:
        regions: Logits of any precision, (B, N, h, w), of each level; contiguous or channels
            last, as the kernels.
        kernels: (B, C, h, w), of each level.

    Returns:
        Sums of kernels, float32, (L, B, N, C), and of scores, (L, B, N), and the number of
        cells, (L, B, N).
    """
    (batch, number), channels = regions[0].shape[:2], kernels[0].shape[1]
    shape, device = (len(regions), batch, number), regions[0].device
    kernel_sums = torch.zeros(*shape, channels, dtype=torch.int64, device=device)
    score_sums = torch.zeros(*shape, 2, dtype=torch.int64, device=device)
    for level, (logits, weights) in enumerate(zip(regions, kernels, strict=True)):
        logits, weights = logits.flatten(2), weights.flatten(2)
        _pool[(_programs(logits.shape[2]), triton.cdiv(channels, 64), batch)](
            logits,
            weights,
            kernel_sums[level],
            score_sums[level],
            *logits.stride(),
            *weights.stride(),
            number,
            channels,
            logits.shape[2],
            max(16, triton.next_power_of_2(number)),
            64,
            64,
        )
    sums = score_sums.double()
    total = (kernel_sums.double() * _TO_ONE).float()
    return total, (sums[..., 0] * _TO_ONE).float(), sums[..., 1].float()


@pool_regions.register_fake
def _(regions: list[Tensor], kernels: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    (batch, number), channels = regions[0].shape[:2], kernels[0].shape[1]
    shape = len(regions), batch, number
    total = regions[0].new_empty(*shape, channels, dtype=torch.float32)
    return total, *(regions[0].new_empty(shape, dtype=torch.float32) for _ in range(2))
