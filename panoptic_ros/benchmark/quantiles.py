"""The few statistics that the benchmarks report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Quantiles:
    """Of repeated measurements of one thing.

    Attributes:
        median: Half of the repetitions took no longer.
        p95: 95 % took no longer, interpolated between neighbours; of few repetitions it is
            close to the worst.
        number: Repetitions.
    """

    median: float
    p95: float
    number: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Quantiles:
        """Summarise samples; raises ValueError without any."""
        if not len(samples):
            raise ValueError("got no sample; repeat at least once")
        median, p95 = np.percentile(np.asarray(samples, float), (50, 95))
        return cls(float(median), float(p95), len(samples))


def log_log_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the exponent b of the power law y = a * x**b that fits best on logarithmic axes.

    Args:
        x: Above 0, at least two different values.
        y: Above 0.

    Raises:
        ValueError: Fewer than two different x, or a value that is not above 0.
    """
    if len(set(x)) < 2:
        raise ValueError(f"a slope needs two different x, got {list(x)}")
    if min(*x, *y) <= 0:
        raise ValueError(f"a logarithm needs values above 0, got {list(x)} and {list(y)}")
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def linear_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the slope of the straight line that fits best; raises ValueError as above."""
    if len(set(x)) < 2:
        raise ValueError(f"a slope needs two different x, got {list(x)}")
    return float(np.polyfit(x, y, 1)[0])


def median_ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the median of first[i] / second[i]; both belong to the same round i.

    Rounds are walked through by all variants in turn, so that what slows the machine down for a
    while hits both sides of a ratio.

    Raises:
        ValueError: Their lengths differ, or there is no round.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(f"got {len(first)} and {len(second)} rounds; expected as many, above 0")
    return float(np.median(np.asarray(first, float) / np.asarray(second, float)))
