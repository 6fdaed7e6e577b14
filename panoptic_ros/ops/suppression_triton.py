"""Greedy suppression on CUDA in fixed slots: a bit for every overlap, then a block that walks."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from panoptic_ros.ops.walk_triton import WORD, walk


@triton.jit
def _overlap_bits(boxes, groups, used, bits, threshold, number, words, word_size: tl.constexpr):
    """Set bit j of word w of row i: box 32 w + j comes after box i, is of its group, overlaps.

    What is used comes first: words behind it stay as they are.
    """
    if tl.program_id(1) < tl.program_id(0):
        return  # nothing there comes after
    image = tl.program_id(2).to(tl.int64)
    if tl.load(used + image * number + tl.program_id(1) * word_size) == 0:
        return
    row = tl.program_id(0) * word_size + tl.arange(0, word_size)
    column = tl.program_id(1) * word_size + tl.arange(0, word_size)
    boxes += image * number * 4
    groups += image * number
    here, there = row < number, column < number
    x1 = tl.load(boxes + 4 * row, here, 0.0)[:, None]
    y1 = tl.load(boxes + 4 * row + 1, here, 0.0)[:, None]
    x2 = tl.load(boxes + 4 * row + 2, here, 0.0)[:, None]
    y2 = tl.load(boxes + 4 * row + 3, here, 0.0)[:, None]
    u1 = tl.load(boxes + 4 * column, there, 0.0)[None, :]
    v1 = tl.load(boxes + 4 * column + 1, there, 0.0)[None, :]
    u2 = tl.load(boxes + 4 * column + 2, there, 0.0)[None, :]
    v2 = tl.load(boxes + 4 * column + 3, there, 0.0)[None, :]
    width = tl.maximum(tl.minimum(x2, u2) - tl.maximum(x1, u1), 0.0)
    height = tl.maximum(tl.minimum(y2, v2) - tl.maximum(y1, v1), 0.0)
    intersection = width * height
    union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - intersection
    near = intersection > threshold * union
    own = tl.load(groups + row, here, -1)[:, None]
    other = tl.load(groups + column, there, -2)[None, :]
    near = near & (own == other) & (column[None, :] > row[:, None])
    lane = tl.arange(0, word_size)[None, :]
    word = tl.sum(near.to(tl.int64) << lane, axis=1).to(tl.int32)
    tl.store(bits + (image * number + row) * words + tl.program_id(1), word, here)


@torch.library.custom_op("panoptic_ros::greedy_keep", mutates_args=())
def greedy_keep(
    boxes: Tensor, groups: Tensor, scores: Tensor, threshold: float, most: int
) -> Tensor:
    """Return which boxes stay; they come best first.

    Args:
        boxes: float32, (B, M, 4).
        groups: int64, (B, M).
        scores: float, (B, M), falling; 0 or less for boxes that take no part.
        threshold: On the overlap (IoU).
        most: Boxes that are asked for: of those behind them some may be missing.

    Returns:
        bool, (B, M).
    """
    batch, number = groups.shape
    words = triton.cdiv(number, WORD)
    bits = torch.empty(batch, number, words, dtype=torch.int32, device=boxes.device)
    keep = torch.zeros(batch, number, dtype=torch.bool, device=boxes.device)
    used = (scores > 0).contiguous().view(torch.int8)
    among = boxes.contiguous(), groups.contiguous(), used
    _overlap_bits[(words, words, batch)](*among, bits, threshold, number, words, WORD, num_warps=1)
    padded = triton.next_power_of_2(words)
    walk[(batch,)](
        bits, used, keep.view(torch.int8), number, words, most, padded, True, num_warps=4
    )
    return keep


@greedy_keep.register_fake
def _(boxes: Tensor, groups: Tensor, scores: Tensor, threshold: float, most: int) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)
