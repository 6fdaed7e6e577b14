"""A batch of frames in this process: one call for all cameras; a bad image spoils no other."""

from __future__ import annotations

import array
import threading
import time
from dataclasses import replace

import cv2
import pytest
import rclpy
from sensor_msgs.msg import CompressedImage

from panoptic_ros.ros.frame_statistics import CameraStatistics
from panoptic_ros.ros.parameters import Parameters
from panoptic_ros.ros.pipeline import Camera, Pipeline
from panoptic_ros.ros.worker import Frame
from test.ros.blobs import BlobSegmenter
from test.ros.peers import PATIENCE, image_message, picture, stamp_of, wait_until


class Outputs:
    """Stands for CameraOutputs: remembers what is published."""

    def __init__(self):
        self.published = []
        self.listeners = 1
        self.shows_image = False
        self.fails = False

    def wanted(self):
        return self.listeners > 0

    def wants_image(self):
        return self.shows_image

    def wants_confidence(self):
        return False

    def publish(self, header, image, prediction, model, inference_time, overlay_opacity):
        if self.fails:
            raise OSError("nowhere to put it")
        self.published.append((header, prediction))
        self.image = image


class Fussy(BlobSegmenter):
    """Fails on every batch that holds an image of one width."""

    def __call__(self, images, output_sizes, confidence):
        self.fails = any(image.shape[1] == 99 for image in images)
        return super().__call__(images, output_sizes, confidence)


@pytest.fixture
def bench():
    return Bench()


class Bench:
    def __init__(self):
        self.parameters = Parameters(cameras=("left", "right"))
        self.segmenter = Fussy("fussy")
        self.listeners, self.trackers = [], {}
        self.cameras = {n: Camera(Outputs(), CameraStatistics()) for n in ("left", "right")}
        context = rclpy.Context()
        rclpy.init(context=context)
        self.node = rclpy.create_node("bench", context=context)
        self.errors: list[str] = []
        self.pipeline = Pipeline(
            self.node,
            self.cameras,
            self,  # has what a Service has
            self.errors.append,
        )

    def process(self, **images):
        """Process a batch and wait until each of its frames has met its fate."""
        now, before = time.monotonic(), self.total()
        self.pipeline.process([Frame(name, message, now) for name, message in images.items()])
        wait_until(lambda: self.total() == before + len(images), lambda: "the fate of all frames")

    def total(self):
        return sum(sum(self.counts(name).values()) for name in self.cameras)

    def counts(self, camera):
        return {k: v for k, v in self.cameras[camera].statistics.counts().items() if v}


def test_one_call_for_all_cameras(bench):
    bench.process(
        left=image_message(picture(), stamp=1.0), right=image_message(picture(30, 40), stamp=2.0)
    )
    assert bench.segmenter.batches == [2]
    for name, stamp, shape in (("left", 1.0, (48, 64)), ("right", 2.0, (30, 40))):
        ((header, prediction),) = bench.cameras[name].outputs.published
        assert header.stamp.sec == stamp and prediction.labels.shape == shape
        assert bench.counts(name) == {"published": 1}
    wait_until(lambda: "total" in bench.pipeline.stages.latest(), lambda: "the times")
    assert set(bench.pipeline.stages.latest()) == {
        "batch of 2",
        "wait",
        "convert",
        "segment",
        "publish",
        "total",
    }


def test_a_listener_that_raises_costs_nothing_else(bench):
    heard = []
    bench.listeners = [lambda *_: 1 / 0, lambda camera, *_: heard.append(camera)]
    bench.process(left=image_message(picture()))
    wait_until(lambda: heard, lambda: "the second listener")
    assert bench.counts("left") == {"published": 1}
    (error,) = bench.errors
    assert error.startswith("a listener failed: ") and "ZeroDivisionError" in error


@pytest.mark.parametrize("tracking", [False, True])
def test_a_stamp_that_is_no_time_costs_nothing(bench, tracking):
    bench.parameters = replace(bench.parameters, tracking=tracking)
    message = image_message(picture())
    message.header.stamp.sec = -1
    bench.process(left=message)
    assert bench.counts("left") == {"published": 1}
    assert bench.errors == []


def test_an_image_that_is_refused_does_not_hold_the_others_up(bench):
    bench.process(left=image_message(picture(), encoding="32FC1"), right=image_message(picture()))
    assert bench.counts("left") == {"refused": 1}
    assert "32FC1" in bench.cameras["left"].statistics.refusal
    assert bench.counts("right") == {"published": 1}


def test_an_image_that_cannot_be_segmented_does_not_hold_the_others_up(bench):
    bench.process(left=image_message(picture(48, 99)), right=image_message(picture()))
    assert bench.segmenter.batches == [2, 1, 1]
    assert bench.counts("left") == {"failed": 1}
    assert bench.counts("right") == {"published": 1}
    assert bench.pipeline.failure == "out of memory"
    bench.process(left=image_message(picture(48, 99)))
    assert bench.pipeline.failure == "out of memory"
    bench.process(left=image_message(picture()))
    assert bench.pipeline.failure == ""
    assert bench.counts("left") == {"failed": 2, "published": 1}


def test_only_cameras_with_listeners_are_segmented(bench):
    bench.cameras["left"].outputs.listeners = 0
    bench.process(left=image_message(picture()), right=image_message(picture()))
    assert bench.segmenter.batches == [1]
    assert bench.counts("left") == {"unheard": 1}
    bench.parameters = replace(bench.parameters, lazy=False)
    bench.process(left=image_message(picture()))
    assert bench.counts("left") == {"unheard": 1, "published": 1}


