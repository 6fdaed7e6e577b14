"""How many of the fixed slots are worth a look."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def slots_in_use(used: Tensor) -> int:
    """Return how many leading slots to go on with.

    Args:
        used: bool, (..., K), slots in use first.

    Returns:
        The largest number in use on CPUs; K elsewhere, where counting would wait for the device.
    """
    return int(used.sum(-1).amax()) if used.device.type == "cpu" else used.shape[-1]


def places_in_use(used: Tensor, at_least: int = 0) -> Tensor:
    """Return the places to go on with: int64, (M,), rising.

    Args:
        used: bool, (N,).
        at_least: On CPUs the first places are added until there are so many.

    Returns:
        Those in use on CPUs; all N elsewhere, where counting would wait for the device.
    """
    if used.device.type != "cpu":
        return torch.arange(len(used), device=used.device)
    places = torch.nonzero(used).flatten()
    return places if len(places) >= at_least else torch.arange(at_least)


def best_places(scores: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Return the best of each row and their places, best first, of equal ones the first.

    ``torch.topk`` leaves the order of equal scores open, so that it changes with what else a row
    holds: with forms that look at other places, the numbers of two instances would be swapped.

    Args:
        scores: float32, (..., N), 0 or more.
        number: K, at most N.

    Returns:
        Scores (..., K) and int64 places (..., K).
    """
    places = torch.arange(scores.shape[-1], device=scores.device)
    bits = scores.contiguous().view(torch.int32).long()  # in order, as none is < 0
    keys = (bits << 32) - places
    best = (-keys.topk(number).values) & 0xFFFFFFFF
    return scores.gather(-1, best), best


def slots_at_once(slots: Tensor, number: int) -> Iterator[slice]:
    """Divide slots (K, ...) into those to go on with together.

    Yields:
        Of ``number`` slots each on CPUs, whose caches are small; of all elsewhere, where every
        operation costs a launch.
    """
    number = number if slots.device.type == "cpu" else max(len(slots), 1)
    for start in range(0, len(slots), number):
        yield slice(start, start + number)
