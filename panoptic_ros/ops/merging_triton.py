"""The panoptic merge of all masks of an image on CUDA, from soft masks to slots.

Masks become bits, 32 pixels a word, in tiles of ``_TILE_ROWS`` rows and ``_TILE_WORDS`` words. The
walk over the masks is the one set of accepted masks that agrees with itself: a mask is accepted
if the accepted ones before it cover no more than the limit of it. From all masks on, each round
takes the accepted ones of the round before, all pixels at once. The first k decisions are right
after k rounds, and when a round changes nothing all are, which is so after a few; then the
rounds left return at once. One program finishes what ``_ROUNDS`` rounds leave.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from panoptic_ros.ops.sampling_triton import bilinear, first_line

_TILE_ROWS, _TILE_WORDS = 8, 8
_ROUNDS = 16
_AT_ONCE = 64  # tiles that the program which finishes takes together


@triton.jit
def _population(word):
    """Count the bits of 32 that are set."""
    word = word - ((word >> 1) & 0x55555555)
    word = (word & 0x33333333) + ((word >> 2) & 0x33333333)
    word = (word + (word >> 4)) & 0x0F0F0F0F
    return ((word * 0x01010101) >> 24) & 0xFF


@triton.jit
def _accepted(covered, area, limit):
    """Decide on masks by the pixels that better ones cover."""
    return (area > 0) & (covered.to(tl.float32) <= limit * area.to(tl.float32))


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
    tiles,
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
    flag = present + mask.to(tl.int64) * tiles + tile
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
    found = (highest > threshold) & (tl.load(used + mask) != 0)
    tl.store(flag, found.to(tl.int8))
    if found:
        word = tl.arange(0, tile_rows * tile_words)[:, None]
        lane = tl.arange(0, 32)[None, :]
        row = top + word // tile_words
        column = left + word % tile_words * 32 + lane
        if two_steps:
            value = _bilinear_twice(
                soft,
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
            )
        else:
            value = bilinear(soft, row, column, old_rows, old_columns, ratio_y, ratio_x)
        inside = (value > threshold) & (row < rows) & (column < columns)
        words = tl.sum(inside.to(tl.int64) << lane, axis=1).to(tl.int32)
        place = (mask.to(tl.int64) * tiles + tile) * (tile_rows * tile_words)
        tl.store(bits + place + tl.arange(0, tile_rows * tile_words), words)
        tl.atomic_add(area + mask, tl.sum(_population(words), axis=0), sem="relaxed")


@triton.jit
def _bilinear_twice(
    values,
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
):
    """Interpolate at lines of the second of two steps, between values of the first."""
    y = tl.maximum((row.to(tl.float32) + 0.5) * second_y - 0.5, 0.0)
    x = tl.maximum((column.to(tl.float32) + 0.5) * second_x - 0.5, 0.0)
    top = tl.minimum(y.to(tl.int32), middle_rows - 1)
    left = tl.minimum(x.to(tl.int32), middle_columns - 1)
    down, across = y - top.to(tl.float32), x - left.to(tl.float32)
    bottom = tl.minimum(top + 1, middle_rows - 1)
    right = tl.minimum(left + 1, middle_columns - 1)
    upper_left = bilinear(values, top, left, old_rows, old_columns, ratio_y, ratio_x)
    upper_right = bilinear(values, top, right, old_rows, old_columns, ratio_y, ratio_x)
    lower_left = bilinear(values, bottom, left, old_rows, old_columns, ratio_y, ratio_x)
    lower_right = bilinear(values, bottom, right, old_rows, old_columns, ratio_y, ratio_x)
    upper = upper_left * (1 - across) + upper_right * across
    lower = lower_left * (1 - across) + lower_right * across
    return upper * (1 - down) + lower * down


@triton.jit(do_not_specialize=["index"])
def _round(
    bits,
    present,
    area,
    covered,
    limit,
    index,
    number,
    tiles,
    padded: tl.constexpr,
    tile_size: tl.constexpr,
):
    """Count what is covered of every mask in a tile, by those that the round before accepted."""
    tile = tl.program_id(0)
    every = tl.arange(0, padded)
    areas = tl.load(area + every, every < number, 0)
    most = tl.load(limit)
    now = tl.load(covered + index * number + every, every < number, 0)
    changed = 1
    if index > 0:
        before = tl.load(covered + (index - 1) * number + every, every < number, 0)
        differs = _accepted(before, areas, most) != _accepted(now, areas, most)
        changed = tl.sum(differs.to(tl.int32), axis=0)
    following = covered + (index + 1) * number
    if changed == 0:
        if tile == 0:
            tl.store(following + every, now, every < number)
    else:
        place = tl.arange(0, tile_size)
        taken = tl.zeros([tile_size], tl.int32)
        for mask in range(0, number):
            flat = tl.cast(mask, tl.int64) * tiles + tile
            if tl.load(present + flat) != 0:
                words = tl.load(bits + flat * tile_size + place)
                count = tl.sum(_population(words & taken), axis=0)
                tl.atomic_add(following + mask, count, count > 0, sem="relaxed")
                own = tl.load(covered + index * number + mask)
                if _accepted(own, tl.load(area + mask), most):
                    taken = taken | words


@triton.jit
def _finish(
    bits,
    present,
    area,
    covered,
    limit,
    rounds,
    number,
    tiles,
    padded: tl.constexpr,
    tile_size: tl.constexpr,
    tiles_at_once: tl.constexpr,
):
    """Go on until a round changes nothing, in one program."""
    every = tl.arange(0, padded)
    own_tile = tl.arange(0, tiles_at_once)
    place = tl.arange(0, tile_size)[None, :]
    areas = tl.load(area + every, every < number, 0)
    most = tl.load(limit)
    now = tl.load(covered + rounds * number + every, every < number, 0)
    accepted = _accepted(now, areas, most).to(tl.int32)
    before = tl.load(covered + (rounds - 1) * number + every, every < number, 0)
    differs = _accepted(before, areas, most).to(tl.int32) != accepted
    changed = tl.sum(differs.to(tl.int32), axis=0)
    while changed > 0:
        counts = tl.zeros([padded], tl.int32)
        for start in range(0, tiles, tiles_at_once):
            tile = start + own_tile
            taken = tl.zeros([tiles_at_once, tile_size], tl.int32)
            for mask in range(0, number):
                flat = tl.cast(mask, tl.int64) * tiles + tile
                found = tl.load(present + flat, tile < tiles, 0) != 0
                words = tl.load(bits + flat[:, None] * tile_size + place, found[:, None], 0)
                count = tl.sum(tl.sum(_population(words & taken), axis=1), axis=0)
                counts = tl.where(every == mask, counts + count, counts)
                is_accepted = tl.sum(tl.where(every == mask, accepted, 0), axis=0)
                taken = taken | (words * is_accepted)
        following = _accepted(counts, areas, most).to(tl.int32)
        changed = tl.sum((following != accepted).to(tl.int32), axis=0)
        accepted = following
    tl.store(covered + rounds * number + every, 1 - accepted, every < number)


@triton.jit
def _paint(
    bits,
    present,
    rejected,
    stuff,
    slots,
    union,
    number,
    rows,
    columns,
    tiles_across,
    tiles,
    tile_rows: tl.constexpr,
    tile_words: tl.constexpr,
):
    """Give every pixel of a tile to its first accepted mask, else to stuff."""
    tile = tl.program_id(0)
    size: tl.constexpr = tile_rows * tile_words
    word = tl.arange(0, size)
    lane = tl.arange(0, 32)[None, :]
    row = (tile // tiles_across * tile_rows + word // tile_words)[:, None]
    column = (tile % tiles_across * tile_words + word % tile_words)[:, None] * 32 + lane
    taken = tl.zeros([size], tl.int32)
    joined = tl.zeros([size], tl.int32)
    owner = tl.zeros([size, 32], tl.int32)
    for mask in range(0, number):
        flat = tl.cast(mask, tl.int64) * tiles + tile
        if tl.load(present + flat) != 0:
            words = tl.load(bits + flat * size + word)
            joined = joined | words
            if tl.load(rejected + mask) == 0:
                own = words & ~taken
                owner = tl.where(((own[:, None] >> lane) & 1) != 0, mask + 1, owner)
                taken = taken | words
    inside = (row < rows) & (column < columns)
    pixel = row.to(tl.int64) * columns + column
    of_stuff = tl.load(stuff + pixel, inside, 0).to(tl.int32)
    rest = tl.where(of_stuff > 0, of_stuff + number, 0)
    tl.store(slots + pixel, tl.where(owner > 0, owner, rest), inside)
    tl.store(union + pixel, ((joined[:, None] >> lane) & 1).to(tl.int8), inside)


@torch.library.custom_op("panoptic_ros::merge_soft_masks", mutates_args=())
def merge_soft_masks(
    soft: Tensor,
    used: Tensor,
    stuff: Tensor,
    overlap_threshold: Tensor,
    threshold: float,
    scales: list[float],
    sizes: list[int],
) -> tuple[Tensor, Tensor]:
    """Up-sample soft masks in one or two bilinear steps, compare them and merge them.

    Args:
        soft: float of any precision, (N, h, w), best first.
        used: bool, (N,), which of them take part.
        stuff: int of any size, (H, W): 0 for none, k for stuff slot k - 1.
        overlap_threshold: float32, 0-dimensional: a mask of which more is covered goes.
        threshold: What is above belongs to a mask.
        scales: Old over new side of each step: y, x, or y, x, y, x.
        sizes: Rows and columns between two steps, if there are two: of the whole first step's
            result that the second one sees.

    Returns:
        int32, (H, W): 0 for void, i + 1 for mask i, N + k for stuff k; and bool, (H, W), where
        any used mask is.
    """
    number, device = len(soft), soft.device
    rows, columns = stuff.shape
    slots = torch.empty(rows, columns, dtype=torch.int32, device=device)
    union = torch.empty(rows, columns, dtype=torch.bool, device=device)
    across = triton.cdiv(columns, 32 * _TILE_WORDS)
    tiles = triton.cdiv(rows, _TILE_ROWS) * across
    size = _TILE_ROWS * _TILE_WORDS
    bits = torch.empty(number, tiles, size, dtype=torch.int32, device=device)
    present = torch.empty(number, tiles, dtype=torch.int8, device=device)
    counts = torch.zeros(_ROUNDS + 2, number, dtype=torch.int32, device=device)
    area, covered = counts[0], counts[1:]
    two_steps = len(scales) == 4
    second = scales[2:] if two_steps else [1.0, 1.0]
    middle = sizes if two_steps else [0, 0]
    patch = [
        triton.next_power_of_2(int((side * outer + 2) * inner if two_steps else side * inner) + 3)
        for side, inner, outer in zip((_TILE_ROWS, 32 * _TILE_WORDS), scales, second, strict=False)
    ]
    if number:
        _pack[(tiles, number)](
            soft.contiguous(),
            used.view(torch.int8),
            bits,
            present,
            area,
            threshold,
            *soft.shape[1:],
            *middle,
            rows,
            columns,
            *scales[:2],
            *second,
            across,
            tiles,
            two_steps,
            *patch,
            _TILE_ROWS,
            _TILE_WORDS,
            num_warps=4,
        )
        shared = (bits, present, area, covered, overlap_threshold)
        padded = triton.next_power_of_2(number)
        for index in range(_ROUNDS):
            _round[(tiles,)](*shared, index, number, tiles, padded, size, num_warps=1)
        _finish[(1,)](*shared, _ROUNDS, number, tiles, padded, size, _AT_ONCE, num_warps=16)
    _paint[(tiles,)](
        bits,
        present,
        covered[_ROUNDS],
        stuff.contiguous(),
        slots,
        union.view(torch.int8),
        number,
        rows,
        columns,
        across,
        tiles,
        _TILE_ROWS,
        _TILE_WORDS,
        num_warps=2,
    )
    return slots, union


@merge_soft_masks.register_fake
def _(
    soft: Tensor,
    used: Tensor,
    stuff: Tensor,
    overlap_threshold: Tensor,
    threshold: float,
    scales: list[float],
    sizes: list[int],
) -> tuple[Tensor, Tensor]:
    return stuff.new_empty(stuff.shape, dtype=torch.int32), stuff.new_empty(
        stuff.shape, dtype=torch.bool
    )
