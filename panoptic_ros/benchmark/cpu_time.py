"""Time of the processor, which other programs disturb less than the time of the clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def median_cpu_seconds(call: Callable[[], object], repetitions: int) -> float:
    """Return the processor time of a call, of all threads together; the median of some calls."""
    times = []
    for _ in range(repetitions):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times)