def test_age_is_measured_from_the_stamp(bench):
    message = image_message(picture(), stamp=time.time() - 3)
    bench.process(left=message)
    (age,) = bench.cameras["left"].statistics.ages()
    assert age == pytest.approx(time.time() - stamp_of(message), abs=0.5)


def test_a_result_that_cannot_be_published_does_not_hold_the_others_up(bench):
    bench.cameras["left"].outputs.fails = True
    bench.process(left=image_message(picture()), right=image_message(picture()))
    assert bench.counts("left") == {"failed": 1}
    assert bench.counts("right") == {"published": 1}
    wait_until(lambda: bench.errors, lambda: "the report")
    assert "nowhere to put it" in bench.errors[0]


def test_next_frames_are_segmented_while_the_last_are_published(bench):
    class Slow(Outputs):
        def publish(self, *arguments):
            assert self.go_on.wait(PATIENCE)
            super().publish(*arguments)

    slow = Slow()
    slow.go_on = threading.Event()
    bench.cameras["left"] = replace(bench.cameras["left"], outputs=slow)

    def frame(stamp):
        return [Frame("left", image_message(picture(), stamp=stamp), time.monotonic())]

    bench.pipeline.process(frame(1.0))  # returns, though it is not published
    rest = threading.Thread(target=lambda: [bench.pipeline.process(frame(s)) for s in (2.0, 3.0)])
    rest.start()
    wait_until(lambda: bench.segmenter.batches == [1, 1], lambda: "the second batch")
    assert slow.published == []
    rest.join(0.1)
    assert bench.segmenter.batches == [1, 1] and rest.is_alive()  # results never queue up
    slow.go_on.set()
    rest.join(PATIENCE)
    bench.pipeline.stop()  # waits for the last one
    assert [header.stamp.sec for header, _ in slow.published] == [1, 2, 3]
    assert bench.counts("left") == {"published": 3}


def test_frames_that_wait_are_dropped_and_later_ones_processed(bench):
    message = image_message(picture())
    first = Frame("left", message, time.monotonic())
    assert bench.pipeline.offer(first) is None
    assert bench.pipeline.offer(replace(first)) is first  # a newer one of its camera
    assert bench.pipeline.offer(replace(first, camera="right")) is None
    bench.pipeline.discard()
    assert bench.counts("left") == bench.counts("right") == {"dropped": 1}
    bench.pipeline.start()
    bench.pipeline.offer(first)
    wait_until(lambda: bench.total() == 3, lambda: "the frame that came later")
    bench.pipeline.stop()
    assert bench.counts("left") == {"dropped": 1, "published": 1}
    assert bench.segmenter.batches == [1]


def test_jpeg_is_decoded_at_a_fraction_unless_its_image_is_shown(bench):
    pytest.importorskip("simplejpeg", reason="simplejpeg is not installed")
    _, data = cv2.imencode(".jpg", cv2.resize(picture(), (512, 384)))
    message = CompressedImage(format="jpeg", data=array.array("B", data.tobytes()))
    bench.process(left=message)
    assert bench.segmenter.fit((384, 512)) == (64, 85)
    assert bench.segmenter.seen == [(96, 128)]
    bench.cameras["left"].outputs.shows_image = True
    bench.process(left=message)
    assert bench.segmenter.seen == [(96, 128), (384, 512)]
    assert bench.cameras["left"].outputs.image.shape == (384, 512, 3)
    (_, small), (_, whole) = bench.cameras["left"].outputs.published
    assert small.labels.shape == whole.labels.shape == (384, 512)
    assert (small.labels == whole.labels).mean() > 0.98
    assert len(small.instances) == len(whole.instances) == 1


class Careless(BlobSegmenter):
    """Forgets the last image of a batch."""

    def __call__(self, images, output_sizes, confidence):
        return super().__call__(images, output_sizes, confidence)[:-1]


def test_frames_that_an_exception_leaves_behind_have_failed(bench):
    bench.segmenter = Careless("careless")
    bench.pipeline.start()
    now = time.monotonic()
    bench.pipeline.offer(Frame("left", image_message(picture()), now))
    wait_until(lambda: bench.total() == 1, lambda: "the fate of the frame")
    assert bench.counts("left") == {"failed": 1}
    assert "zip" in bench.errors[0]
    bench.segmenter = BlobSegmenter("good")
    bench.pipeline.offer(Frame("left", image_message(picture()), now))
    wait_until(lambda: bench.total() == 2, lambda: "the next frame")
    bench.pipeline.stop()
    assert bench.counts("left") == {"failed": 1, "published": 1}


def test_what_is_published_has_not_failed_as_well(bench):
    def broken_clock():
        raise RuntimeError("no time")

    bench.node.get_clock = broken_clock  # asked for the age, after publishing
    bench.process(left=image_message(picture()))
    wait_until(lambda: bench.errors, lambda: "the error")
    assert "no time" in bench.errors[0]
    assert bench.counts("left") == {"published": 1}


def test_frames_that_wait_at_the_end_are_dropped(bench):
    now = time.monotonic()
    bench.pipeline.offer(Frame("left", image_message(picture()), now))
    bench.pipeline.offer(Frame("right", image_message(picture()), now))
    bench.pipeline.stop()  # the worker was never started
    assert bench.counts("left") == bench.counts("right") == {"dropped": 1}
