"""A short soak, and that it would see a leak."""

from __future__ import annotations

import numpy as np
import pytest

from campaigns.soak import Soak, slope_of


def soaked(memory):
    count = len(memory)
    counts = {"received": 10, "dropped": 1, "published": 9}
    constant = np.ones(count)
    samples = np.column_stack([np.linspace(0, 24, count), memory, 9 * constant, 7 * constant])
    return Soak(samples, count, counts)


def test_slope_and_error_are_those_of_numpy():
    x = np.linspace(0, 3, 41)
    y = 2 * x + np.random.default_rng(0).normal(0, 0.1, 41)
    (slope, _), covariance = np.polyfit(x[20:], y[20:], 1, cov=True)
    assert slope_of(list(x), list(y)) == pytest.approx((slope, covariance[0, 0] ** 0.5))


def test_a_leak_is_seen():
    noise = np.random.default_rng(0).normal(0, 0.5, 400)
    assert soaked(100 + noise).problems() == []
    (problem,) = soaked(100 + noise + np.linspace(0, 48, 400)).problems()
    assert problem.startswith("memory grows by 2.0")


def test_lost_frames_and_files_left_open_are_seen():
    result = soaked(np.full(400, 100.0))
    result.counts["published"] = 8
    result.samples[-1, 2] = 10
    assert ["9 to 10" in p or "10 frames came, 9 ended" in p for p in result.problems()] == [
        True,
        True,
    ]


def test_a_short_soak():
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    from campaigns.soak import soak

    result = soak(hours=0.005, most_seconds=20)
    assert result.counts["received"] == 540 and result.counts["dropped"] > 0
    assert not [p for p in result.problems() if "frames came" in p]
