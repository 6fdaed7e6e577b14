"""Depth finds its colour image, whichever comes first."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from panoptic_ros.ros.depth_frames import ALIVE, KEPT, PATIENCE, DepthFrames


def message(stamp):
    seconds, nanoseconds = divmod(stamp, 10**9)
    return SimpleNamespace(
        header=SimpleNamespace(stamp=SimpleNamespace(sec=seconds, nanosec=nanoseconds)),
        stamp=stamp,
    )


@pytest.fixture
def frames():
    frames = DepthFrames()
    frames.add_info(message(0))
    return frames


def test_stamps_are_compared_to_the_nanosecond(frames):
    for stamp in (5 * 10**9 + 1, 5 * 10**9 + 2, 5 * 10**9 + 3):
        frames.add_image(message(stamp))
    assert frames.match(5 * 10**9 + 2, 0).image.stamp == 5 * 10**9 + 2
    assert frames.match(5 * 10**9, 0) is None
    assert (frames.received, frames.used, frames.missing) == (3, 1, 1)


def test_the_nearest_within_the_tolerance(frames):
    for stamp in (100, 140, 190):
        frames.add_image(message(stamp))
    assert frames.match(150, 20).image.stamp == 140
    assert frames.match(170, 20).image.stamp == 190
    assert frames.match(250, 20) is None


def test_the_camera_info_nearest_to_the_image(frames):
    for stamp in (100, 200):
        frames.add_info(message(stamp))
        frames.add_image(message(stamp))
    assert frames.match(100, 0).info.stamp == 100
    assert frames.match(200, 0).info.stamp == 200


def test_depth_that_is_on_its_way_is_waited_for(frames):
    frames.add_image(message(100))
    threading.Timer(PATIENCE / 5, frames.add_image, [message(133)]).start()
    assert frames.match(133, 0).image.stamp == 133


def test_nothing_is_waited_for_when_depth_is_past_or_dead():
    clock = [0.0]
    frames = DepthFrames(lambda: clock[0])
    frames.add_info(message(0))
    start = time.monotonic()
    assert frames.match(100, 0) is None  # there never was any
    frames.add_image(message(200))
    assert frames.match(100, 0) is None  # it is past
    clock[0] += ALIVE
    assert frames.match(300, 0) is None  # it is dead
    assert time.monotonic() - start < PATIENCE
    assert frames.seconds_since_image() == ALIVE


def test_a_bag_that_starts_again(frames):
    for stamp in (1000, 1100, 100):
        frames.add_image(message(stamp))
    assert frames.match(100, 0).image.stamp == 100
    assert frames.match(1100, 10) is None


def test_what_is_kept_is_bounded(frames):
    for stamp in range(1, 3 * KEPT):
        frames.add_image(message(stamp))
    assert frames.match(1, 0) is None
    assert frames.match(3 * KEPT - 1, 0).image.stamp == 3 * KEPT - 1


def test_without_camera_info_there_is_no_match_and_no_waiting():
    frames = DepthFrames()
    frames.add_image(message(100))
    start = time.monotonic()
    assert frames.match(100, 0) is None and frames.match(133, 0) is None
    assert time.monotonic() - start < PATIENCE
    assert not frames.has_info and frames.mismatch == ""


def test_stamps_that_never_fit_are_told(frames):
    frames.add_image(message(1_000_000_000))
    assert frames.match(1_250_000_000, 0) is None
    assert "is 0.250 s from it" in frames.mismatch
    assert frames.seconds_since_match() == float("inf")
    assert frames.match(1_000_000_000, 0) is not None
    assert frames.mismatch == "" and frames.seconds_since_match() < 1
