"""Soft masks to bits on CUDA, 32 pixels of a row a word, in tiles of some rows and words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from panoptic_ros.ops.sampling_triton import first_line, interpolated

TILE_ROWS, TILE_WORDS = 8, 8


class PackedMasks(NamedTuple):
    """N masks as bits.

    Attributes:
        bits: int32, (tiles, N, TILE_ROWS * TILE_WORDS); anything where nothing is present.
        present: int8, (tiles, N), 0 where a mask has no pixel in a tile.
        across: Tiles in a row of tiles.
        tiles: Of an image.
    """

    bits: Tensor
    present: Tensor
    across: int
    tiles: int


@triton.jit
def population(word):
    """Count the bits of 32 that are set."""
    word = word - ((word >> 1) & 0x55555555)
    word = (word & 0x33333333) + ((word >> 2) & 0x33333333)
    word = (word + (word >> 4)) & 0x0F0F0F0F
    return ((word * 0x01010101) >> 24) & 0xFF


@triton.jit
def _pack(
    soft,
    used,
    bits,
    present,
    area,
    threshold,
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
    tiles_across,
    two_steps: tl.constexpr,
    patch_rows: tl.constexpr,
    patch_columns: tl.constexpr,
    tile_rows: tl.constexpr,
    tile_words: tl.constexpr,
):
    """Up-sample a tile of one mask, compare it with the threshold, store its bits and area."""
    mask = tl.program_id(1)
    tile = tl.program_id(0)
    top = tile // tiles_across * tile_rows
    left = tile % tiles_across * (tile_words * 32)
    soft += mask.to(tl.int64) * old_rows * old_columns
    flat = tile.to(tl.int64) * tl.num_programs(1) + mask
    found = 0
    if tl.load(used + mask) != 0:
        if two_steps:
            y = first_line(first_line(top, second_y, middle_rows), ratio_y, old_rows)
            x = first_line(first_line(left, second_x, middle_columns), ratio_x, old_columns)
        else:
            y = first_line(top, ratio_y, old_rows)
            x = first_line(left, ratio_x, old_columns)
        patch_y = y + tl.arange(0, patch_rows)[:, None]
        patch_x = x + tl.arange(0, patch_columns)[None, :]
        there = (patch_y < old_rows) & (patch_x < old_columns)
        patch = tl.load(soft + patch_y * old_columns + patch_x, there, 0.0).to(tl.float32)
        highest = tl.max(tl.max(patch, axis=1), axis=0)
        highest += 1e-5 * tl.abs(highest)  # interpolated and rounded, nothing is above
        found = (highest > threshold).to(tl.int32)
    if found != 0:
        word = tl.arange(0, tile_rows * tile_words)[:, None]
        lane = tl.arange(0, 32)[None, :]
        row = top + word // tile_words
        column = left + word % tile_words * 32 + lane
        value = interpolated(
            soft,
            old_columns,
            1,
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
        inside = (value > threshold) & (row < rows) & (column < columns)
        words = tl.sum(inside.to(tl.int64) << lane, axis=1).to(tl.int32)
        place = flat * (tile_rows * tile_words)
        tl.store(bits + place + tl.arange(0, tile_rows * tile_words), words)
        found = tl.sum(population(words), axis=0)
        tl.atomic_add(area + mask, found, sem="relaxed")
    tl.store(present + flat, (found != 0).to(tl.int8))


def pack_masks(
    soft: Tensor,
    used: Tensor,
    threshold: float,
    ratios: Sequence[float],
    between: Sequence[int],
    size: tuple[int, int],
    area: Tensor,
) -> PackedMasks:
    """Up-sample soft masks and pack what is above the threshold.

    Args:
        soft: float of any precision, (N, h, w).
        used: bool, (N,), which of them take part.
        threshold: What is above belongs to a mask.
        ratios: Old over new side of each step: y, x, or y, x, y, x.
        between: Rows and columns of the first step's result that a second one sees.
        size: Rows and columns of the masks.
        area: int32, (N,), to which the pixels of each mask are added.
    """
    number = len(soft)
    across = triton.cdiv(size[1], 32 * TILE_WORDS)
    tiles = triton.cdiv(size[0], TILE_ROWS) * across
    words = TILE_ROWS * TILE_WORDS
    bits = torch.empty(tiles, number, words, dtype=torch.int32, device=soft.device)
    present = torch.empty(tiles, number, dtype=torch.int8, device=soft.device)
    two_steps = len(ratios) == 4
    second = ratios[2:] if two_steps else (1.0, 1.0)
    patch = [
        triton.next_power_of_2(int((side * outer + 2) * inner if two_steps else side * inner) + 3)
        for side, inner, outer in zip((TILE_ROWS, 32 * TILE_WORDS), ratios, second, strict=False)
    ]
    if number:
        _pack[(tiles, number)](
            soft.contiguous(),
            used.contiguous().view(torch.int8),
            bits,
            present,
            area,
            threshold,
            *soft.shape[1:],
            *(between if two_steps else (0, 0)),
            *size,
            *ratios[:2],
            *second,
            across,
            two_steps,
            *patch,
            TILE_ROWS,
            TILE_WORDS,
        )
    return PackedMasks(bits, present, across, tiles)
