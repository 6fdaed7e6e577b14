"""The panoptic merge of all masks of an image on CUDA, from soft masks to slots.

Masks become bits, 32 pixels a word, in tiles of ``TILE_ROWS`` rows and ``TILE_WORDS`` words. The
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

from panoptic_ros.ops.mask_bits_triton import TILE_ROWS, TILE_WORDS, pack_masks, population

_ROUNDS = 16
_AT_ONCE = 64  # tiles that the program which finishes takes together


@triton.jit
def _accepted(covered, area, limit):
    """Decide on masks by the pixels that better ones cover."""
    return (area > 0) & (covered.to(tl.float32) <= limit * area.to(tl.float32))


@triton.jit(do_not_specialize=["index"])
def _round(
    bits,
    present,
    area,
    covered,
    limit,
    index,
    number,
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
            flat = tl.cast(tile, tl.int64) * number + mask
            if tl.load(present + flat) != 0:
                words = tl.load(bits + flat * tile_size + place)
                count = tl.sum(population(words & taken), axis=0)
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
                flat = tile.to(tl.int64) * number + mask
                found = tl.load(present + flat, tile < tiles, 0) != 0
                words = tl.load(bits + flat[:, None] * tile_size + place, found[:, None], 0)
                count = tl.sum(tl.sum(population(words & taken), axis=1), axis=0)
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
        flat = tl.cast(tile, tl.int64) * number + mask
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
    ratios: list[float],
    between: list[int],
) -> tuple[Tensor, Tensor]:
    """Up-sample soft masks in one or two bilinear steps, compare them and merge them.

    Args:
        soft: float of any precision, (N, h, w), best first.
        used: bool, (N,), which of them take part.
        stuff: int of any size, (H, W): 0 for none, k for stuff slot k - 1.
        overlap_threshold: float32, 0-dimensional: a mask of which more is covered goes.
        threshold: What is above belongs to a mask.
        ratios: Old over new side of each step: y, x, or y, x, y, x.
        between: Rows and columns of the first step's result that a second one sees.

    Returns:
        int32, (H, W): 0 for void, i + 1 for mask i, N + k for stuff k; and bool, (H, W), where
        any used mask is.
    """
    number, device = len(soft), soft.device
    rows, columns = stuff.shape
    slots = torch.empty(rows, columns, dtype=torch.int32, device=device)
    union = torch.empty(rows, columns, dtype=torch.bool, device=device)
    counts = torch.zeros(_ROUNDS + 2, number, dtype=torch.int32, device=device)
    area, covered = counts[0], counts[1:]
    packed = pack_masks(soft, used, threshold, ratios, between, (rows, columns), area)
    bits, present, across, tiles = packed
    size = TILE_ROWS * TILE_WORDS
    if number:
        shared = (bits, present, area, covered, overlap_threshold)
        padded = triton.next_power_of_2(number)
        for index in range(_ROUNDS):
            _round[(tiles,)](*shared, index, number, padded, size, num_warps=1)
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
        TILE_ROWS,
        TILE_WORDS,
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
    ratios: list[float],
    between: list[int],
) -> tuple[Tensor, Tensor]:
    return stuff.new_empty(stuff.shape, dtype=torch.int32), stuff.new_empty(
        stuff.shape, dtype=torch.bool
    )
