"""Tracks of the node in its own process, over DDS."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sensor_msgs.msg import Image

from panoptic_ros.msg import PanopticInstanceArray
from test.ros.peers import image_message, stamp_of


def crossing(number: int) -> np.ndarray:
    """A dark image in which one blob climbs and another one sinks: their labels change places."""
    image = np.full((96, 128, 3), 20, np.uint8)
    step = 2 * (number % 40)
    image[2 + step : 12 + step, 10:26] = 200
    image[84 - step : 94 - step, 90:106] = 240
    return image


def by_column(message: PanopticInstanceArray) -> dict[str, tuple[int, int, int]]:
    """Label, track and age of the left blob and of the right one."""
    return {
        "left" if i.center_x < 64 else "right": (i.id, i.track_id, i.track_age)
        for i in message.instances
    }


def listen(peer, camera: str = "") -> list:
    return peer.listen(PanopticInstanceArray, f"{camera}instances")


def send(peer, publisher, arrays: list, image: np.ndarray, stamp: float) -> PanopticInstanceArray:
    """Publish one image until its result comes, so that none is skipped."""
    message = image_message(image, stamp=stamp)
    peer.feed(publisher, lambda _: message, lambda: any(stamp_of(a) == stamp for a in arrays))
    return next(a for a in arrays if stamp_of(a) == stamp)


def test_tracks_stay_with_what_moves(start_node, peer):
    node = start_node(parameters={"model": "blobs", "tracking": True})
    arrays, camera = listen(peer), peer.camera()
    labels, tracks, ages = [], [], []
    for number in range(40):
        array = send(peer, camera, arrays, crossing(number), 100 + number / 10)
        seen = by_column(array)
        labels.append(seen["left"][0])
        tracks.append((seen["left"][1], seen["right"][1]))
        ages.append(seen["left"][2])
        for instance in array.instances:
            first = instance.first_seen
            assert (first.sec, first.nanosec) == (100, 0)
    assert len(set(labels)) == 2  # the number in the label image changed half way
    assert len(set(tracks)) == 1 and set(tracks[0]) == {1, 2}
    assert ages == sorted(ages) and ages[0] >= 1 and ages[-1] >= 40

    array = send(peer, camera, arrays, crossing(0), 50)  # the bag begins again
    assert {i.track_id for i in array.instances} == {3, 4}
    assert {i.track_age for i in array.instances} <= {1, 2}

    peer.set_parameters(model="blobs two")
    node.wait_for_log("model blobs two in service")
    array = send(peer, camera, arrays, crossing(0), 50.1)
    assert array.model == "blobs two"
    assert {i.track_id for i in array.instances} == {5, 6}

    peer.wait_for_diagnostics(lambda d: float(d["panoptic: model"]["track p50 (ms)"]) >= 0)


def test_off_at_first_and_switched_at_run_time(start_node, peer):
    start_node(parameters={"model": "blobs"})
    arrays, camera = listen(peer), peer.camera()
    array = send(peer, camera, arrays, crossing(0), 1)
    assert {(i.track_id, i.track_age, i.first_seen.sec) for i in array.instances} == {(0, 0, 0)}
    assert peer.set_parameters(tracking=True) == ""
    array = send(peer, camera, arrays, crossing(0), 1.1)
    assert {i.track_id for i in array.instances} == {1, 2}
    assert peer.set_parameters(tracking=False) == ""
    array = send(peer, camera, arrays, crossing(0), 1.2)
    assert {i.track_id for i in array.instances} == {0}
    assert peer.set_parameters(tracking=True) == ""
    array = send(peer, camera, arrays, crossing(0), 11.1)
    assert {i.track_id for i in array.instances} == {3, 4}, "given again within 10 s"


def test_every_camera_has_its_own_tracks(start_node, peer):
    start_node(
        parameters={"model": "blobs", "tracking": True, "cameras": "[front, left]"},
    )
    for name, stamp in (("front", 5.0), ("left", 3.0)):
        arrays, camera = listen(peer, f"{name}/"), peer.camera(topic=f"/{name}/image")
        for number in range(3):
            array = send(peer, camera, arrays, crossing(number), stamp + number / 10)
            assert {i.track_id for i in array.instances} == {1, 2}


def test_detections_carry_the_track(start_node, peer):
    vision_msgs = pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed")
    start_node(parameters={"model": "blobs", "tracking": True})
    detections = peer.listen(vision_msgs.Detection2DArray, "detections")
    message = image_message(crossing(0))
    peer.feed(peer.camera(Image), lambda _: message, lambda: detections)
    assert {d.id for d in detections[0].detections} == {"1", "2"}


def test_without_tracking_scipy_is_not_even_imported():
    code = "import sys, panoptic_ros.ros.node; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
