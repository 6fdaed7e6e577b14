"""Greedy suppression on CUDA in fixed slots: a bit for every overlap, then a block that walks."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_WORD = 32  # boxes per word of bits


@triton.jit
def _overlap_bits(boxes, groups, bits, threshold, number, words, word_size: tl.constexpr):
    """Set bit j of word w of row i: box 32 w + j comes after box i, is of its group, overlaps."""
    image = tl.program_id(2).to(tl.int64)
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


@triton.jit
def _walk(bits, used, keep, number, words, word_size: tl.constexpr, padded: tl.constexpr):
    """Keep, from the best box on, what no kept one has taken out."""
    image = tl.program_id(0).to(tl.int64)
    bits += image * number * words
    used += image * number
    keep += image * number
    lane = tl.arange(0, word_size)
    every = tl.arange(0, padded)
    removed = tl.zeros([padded], tl.int32)
    for block in range(0, words):
        row = block * word_size + lane
        here = row < number
        own = tl.load(bits + row * words + block, here, 0)
        gone = tl.sum(tl.where(every == block, removed, 0), axis=0)
        kept = tl.load(used + row, here, 0).to(tl.int32)
        for step in range(0, word_size):  # within the word, one after the other
            is_kept = tl.sum(tl.where(lane == step, kept, 0), axis=0) & ~(gone >> step) & 1
            kept = tl.where(lane == step, is_kept, kept)
            gone = gone | (tl.sum(tl.where(lane == step, own, 0), axis=0) * is_kept)
        tl.store(keep + row, kept.to(tl.int8), here)
        for step in range(0, word_size):  # what the kept ones take out in the words behind
            is_kept = tl.sum(tl.where(lane == step, kept, 0), axis=0)
            line = bits + (block * word_size + step) * words
            removed = removed | tl.load(line + every, (every < words) & (is_kept > 0), 0)


@torch.library.custom_op("panoptic_ros::greedy_keep", mutates_args=())
def greedy_keep(boxes: Tensor, groups: Tensor, used: Tensor, threshold: float) -> Tensor:
    """Return which boxes stay; they come best first.

    Args:
        boxes: float32, (B, M, 4).
        groups: int64, (B, M).
        used: bool, (B, M), boxes that take part.
        threshold: On the overlap (IoU).

    Returns:
        bool, (B, M).
    """
    batch, number = groups.shape
    words = triton.cdiv(number, _WORD)
    bits = torch.empty(batch, number, words, dtype=torch.int32, device=boxes.device)
    keep = torch.empty(batch, number, dtype=torch.int8, device=boxes.device)
    groups, used = groups.to(torch.int32).contiguous(), used.to(torch.int8).contiguous()
    _overlap_bits[(words, words, batch)](
        boxes.contiguous(), groups, bits, threshold, number, words, _WORD
    )
    _walk[(batch,)](bits, used, keep, number, words, _WORD, triton.next_power_of_2(words))
    return keep.bool()


@greedy_keep.register_fake
def _(boxes: Tensor, groups: Tensor, used: Tensor, threshold: float) -> Tensor:
    return torch.empty_like(used)
