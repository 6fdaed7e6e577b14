"""A greedy walk on CUDA: from the first on, what is kept takes out what is near behind it.

Who is near whom are bits, 32 a word: bit j of word w of row i stands for 32 w + j, behind i.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

WORD = 32


@triton.jit
def _or(first, second):
    return first | second


@triton.jit
def walk(bits, used, keep, number, words, most, padded: tl.constexpr, used_first: tl.constexpr):
    """Walk the rows of an image (program 0); end when ``most`` are kept or no used one is left.

    Args:
        bits: int32, (B, number, words); words before that of the diagonal may be anything.
        used: int8, (B, number), what takes part.
        keep: int8, (B, number), zeros; 1 where one is kept.
        number: Of rows.
        words: Of a row.
        most: To keep; all that are kept of the word in which this is reached are marked.
        padded: ``words`` rounded up to a power of 2.
        used_first: Whether nothing is used behind the first word without a used one.
    """
    image = tl.program_id(0).to(tl.int64)
    bits += image * number * words
    used += image * number
    keep += image * number
    lane = tl.arange(0, 32)
    every = tl.arange(0, padded)
    removed = tl.zeros([padded], tl.int32)
    kept_until_now = 0
    block = 0
    while block < words:
        row = block * 32 + lane
        here = row < number
        taking_part = tl.load(used + row, here, 0).to(tl.int64)
        kept = tl.sum(taking_part << lane, axis=0).to(tl.int32)
        following = block + 1
        if kept == 0:
            if used_first:
                following = words
        else:
            gone = tl.sum(tl.where(every == block, removed, 0), axis=0)
            kept = kept & ~gone
            for step in tl.static_range(32):  # within the word, one after the other
                at = tl.minimum(block * 32 + step, number - 1)
                near = tl.load(bits + at * words + block)
                kept = kept & ~(near * ((kept >> step) & 1))
            is_kept = (kept >> lane) & 1
            tl.store(keep + row, is_kept.to(tl.int8), here)
            kept_until_now += tl.sum(is_kept, axis=0)
            rows = (block * 32 + lane)[:, None] * words + every[None, :]
            behind = (every > block) & (every < words)
            own = tl.load(bits + rows, (is_kept != 0)[:, None] & behind[None, :], 0)
            removed = removed | tl.reduce(own, 0, _or)
            if kept_until_now >= most:
                following = words
        block = following


@triton.jit
def _pack_rows(near, bits, number, words):
    """Pack 32 columns of 32 rows; only what is behind the diagonal."""
    row = tl.program_id(0) * 32 + tl.arange(0, 32)
    lane = tl.arange(0, 32)
    column = tl.program_id(1) * 32 + lane
    inside = (row < number)[:, None] & (column[None, :] > row[:, None])
    inside = inside & (column < number)[None, :]
    at = near + row.to(tl.int64)[:, None] * number + column[None, :]
    value = tl.load(at, inside, 0).to(tl.int64)
    word = tl.sum(value << lane[None, :], axis=1).to(tl.int32)
    tl.store(bits + row * words + tl.program_id(1), word, row < number)


@torch.library.custom_op("panoptic_ros::keep_first", mutates_args=())
def keep_first(near: Tensor, keep: Tensor) -> Tensor:
    """Take out what is near an earlier one that is kept.

    Args:
        near: bool, (K, K), by earlier and later; what is not behind the diagonal does not count.
        keep: bool, (K,), what there is.

    Returns:
        bool, (K,).
    """
    number = len(keep)
    words = triton.cdiv(number, WORD)
    bits = torch.empty(number, words, dtype=torch.int32, device=keep.device)
    kept = torch.zeros_like(keep)
    if number:
        near, keep = near.contiguous().view(torch.int8), keep.contiguous().view(torch.int8)
        _pack_rows[(words, words)](near, bits, number, words, num_warps=1)
        padded = triton.next_power_of_2(words)
        out = kept.view(torch.int8)
        walk[(1,)](bits, keep, out, number, words, number, padded, False, num_warps=1)
    return kept


@keep_first.register_fake
def _(near: Tensor, keep: Tensor) -> Tensor:
    return torch.empty_like(keep)
