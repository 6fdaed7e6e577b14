"""Where a step is on the schedule, by steps and by the clock."""

from __future__ import annotations

import pytest

from panoptic_ros.training.schedule_clock import ScheduleClock


def test_by_steps():
    clock = ScheduleClock.of([8, 2], 1)
    assert [clock.place(step, 1e9) for step in (0, 1)] == [0, 1]
    assert [clock.is_over(step, 1e9) for step in (1, 2)] == [False, True]


def test_by_the_clock_stages_share_the_time():
    first, second = (ScheduleClock.of([8, 2], stage, minutes=1) for stage in (0, 1))
    assert [first.place(99, seconds) for seconds in (0, 12, 48, 60)] == [0, 2, 8, 8]
    assert [second.place(99, seconds) for seconds in (0, 48, 54)] == [0, 0, 1]
    assert [first.is_over(0, seconds) for seconds in (47.9, 48)] == [False, True]
    assert [second.is_over(99, seconds) for seconds in (59.9, 60)] == [False, True]
    with pytest.raises(ValueError, match="more than 0"):
        ScheduleClock.of([1], 0, minutes=0)
