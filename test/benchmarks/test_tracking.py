"""The drives on which tracks are measured: their truth is exact, and scores as such."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from benchmarks.track_quality import TrackQuality
from benchmarks.tracking import (
    SMALLEST,
    NoAssociation,
    Run,
    cost,
    make_tracker,
    moments,
    truth_as_prediction,
)
from panoptic_ros.data.categories import load_categories
from panoptic_ros.prediction import Track

CATEGORIES = load_categories("camvid")
FRAMES = moments(seed=3, frames=6)


def see(moment):
    return truth_as_prediction(moment, CATEGORIES, random.Random(0), missing=0.0)


class Oracle:
    """Knows who is who: it counts the frames and looks the truth up."""

    def __init__(self):
        self.frame = -1

    def __call__(self, prediction, stamp):
        self.frame += 1
        ids = FRAMES[self.frame].ids
        tracks = {
            s.id: Track(int(ids[prediction.labels == s.id][0]), 1, 0) for s in prediction.instances
        }
        return replace(prediction, tracks=tracks)


def test_the_truth_as_a_prediction_is_the_truth():
    for moment in FRAMES:
        prediction = see(moment)
        assert len(prediction.segments) == len(moment.segments)
        for segment in prediction.segments:
            (identity,) = np.unique(moment.ids[prediction.labels == segment.id])
            assert np.array_equal(moment.ids == identity, prediction.labels == segment.id)
            (listed,) = (s for s in moment.segments if s["id"] == identity)
            assert (segment.class_id, segment.area) == (listed["category_id"], listed["area"])
            assert not segment.is_thing or segment.area >= SMALLEST


def test_who_knows_all_has_everything_right_and_who_knows_nothing_has_not():
    makers = {"all": Oracle, "nothing": NoAssociation, "tracker": make_tracker}
    run = Run("truth", see, {name: TrackQuality() for name in makers})
    run.drive(FRAMES, makers)
    results = {name: quality.result() for name, quality in run.qualities.items()}
    perfect = {name: results["all"][name] for name in ("idf1", "switches", "recall")}
    assert perfect == {"idf1": 1, "switches": 0, "recall": 1}
    assert [run.qualities["all"].video_quality(span) for span in (1, 5)] == [1, 1]
    assert results["nothing"]["idf1"] < results["tracker"]["idf1"] <= 1
    assert results["nothing"]["switches"] > results["tracker"]["switches"]


def test_missing_things_are_missing():
    rng = random.Random(1)
    seen = [len(truth_as_prediction(m, CATEGORIES, rng, 1.0).instances) for m in FRAMES]
    assert seen == [0] * len(FRAMES)


def test_the_cost_is_that_of_updates():
    assert 0 < cost(9, (60, 80), frames=3) < 1000
