"""Tracks over label images made by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from panoptic_ros.prediction import Category, PanopticPrediction, Segment
from panoptic_ros.tracking import Tracker
from panoptic_ros.tracking.tracker import MAX_LOST, MAX_NUMBER

CAR, PERSON = 2, 3
CATEGORIES = (
    Category(1, "road", False, (128, 64, 128)),
    Category(CAR, "car", True, (0, 0, 142)),
    Category(PERSON, "person", True, (220, 20, 60)),
)
TENTH = 100_000_000  # nanoseconds


def scene(*boxes, size=(60, 120)) -> PanopticPrediction:
    """Boxes (class, x, y, width, height), the later ones in front; numbered in this order."""
    labels = np.full(size, 256, np.uint16)
    for index, (class_id, x, y, width, height) in enumerate(boxes):
        labels[max(y, 0) : y + height, max(x, 0) : x + width] = class_id * 256 + index + 1
    segments = []
    for index, (class_id, *_) in enumerate(boxes):
        label = class_id * 256 + index + 1
        rows, columns = np.nonzero(labels == label)
        if len(rows):
            x, y = int(columns.min()), int(rows.min())
            box = (x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1)
            center = (float(columns.mean()), float(rows.mean()))
            name = CATEGORIES[class_id - 1].name
            segments.append(Segment(label, class_id, name, True, 0.9, len(rows), box, center))
    return PanopticPrediction(labels, tuple(segments), CATEGORIES)


def numbers(tracked: PanopticPrediction) -> dict[int, int]:
    """The number of each track by the place of its box in the scene."""
    assert set(tracked.tracks) == {s.id for s in tracked.instances}
    return {label % 256 - 1: track.number for label, track in tracked.tracks.items()}


def test_a_moving_thing_keeps_its_number_and_grows_older():
    tracker = Tracker()
    for frame in range(10):
        stamp = 7 * TENTH + frame * TENTH
        tracked = tracker.update(scene((CAR, 5 + 6 * frame, 20, 16, 10)), stamp)
        (track,) = tracked.tracks.values()
        assert (track.number, track.age, track.first_seen) == (1, frame + 1, 7 * TENTH)


def test_the_rest_of_the_prediction_stays():
    prediction = scene((CAR, 5, 20, 16, 10))
    tracked = Tracker().update(prediction, 0)
    assert tracked.labels is prediction.labels and tracked.segments is prediction.segments
    assert not prediction.tracks


def test_numbers_follow_things_not_the_order_in_which_they_are_listed():
    tracker = Tracker()
    boxes = [(CAR, 5, 5, 16, 10), (CAR, 60, 5, 16, 10), (PERSON, 40, 30, 6, 20)]
    assert numbers(tracker.update(scene(*boxes), 0)) == {0: 1, 1: 2, 2: 3}
    assert numbers(tracker.update(scene(*boxes[::-1]), TENTH)) == {0: 3, 1: 2, 2: 1}


def test_things_that_jump_over_their_own_length_are_followed_by_their_velocity():
    tracker = Tracker()
    places = [4, 12, 26, 42, 58, 74]  # from 12 on no two masks overlap
    for frame, x in enumerate(places):
        tracked = tracker.update(scene((PERSON, x, 20, 10, 20)), frame * TENTH)
        assert numbers(tracked) == {0: 1}


def test_two_that_cross_keep_their_numbers():
    """The one in front hides the other one wholly in the middle; each goes on on its way."""
    tracker = Tracker()
    hidden = 0
    for frame in range(16):
        behind = (CAR, 10 + 8 * frame, 45, 30, 18)
        before = (CAR, 142 - 8 * frame, 40, 50, 30)
        prediction = scene(behind, before, size=(120, 240))
        seen = numbers(tracker.update(prediction, frame * TENTH))
        hidden += 0 not in seen
        assert seen == ({0: 1, 1: 2} if 0 in seen else {1: 2}), frame
    assert hidden == 1


def test_a_short_occlusion_does_not_end_a_track():
    tracker = Tracker()
    pillar = (CAR, 50, 0, 24, 60)
    ages = []
    for frame in range(20):
        walker = (PERSON, 10 + 5 * frame, 20, 8, 20)
        tracked = tracker.update(scene(walker, pillar), frame * TENTH)
        if (PERSON * 256 + 1) in tracked.tracks:
            track = tracked.tracks[PERSON * 256 + 1]
            assert track.number == 1
            ages.append(track.age)
    assert ages == list(range(1, len(ages) + 1)) and 14 <= len(ages) < 20


def test_what_comes_back_later_is_somebody_new():
    tracker = Tracker()
    standing = scene((PERSON, 40, 20, 8, 20))
    assert numbers(tracker.update(standing, 0)) == {0: 1}
    for frame in range(1, 12):
        tracker.update(scene(), frame * TENTH)
    tracked = tracker.update(standing, 12 * TENTH)
    assert numbers(tracked) == {0: 2}
    assert tracked.tracks[PERSON * 256 + 1].age == 1


def test_a_slow_camera_is_followed_as_well():
    """2 s between images is longer than anything stays out of sight, but nothing was missed."""
    tracker = Tracker()
    for frame in range(3):
        tracked = tracker.update(scene((CAR, 20 + frame, 20, 16, 10)), 20 * frame * TENTH)
        assert numbers(tracked) == {0: 1}


@pytest.mark.parametrize("jump", [-1, -20, 51], ids=["back", "far back", "pause"])
def test_after_a_jump_in_time_all_is_new(jump):
    tracker = Tracker()
    standing = scene((PERSON, 40, 20, 8, 20))
    tracker.update(standing, 100 * TENTH)
    assert numbers(tracker.update(standing, 101 * TENTH)) == {0: 1}
    tracked = tracker.update(standing, (101 + jump) * TENTH)
    assert numbers(tracked) == {0: 2}
    assert tracked.tracks[PERSON * 256 + 1].first_seen == (101 + jump) * TENTH
    assert numbers(tracker.update(standing, (102 + jump) * TENTH)) == {0: 2}


def test_another_model_begins_anew():
    tracker = Tracker()
    standing = scene((PERSON, 40, 20, 8, 20))
    assert numbers(tracker.update(standing, 0, "one")) == {0: 1}
    assert numbers(tracker.update(standing, TENTH, "one")) == {0: 1}
    assert numbers(tracker.update(standing, 2 * TENTH, "other")) == {0: 2}


def test_another_size_of_image_begins_anew():
    tracker = Tracker()
    box = (PERSON, 40, 20, 8, 20)
    assert numbers(tracker.update(scene(box), 0)) == {0: 1}
    assert numbers(tracker.update(scene(box, size=(80, 120)), TENTH)) == {0: 2}


def test_no_number_is_given_again_within_ten_seconds():
    """20 of 60 places are taken at random, five times a second, for 20 s."""
    tracker = Tracker()
    rng = np.random.default_rng(0)
    given = set()
    for frame in range(101):
        places = rng.permutation(60)[:20]
        boxes = [(CAR + i % 2, 10 * (p % 12), 12 * (p // 12), 8, 10) for i, p in enumerate(places)]
        tracked = tracker.update(scene(*boxes), frame * 2 * TENTH)
        for track in tracked.tracks.values():
            if track.age == 1:
                assert track.number not in given
                given.add(track.number)
    assert len(given) > 200


def test_numbers_begin_again_behind_the_largest_of_the_message():
    tracker = Tracker()
    tracker._last_number = MAX_NUMBER - 1
    seen = numbers(tracker.update(scene((CAR, 5, 5, 9, 9), (CAR, 50, 5, 9, 9)), 0))
    assert seen == {0: 2**32 - 1, 1: 1}


def test_the_class_may_be_mistaken_once():
    tracker = Tracker()
    place = (40, 20, 12, 20)
    for frame, class_id in enumerate((PERSON, PERSON, CAR, PERSON)):
        assert numbers(tracker.update(scene((class_id, *place)), frame * TENTH)) == {0: 1}


def test_the_same_class_is_preferred():
    """A rider who has been seen whole is now two things, one of them of her class."""
    tracker = Tracker()
    tracker.update(scene((PERSON, 40, 10, 20, 40)), 0)
    halves = scene((CAR, 40, 30, 20, 20), (PERSON, 40, 10, 20, 20))
    assert numbers(tracker.update(halves, TENTH)) == {0: 2, 1: 1}


def test_all_255_instances_of_a_class():
    tracker = Tracker()
    for frame in range(3):
        boxes = [(CAR, 8 * (i % 20) + frame, 8 * (i // 20) + 2, 5, 5) for i in range(255)]
        tracked = tracker.update(scene(*boxes, size=(120, 170)), frame * TENTH)
        assert numbers(tracked) == {i: i + 1 for i in range(255)}
        assert {track.age for track in tracked.tracks.values()} == {frame + 1}


def test_a_thing_between_the_samples_is_followed_by_its_box():
    """Of a full HD image every eighth pixel is looked at; this lamp has 3x3."""
    tracker = Tracker()
    for frame in range(4):
        tracked = tracker.update(
            scene((CAR, 801 + frame, 400, 3, 3), size=(1080, 1920)), frame * TENTH
        )
        assert numbers(tracked) == {0: 1}


def test_stamps_that_stand_still_do_no_harm():
    """Cameras without a clock; what is lost is never older, but it must not pile up."""
    tracker = Tracker()
    rng = np.random.default_rng(0)
    for frame in range(40):
        boxes = [(CAR, int(rng.integers(110)), int(rng.integers(50)), 4, 4) for _ in range(50)]
        tracker.update(scene(*boxes), 0)
        assert len(tracker._tracks) <= 50 + MAX_LOST, frame
    assert numbers(tracker.update(scene((PERSON, 40, 20, 8, 20)), 0)) == numbers(
        tracker.update(scene((PERSON, 41, 20, 8, 20)), 0)
    )


@pytest.mark.filterwarnings("error")
def test_stamps_a_nanosecond_apart_give_no_senseless_numbers():
    tracker = Tracker()
    for stamp in (0, 1, 2, TENTH, TENTH + 1, 2 * TENTH):
        tracked = tracker.update(scene((CAR, 40 + stamp % 7, 20, 16 + stamp % 5, 10)), stamp)
        assert len(tracked.tracks) == 1


def test_nothing_to_see():
    tracker = Tracker()
    assert tracker.update(scene(), 0).tracks == {}
    assert numbers(tracker.update(scene((CAR, 40, 20, 16, 10)), TENTH)) == {0: 1}
    assert tracker.update(scene(), 2 * TENTH).tracks == {}


def test_without_scipy_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ValueError, match="pip install scipy"):
        Tracker()
