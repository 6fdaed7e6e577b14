"""What happened to the frames, and how fast: the numbers behind /diagnostics, free of ROS."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np

WINDOW = 5.0  # seconds that rates look back
KEPT = 300  # measurements that percentiles look back


class Rate:
    """Events per second over the last ``WINDOW`` seconds."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=1000)

    def tick(self, now: float) -> None:
        """Count an event."""
        self._times.append(now)

    def per_second(self, now: float) -> float:
        """Return the rate; 0 when nothing happened within the window."""
        while self._times and now - self._times[0] > WINDOW:
            self._times.popleft()
        if len(self._times) < 2:
            return len(self._times) / WINDOW
        # Events at both ends: one interval less than events.
        return (len(self._times) - 1) / max(now - self._times[0], 1e-9)


class CameraStatistics:
    """Counts of one camera; every method may be called from any thread.

    Each frame received ends in one other counter: ``rate_limited`` (max_rate), ``dropped`` (a
    newer one replaced it), ``unheard`` (nobody listened), ``refused`` (it could not be used),
    ``failed`` (it could not be segmented or published) or ``published``.
    """

    COUNTERS = (
        "received",
        "rate_limited",
        "dropped",
        "unheard",
        "refused",
        "failed",
        "published",
    )

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._rates = {"received": Rate(), "published": Rate()}
        self._last: dict[str, float] = {}
        self._ages: deque[float] = deque(maxlen=KEPT)
        self.refusal = ""

    def count(self, what: str, number: int = 1) -> int:
        """Add to a counter; returns its new value."""
        now = self._clock()
        with self._lock:
            self._counts[what] += number
            self._last[what] = now
            if what in self._rates:
                self._rates[what].tick(now)
            return self._counts[what]

    def add_age(self, seconds: float) -> None:
        """Note the time from the stamp of an image to the publishing of its result."""
        with self._lock:
            self._ages.append(seconds)

    def counts(self) -> dict[str, int]:
        """Return all counters."""
        with self._lock:
            return {name: self._counts[name] for name in self.COUNTERS}

    def rate(self, what: str) -> float:
        """Return how often ``received`` or ``published`` grows, per second."""
        with self._lock:
            return self._rates[what].per_second(self._clock())

    def seconds_since(self, what: str) -> float:
        """Return the seconds since a counter grew; infinity if it never did."""
        with self._lock:
            return self._clock() - self._last.get(what, float("-inf"))

    def ages(self) -> list[float]:
        """Return the latest ages, in seconds."""
        with self._lock:
            return list(self._ages)


class StageTimes:
    """The latest durations of each stage of processing; may be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))

    def add(self, seconds: Mapping[str, float]) -> None:
        """Note how long each stage took."""
        with self._lock:
            for stage, duration in seconds.items():
                self._seconds[stage].append(duration)

    def clear(self) -> None:
        """Forget all durations."""
        with self._lock:
            self._seconds.clear()

    def latest(self) -> dict[str, list[float]]:
        """Return the durations by stage, in seconds."""
        with self._lock:
            return {stage: list(values) for stage, values in self._seconds.items()}


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return p50 and p95 of measurements by nearest rank, so values that occurred; {} of none."""
    if not values:
        return {}
    p50, p95 = np.percentile(values, [50, 95], method="inverted_cdf")
    return {"p50": float(p50), "p95": float(p95)}
