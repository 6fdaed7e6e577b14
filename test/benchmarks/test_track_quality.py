"""Measures of tracks, against values computed by hand and against panoptic quality of stacks."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.track_quality import Shown, TrackQuality
from panoptic_ros.evaluation.panoptic_quality import PanopticQuality, SegmentTable
from panoptic_ros.prediction import Category

ROAD, CAR, PERSON = 1, 2, 3
CATEGORIES = (
    Category(ROAD, "road", False, (1, 1, 1)),
    Category(CAR, "car", True, (2, 2, 2)),
    Category(PERSON, "person", True, (3, 3, 3)),
)


def strip(*cells: tuple[int, int] | None) -> Shown:
    """Cells of 4 pixels, each (class, track), (class, -1) for stuff, or None for void."""
    values = {cell: 10 + i for i, cell in enumerate(dict.fromkeys(filter(None, cells)))}
    pixels = np.repeat([values.get(cell, 0) for cell in cells], 4)
    return Shown(
        pixels[None],
        {value: cell[0] for cell, value in values.items()},
        {value: cell[1] for cell, value in values.items() if cell[1] >= 0},
    )


def measured(*frames: tuple[Shown, Shown]) -> dict[str, float]:
    quality = TrackQuality()
    quality.begin()
    for truth, predicted in frames:
        quality.add(truth, predicted)
    return quality.result()


def test_perfect():
    frame = strip((ROAD, -1), (CAR, 1), (CAR, 2), (PERSON, 3))
    renamed = strip((ROAD, -1), (CAR, 7), (CAR, 9), (PERSON, 8))
    result = measured(*[(frame, renamed)] * 15)
    assert result == {"idf1": 1, "switches": 0, "recall": 1, "vpq": 1}


def test_a_switch():
    """One car, ten frames, another number in the last three: 7 of 10 are right."""
    truth = strip((CAR, 1), (ROAD, -1))
    frames = [(truth, strip((CAR, 5 if n < 7 else 6), (ROAD, -1))) for n in range(10)]
    result = measured(*frames)
    assert result["idf1"] == pytest.approx(7 / 10)  # 2 * 7 / (10 + 10)
    assert (result["switches"], result["recall"]) == (1, 1)


def test_coming_back_with_the_old_number_is_a_switch_too():
    truth = strip((CAR, 1))
    frames = [(truth, strip((CAR, n))) for n in (5, 6, 5, 5)]
    result = measured(*frames)
    assert (result["switches"], result["idf1"]) == (2, 0.75)


def test_identities_exchange():
    """Two cars for six frames, their numbers exchanged in the last two: 8 of 12 are right."""
    truth = strip((CAR, 1), (CAR, 2))
    kept, exchanged = strip((CAR, 5), (CAR, 6)), strip((CAR, 6), (CAR, 5))
    result = measured(*[(truth, kept)] * 4, *[(truth, exchanged)] * 2)
    assert (result["switches"], result["idf1"]) == (2, pytest.approx(8 / 12))


def test_missed_and_invented():
    """Found in 3 of 4 frames, and somebody who is not there in 2."""
    truth = strip((CAR, 1), (ROAD, -1), (ROAD, -1))
    found = strip((CAR, 5), (ROAD, -1), (ROAD, -1))
    more = strip((CAR, 5), (CAR, 6), (ROAD, -1))
    nothing = strip((ROAD, -1), (ROAD, -1), (ROAD, -1))
    result = measured((truth, found), (truth, more), (truth, nothing), (truth, more))
    assert result["idf1"] == pytest.approx(2 * 3 / (4 + 5))
    assert (result["recall"], result["switches"]) == (0.75, 0)


def test_what_is_seen_in_void_does_not_count():
    truth = strip((CAR, 1), None, (ROAD, -1))
    predicted = strip((CAR, 5), (PERSON, 6), (ROAD, -1))
    result = measured(*[(truth, predicted)] * 15)
    assert result["idf1"] == 1 and result["vpq"] == 1


def test_the_class_must_be_right():
    assert measured((strip((CAR, 1)), strip((PERSON, 1))))["idf1"] == 0


def test_drives_have_nothing_to_do_with_each_other():
    quality = TrackQuality()
    for number in (5, 6):
        quality.begin()
        for _ in range(3):
            quality.add(strip((CAR, 1)), strip((CAR, number)))
    assert quality.result()["switches"] == 0 and quality.result()["idf1"] == 1


def test_quality_of_a_tube_by_hand():
    """A car of 4 pixels in two frames, seen whole, then half of it beside 4 of the road."""
    truth = strip((CAR, 1), (ROAD, -1), (ROAD, -1))
    first, second = (
        Shown(np.array([row]), {10: CAR, 11: ROAD}, {10: 5})
        for row in ([10] * 4 + [11] * 8, [10] * 2 + [11] * 10)
    )
    quality = TrackQuality()
    quality.begin()
    quality.add(truth, first)
    quality.add(truth, second)
    # Of the tubes: car 6 of 8 pixels, road 16 of 18.
    assert quality.video_quality(2) == pytest.approx((6 / 8 + 16 / 18) / 2)
    # Of the frames: the half is not above 0.5, so it is false and missed; road 8 of 10.
    assert quality.video_quality(1) == pytest.approx((1 / 2 + (1 + 8 / 10) / 2) / 2)


@pytest.mark.parametrize("span", [1, 3])
def test_quality_of_tubes_is_that_of_stacked_frames(span):
    rng = np.random.default_rng(span)
    quality, truths, guesses = TrackQuality(), [], []
    quality.begin()
    # Value = class * 16 + track, so that stacked frames are an image of tubes.
    for _ in range(5):
        things = rng.choice([0, 16, 33, 34, 49, 50], (6, 8))
        truth = np.kron(things, np.ones((3, 3), int))
        guess = np.where(rng.random(truth.shape) < 0.85, truth, 16)
        guess = np.where(guess == 33, rng.choice([33, 35]), guess)
        guess[guess == 0] = rng.choice([0, 36])
        for image, shown in ((truth, truths), (guess, guesses)):
            values = [int(v) for v in np.unique(image) if v]
            tracks = {v: v for v in values if v >= 32}
            shown.append(Shown(image, {v: v // 16 for v in values}, tracks))
        quality.add(truths[-1], guesses[-1])
    expected = PanopticQuality(CATEGORIES)
    for start in range(5 - span + 1):
        maps = []
        for shown in (truths, guesses):
            stacked = np.concatenate([s.values for s in shown[start : start + span]])
            ids = np.setdiff1d(np.unique(stacked), [0])
            maps += [stacked, SegmentTable(ids, ids // 16, np.zeros(len(ids), bool))]
        expected.add(*maps)
    assert quality.video_quality(span) == pytest.approx(expected.result()["All"]["pq"])


def test_identities_equal_those_of_motmetrics():
    """An independent implementation, where it is installed."""
    motmetrics = pytest.importorskip("motmetrics", reason="motmetrics is not installed")
    rng = np.random.default_rng(0)
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    quality = TrackQuality()
    quality.begin()
    numbers = {t: 100 + t for t in range(12)}
    for _ in range(60):
        seen = [t for t in range(12) if rng.random() < 0.8]
        if rng.random() < 0.4:  # two exchange their numbers, one gets a new one
            a, b, c = rng.choice(12, 3, replace=False)
            numbers[a], numbers[b], numbers[c] = numbers[b], numbers[a], 100 + rng.integers(900)
        found = {t: numbers[t] for t in seen if rng.random() < 0.7}
        found = {t: n for t, n in found.items() if list(found.values()).count(n) == 1}
        invented = {t: 2000 + t for t in range(12) if t not in seen and rng.random() < 0.3}
        shown = {**found, **invented}
        truth = strip(*((CAR, t) if t in seen else (ROAD, -1) for t in range(12)))
        guess = strip(*((CAR, shown[t]) if t in shown else (ROAD, -1) for t in range(12)))
        quality.add(truth, guess)
        distances = [[0.0 if t == other else np.nan for other in shown] for t in seen]
        accumulator.update(seen, list(shown.values()), distances)
    summary = motmetrics.metrics.create().compute(
        accumulator, metrics=["idf1", "num_switches", "recall"]
    )
    result = quality.result()
    assert result["idf1"] == pytest.approx(summary["idf1"].iloc[0])
    assert result["switches"] == summary["num_switches"].iloc[0] > 10
    assert result["recall"] == pytest.approx(summary["recall"].iloc[0])
