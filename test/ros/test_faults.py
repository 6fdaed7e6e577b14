"""Faults while images come: every frame ends in one counter, and the next ones are served."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Image

from campaigns.faults import on_small_disk
from panoptic_ros.ros.frame_statistics import CameraStatistics
from test.ros.peers import environment, image_message, picture, stamp_message, stamp_of

ENDS = [name for name in CameraStatistics.COUNTERS if name != "received"]


def counters(values):
    return {name: int(values[name]) for name in CameraStatistics.COUNTERS}


def check_sum(peer, name="panoptic"):
    """Wait until all that came has ended; returns the counters."""

    def adds_up(report):
        counts = counters(report[f"{name}: camera"])
        return counts["received"] and sum(counts[end] for end in ENDS) == counts["received"]

    return counters(peer.wait_for_diagnostics(adds_up)[f"{name}: camera"])


def serve(peer, camera, labels, stamp):
    """Publish until the labels of an image of this stamp or later come."""
    peer.feed(
        camera,
        lambda number: image_message(picture(), stamp=stamp + number),
        lambda: any(stamp_of(message) >= stamp for message in labels),
    )


@pytest.fixture
def session(start_node, peer):
    node = start_node(parameters={"model": "blobs slow=0.01"})
    labels = peer.listen(Image, "labels")
    camera = peer.camera()
    serve(peer, camera, labels, 1.0)
    return node, camera, labels


def test_stopped_and_continued(session, peer):
    node, camera, labels = session
    node.process.send_signal(signal.SIGSTOP)
    for number in range(20):
        camera.publish(image_message(picture(), stamp=100.0 + number))
        peer.spin_for(0.02)
    node.process.send_signal(signal.SIGCONT)
    serve(peer, camera, labels, 200.0)
    check_sum(peer)


LISTENER = """
import sys
import rclpy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("listener")
node.create_subscription(Image, sys.argv[1], lambda message: print("got", flush=True), 1)
rclpy.spin(node)
"""


@pytest.fixture
def listener(tmp_path):
    """A process that listens to the labels; it has got some when the test begins to use it."""
    with (tmp_path / "listener.log").open("wb") as log:
        command = [sys.executable, "-c", LISTENER, "/panoptic/labels"]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment())
    yield process, lambda: (tmp_path / "listener.log").read_text().count("got")
    process.kill()
    process.wait()


def test_a_subscriber_that_stalls(session, peer, listener):
    """It is stopped for 150 label images of 0.6 MB: 90 MB that nobody may keep."""
    node, camera, labels = session
    process, received = listener
    large = np.repeat(np.repeat(picture(), 10, 0), 10, 1)
    peer.feed(
        camera, lambda number: image_message(large, stamp=1000.0 + number), lambda: received() > 5
    )
    process.send_signal(signal.SIGSTOP)
    before = node.resident_kib()
    labels.clear()
    stamps = iter(range(2000, 10_000))
    message = image_message(large)
    while len(labels) < 150:
        camera.publish(stamp_message(message, float(next(stamps))))
        peer.spin_for(0.01)
    assert node.resident_kib() - before < 30_000
    seen = received()
    process.send_signal(signal.SIGCONT)
    peer.feed(
        camera,
        lambda number: image_message(large, stamp=20_000.0 + number),
        lambda: received() > seen + 5,
    )
    check_sum(peer)


def test_time_that_jumps(session, peer):
    _, camera, labels = session
    peer.set_parameters(max_rate=50.0)
    for base in (5000.0, 10.0, 2e9, 1.0):
        labels.clear()
        peer.feed(
            camera,
            lambda number, base=base: image_message(picture(), stamp=base + 0.1 * number),
            lambda base=base: any(base <= stamp_of(m) < base + 100 for m in labels),
        )
    check_sum(peer)


def test_out_of_memory_in_the_network(session, peer):
    _, camera, labels = session
    assert peer.set_parameters(model="blobs fails") == ""
    peer.feed(
        camera,
        lambda number: image_message(picture(), stamp=300.0 + number),
        lambda: _failed(peer),
    )
    assert peer.set_parameters(model="blobs") == ""
    labels.clear()
    serve(peer, camera, labels, 400.0)
    assert check_sum(peer)["failed"] > 0


def _failed(peer):
    reports = peer.listen(DiagnosticArray, "/diagnostics")
    peer.spin_for(1.2)
    return any(
        pair.key == "failed" and int(pair.value)
        for report in reports
        for status in report.status
        for pair in status.values
    )


def test_fifty_models_and_resolutions_under_load(session, peer):
    _, camera, labels = session
    for number in range(50):
        camera.publish(image_message(picture(), stamp=500.0 + number))
        changed = (
            {"model": f"blobs {number}"} if number % 2 else {"resolution": f"64x{64 + number}"}
        )
        assert peer.set_parameters(**changed) == ""
    labels.clear()
    serve(peer, camera, labels, 600.0)
    check_sum(peer)


def test_two_nodes_beside_each_other(session, peer, start_node):
    _, camera, labels = session
    start_node(parameters={"model": "blobs"}, arguments=("-r", "__node:=second"))
    others = peer.listen(Image, "/second/labels")
    serve(peer, camera, others, 700.0)
    labels.clear()
    serve(peer, camera, labels, 800.0)
    check_sum(peer)
    check_sum(peer, "second")


@pytest.mark.parametrize("read_only", [False, True], ids=["full", "read-only"])
def test_a_disk_that_takes_nothing(start_node, peer, monkeypatch, tmp_path, read_only):
    """The cache of engines is on it, and home; a model is loaded, and another one later.

    The log is, too, but not on the read-only disk: ROS starts nothing without a place for it.
    """

    def use(folder):
        for variable in ("PANOPTIC_ROS_CACHE_DIR", "ROS_LOG_DIR", "HOME"):
            monkeypatch.setenv(variable, str(folder / variable))
        if read_only:
            monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path))
        settings = {"model": "fpsnet_small", "engine": "openvino", "device": "cpu"}
        module = "panoptic_ros.ros.node"
        node = start_node(module=module, parameters={**settings, "resolution": "64x128"})
        peer.wait_for_state("active")
        labels = peer.listen(Image, "labels")
        camera = peer.camera()
        serve(peer, camera, labels, 1.0)
        assert peer.set_parameters(resolution="96x128") == ""
        node.wait_for_log("in service: 96x128")
        labels.clear()
        serve(peer, camera, labels, 1000.0)
        assert check_sum(peer)["failed"] == 0
        node.stop()
        assert not list(folder.rglob("*.engine"))

    if not on_small_disk(64 << 10, read_only, use):
        pytest.skip("only root can mount a small disk")
