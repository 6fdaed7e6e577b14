"""One segmenter in service, another loading beside it."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from panoptic_ros.ros.model_service import LoadError, ModelService
from panoptic_ros.ros.parameters import Parameters
from test.ros.blobs import check_blobs, load_blobs

PATIENCE = 10.0  # seconds
FIRST = Parameters(model="blobs first")
SECOND = replace(FIRST, model="blobs second")
THIRD = replace(FIRST, model="blobs third")
BROKEN = replace(FIRST, model="blobs broken")


class Bench:
    """A ModelService whose loading stands still until ``release``."""

    def __init__(self):
        self.loaded = []
        self._released = threading.Semaphore(0)
        self._ended = threading.Semaphore(0)
        self.service = ModelService(self._load, check_blobs, self._ended.release)
        self._released.release()
        self.service.load_now(FIRST)

    def _load(self, parameters):
        assert self._released.acquire(timeout=PATIENCE)
        self.loaded.append(parameters.model)
        return load_blobs(parameters)

    def release(self):
        self._released.release()

    def wait_for_end(self):
        assert self._ended.acquire(timeout=PATIENCE)


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    for _ in range(10):
        bench.release()
    bench.service.close()


def test_thresholds_change_at_once_and_back(bench):
    assert bench.service.segmenter.options.score_threshold == 0.6
    assert not bench.service.follow(replace(FIRST, score_threshold=0.9, stuff_area_limit=5))
    assert bench.service.segmenter.options.score_threshold == 0.9
    assert bench.service.segmenter.options.stuff_area_limit == 5
    bench.service.follow(FIRST)  # -1: the model's own again
    assert bench.service.segmenter.options.score_threshold == 0.6


def test_the_old_one_serves_until_the_new_one_is_there(bench):
    assert bench.service.follow(SECOND)
    assert bench.service.loading == "blobs second"
    assert not bench.service.finish(SECOND)
    assert bench.service.segmenter.name == "blobs first"
    bench.release()
    bench.wait_for_end()
    # A threshold set while it was loading holds for the new one too.
    assert bench.service.finish(replace(SECOND, score_threshold=0.8))
    assert bench.service.segmenter.name == "blobs second"
    assert bench.service.segmenter.options.score_threshold == 0.8
    assert bench.service.loading == ""
    assert not bench.service.finish(SECOND)


def test_resolution_device_engine_and_precision_load_too(bench):
    for change in (
        {"resolution": "32x64"},
        {"device": "cuda:1"},
        {"engine": "eager"},
        {"precision": "fp16"},
    ):
        assert bench.service.follow(replace(FIRST, **change)), change
    for change in ({"lazy": False}, {"max_rate": 3.0}):
        assert not bench.service.follow(
            replace(FIRST, precision="fp16", device="auto", **change)
        ), change


def test_one_that_cannot_be_loaded_leaves_the_old_one(bench):
    bench.service.follow(BROKEN)
    bench.release()
    bench.wait_for_end()
    with pytest.raises(LoadError, match=r"blobs broken is damaged; blobs first stays") as caught:
        bench.service.finish(BROKEN)
    assert caught.value.serving == FIRST
    assert bench.service.segmenter.name == "blobs first"
    # Taking the request back loads nothing.
    assert not bench.service.follow(FIRST)


def test_only_the_newest_request_counts(bench):
    bench.service.follow(SECOND)
    bench.service.follow(THIRD)
    for _ in range(2):
        bench.release()
        bench.wait_for_end()
    while not bench.service.finish(THIRD):
        bench.wait_for_end()
    assert bench.service.segmenter.name == "blobs third"


def test_going_back_to_the_one_in_service_cancels(bench):
    bench.service.follow(SECOND)
    assert not bench.service.follow(FIRST)
    assert bench.service.loading == ""
    bench.release()
    bench.wait_for_end()
    assert not bench.service.finish(FIRST)
    assert bench.service.segmenter.name == "blobs first"


def test_quick_checks_only_when_another_is_asked_for(bench):
    bench.service.check(FIRST)
    bench.service.check(SECOND)
    with pytest.raises(ValueError, match="no model 'nothing'"):
        bench.service.check(replace(FIRST, model="nothing"))


def test_dropped(bench):
    bench.service.follow(SECOND)
    bench.service.drop()
    assert bench.service.segmenter is None and bench.service.loading == ""
    assert not bench.service.follow(THIRD)
    bench.release()
    bench.wait_for_end()
    assert not bench.service.finish(THIRD)
