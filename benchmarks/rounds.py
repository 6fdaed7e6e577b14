"""The one way in which everything here is timed: in turns, the median of some rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def medians(
    calls: Mapping[str, Callable[[], object]],
    repeat: int,
    device: torch.device,
    seconds: float = float("inf"),
) -> dict[str, float]:
    """Run every call once per round and return the median seconds of each.

    A machine that is busy for a while slows all of them down alike, so that ratios hold. A round
    before the first does not count.

    Args:
        calls: By name.
        repeat: Rounds.
        device: Waited for after every call.
        seconds: No round begins after so many; at least one is made.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    begin = time.perf_counter()
    for number in range(repeat + 1):
        for name, call in calls.items():
            _synchronise(device)
            start = time.perf_counter()
            call()
            _synchronise(device)
            if number:
                samples[name].append(time.perf_counter() - start)
        if number and time.perf_counter() - begin > seconds:
            break
    return {name: statistics.median(values) for name, values in samples.items()}


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
