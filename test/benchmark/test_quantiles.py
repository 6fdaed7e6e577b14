"""The statistics, against values reckoned by hand."""

import pytest

from panoptic_ros.benchmark.quantiles import (
    Quantiles,
    linear_slope,
    log_log_slope,
    median_ratio,
)


def test_median_and_p95():
    # Ranks 0..4: the 95th percentile lies at rank 3.8, between 4 and 10.
    assert Quantiles.of([3, 1, 10, 2, 4]) == Quantiles(3.0, pytest.approx(4 + 0.8 * 6), 5)
    assert Quantiles.of([7.5]) == Quantiles(7.5, 7.5, 1)
    with pytest.raises(ValueError, match="no sample"):
        Quantiles.of([])


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.37, 2.0])
def test_slope_of_a_power_law_is_its_exponent(exponent):
    pixels = [131072, 524288, 2097152]
    assert log_log_slope(pixels, [3e-7 * p**exponent for p in pixels]) == pytest.approx(exponent)


def test_slope_of_a_fixed_cost_and_pixels():
    # ms = 10 + x at x = 10 and 40: 20 to 50, so log(2.5) / log(4).
    assert log_log_slope([10, 40], [20, 50]) == pytest.approx(0.66096, abs=1e-5)


def test_linear_slope():
    assert linear_slope([0, 50, 200], [3, 13, 43]) == pytest.approx(0.2)
    assert linear_slope([0, 1, 2], [0, 3, 0]) == pytest.approx(0)
    with pytest.raises(ValueError, match="two different"):
        linear_slope([5, 5], [1, 2])


@pytest.mark.parametrize(
    ("x", "y", "what"),
    [([1, 1], [1, 2], "two different"), ([1, 2], [0, 1], "above 0"), ([1], [1], "two different")],
)
def test_no_slope(x, y, what):
    with pytest.raises(ValueError, match=what):
        log_log_slope(x, y)


def test_ratio_is_within_rounds():
    # The machine was three times as slow in the second round; medians alone would give 2 / 1.5.
    assert median_ratio([2, 6, 2], [1, 3, 1]) == 2
    assert median_ratio([1, 2, 30], [1, 1, 1]) == 2
    with pytest.raises(ValueError, match="2 and 1 rounds"):
        median_ratio([1, 2], [1])
