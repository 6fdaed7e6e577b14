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


def slots_at_once(slots: Tensor, number: int) -> Iterator[slice]:
    """Divide slots (K, ...) into those to go on with together.

    Yields:
        Of ``number`` slots each on CPUs, whose caches are small; of all elsewhere, where every
        operation costs a launch.
    """
    number = number if slots.device.type == "cpu" else max(len(slots), 1)
    for start in range(0, len(slots), number):
        yield slice(start, start + number)
