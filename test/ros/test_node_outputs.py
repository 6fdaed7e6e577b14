"""What the node in its own process publishes for an image, over DDS."""

from __future__ import annotations

import array

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CompressedImage, Image

from panoptic_ros.msg import PanopticCategoryArray, PanopticInstanceArray
from panoptic_ros.ros.frame_statistics import CameraStatistics
from test.ros.blobs import BLOB, GROUND
from test.ros.peers import (
    BEST_EFFORT,
    LATCHED,
    RELIABLE,
    image_message,
    picture,
    pixels,
    stamp_message,
    stamp_of,
)

GROUND_LABEL, BLOB_LABEL = GROUND.id * 256, BLOB.id * 256 + 1


def numbered(number: int) -> Image:
    """An image whose blob stands at a place that depends on its stamp."""
    return image_message(picture(at=number % 30), stamp=100.25 + number, frame_id="front_optical")


def test_every_output_carries_the_header_and_size_of_its_image(start_node, peer):
    start_node(parameters={"model": "blobs"})
    outputs = {
        "labels": peer.listen(Image, "labels"),
        "semantic": peer.listen(Image, "semantic"),
        "overlay": peer.listen(Image, "overlay"),
        "instances": peer.listen(PanopticInstanceArray, "instances"),
    }
    peer.feed(peer.camera(), numbered, lambda: all(len(m) >= 5 for m in outputs.values()))
    for name, received in outputs.items():
        for message in received:
            assert message.header.frame_id == "front_optical", name
            assert (message.height, message.width) == (48, 64), name
            assert (stamp_of(message) - 100.25) == int(stamp_of(message) - 100.25), name
    for message in outputs["labels"]:
        at = int(stamp_of(message) - 100.25) % 30
        expected = np.full((48, 64), GROUND_LABEL, np.uint16)
        expected[at : at + 8, at : at + 12] = BLOB_LABEL
        np.testing.assert_array_equal(pixels(message), expected)
        assert message.encoding == "16UC1" and not message.is_bigendian
    for message in outputs["semantic"]:
        at = int(stamp_of(message) - 100.25) % 30
        assert message.encoding == "mono8"
        assert pixels(message)[at, at] == BLOB.id and pixels(message)[47, 63] == GROUND.id
    for message in outputs["overlay"]:
        assert message.encoding == "rgb8"
        # The colour of the ground shines through: 0.4 * 20 + 0.6 * (128, 64, 128)
        np.testing.assert_allclose(pixels(message)[47, 63], [84.8, 46.4, 84.8], atol=1)
    for message in outputs["instances"]:
        at = int(stamp_of(message) - 100.25) % 30
        (instance,) = message.instances
        assert message.label_divisor == 256 and message.model == "blobs"
        assert (instance.id, instance.class_id, instance.class_name) == (BLOB_LABEL, 26, "blob")
        assert instance.score == pytest.approx(200 / 255)
        assert instance.area == 96
        roi = instance.roi
        assert (roi.x_offset, roi.y_offset, roi.width, roi.height) == (at, at, 12, 8)
        assert (instance.center_x, instance.center_y) == (at + 5.5, at + 3.5)
        assert message.inference_time > 0 and message.overflow == 0


def test_empty_array_when_there_is_nothing(start_node, peer):
    start_node(parameters={"model": "blobs"})
    instances = peer.listen(PanopticInstanceArray, "instances")
    dark = image_message(picture(blob=20), stamp=7.5)
    peer.feed(peer.camera(), lambda _: dark, lambda: instances)
    assert len(instances[0].instances) == 0
    assert stamp_of(instances[0]) == 7.5 and instances[0].width == 64


def test_categories_reach_late_subscribers(start_node, peer):
    node = start_node(parameters={"model": "blobs"})
    node.wait_for_log("model blobs in service")
    tables = peer.listen(PanopticCategoryArray, "categories", LATCHED)
    peer.spin_until(lambda: tables, "the class table")
    assert [(c.id, c.name, c.is_thing, tuple(c.color)) for c in tables[0].categories] == [
        (c.id, c.name, c.is_thing, c.color) for c in (GROUND, BLOB)
    ]
    assert tables[0].model == "blobs" and tables[0].label_divisor == 256
    assert stamp_of(tables[0]) > 0


def test_vision_msgs(start_node, peer):
    vision_msgs = pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed")
    start_node(parameters={"model": "blobs"})
    detections = peer.listen(vision_msgs.Detection2DArray, "detections")
    label_info = peer.listen(vision_msgs.LabelInfo, "label_info", LATCHED)
    peer.feed(peer.camera(), numbered, lambda: detections and label_info)
    (detection,) = detections[0].detections
    assert detections[0].header.frame_id == "front_optical"
    assert detection.results[0].hypothesis.class_id == str(BLOB.id)
    assert (detection.bbox.size_x, detection.bbox.size_y) == (12.0, 8.0)
    assert {c.class_id: c.class_name for c in label_info[0].class_map} == {7: "ground", 26: "blob"}


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_compressed_images(start_node, peer, extension):
    start_node(
        parameters={"model": "blobs", "image_transport": "compressed"},
        arguments=("-r", "image:=/rig/front/image_raw"),
    )
    labels = peer.listen(Image, "labels")
    _, data = cv2.imencode(extension, picture(height=96, width=128)[..., ::-1])
    message = CompressedImage(format=extension[1:], data=array.array("B", data.tobytes()))
    stamp_message(message, 3.5)
    camera = peer.camera(CompressedImage, "/rig/front/image_raw/compressed")
    peer.feed(camera, lambda _: message, lambda: labels)
    assert stamp_of(labels[0]) == 3.5
    assert pixels(labels[0]).shape == (96, 128)
    assert pixels(labels[0])[14, 16] == BLOB_LABEL and pixels(labels[0])[80, 100] == GROUND_LABEL


def test_large_jpeg(start_node, peer):
    """Decoded at a fraction, its results are at its size, and so is its overlay."""
    start_node(parameters={"model": "blobs", "image_transport": "compressed"})
    labels = peer.listen(Image, "labels")
    image = cv2.resize(picture(), (640, 480), interpolation=cv2.INTER_NEAREST)
    _, data = cv2.imencode(".jpg", image)
    message = CompressedImage(format="jpeg", data=array.array("B", data.tobytes()))
    stamp_message(message, 3.5)
    camera = peer.camera(CompressedImage, "/image/compressed")
    peer.feed(camera, lambda _: message, lambda: labels)
    assert pixels(labels[0]).shape == (480, 640)
    assert (
        pixels(labels[0])[140, 160] == BLOB_LABEL and pixels(labels[0])[400, 500] == GROUND_LABEL
    )
    overlay = peer.listen(Image, "overlay")
    peer.feed(camera, lambda _: message, lambda: overlay)
    assert pixels(overlay[0]).shape == (480, 640, 3)
    np.testing.assert_allclose(pixels(overlay[0])[400, 500], [84.8, 46.4, 84.8], atol=2)


def test_cameras_with_slots_of_their_own(start_node, peer):
    start_node(parameters={"model": "blobs", "cameras": "[left, right, dead]"})
    labels = {name: peer.listen(Image, f"{name}/labels") for name in ("left", "right")}
    instances = peer.listen(PanopticInstanceArray, "right/instances")
    left, right = peer.camera(topic="/left/image"), peer.camera(topic="/right/image")

    def both(number: int) -> Image:
        right.publish(image_message(picture(60, 80, at=30), stamp=500.0 + number, frame_id="r"))
        return image_message(picture(at=10), stamp=200.0 + number, frame_id="l")

    peer.feed(left, both, lambda: labels["left"] and labels["right"] and instances)
    assert {m.header.frame_id for m in labels["left"]} == {"l"}
    assert {m.header.frame_id for m in labels["right"]} == {"r"}
    assert pixels(labels["left"][0]).shape == (48, 64)
    assert pixels(labels["right"][0]).shape == (60, 80)
    assert pixels(labels["right"][0])[34, 34] == BLOB_LABEL
    assert instances[0].instances[0].roi.x_offset == 30


def test_cameras_share_a_batch_and_a_dead_one_holds_nobody_up(start_node, peer):
    names = ("front", "left", "right", "rear")
    start_node(parameters={"model": "blobs slow=0.2", "cameras": f"[{', '.join(names)}]"})
    labels = {name: peer.listen(Image, f"{name}/labels") for name in names}
    cameras = {name: peer.camera(topic=f"/{name}/image") for name in names[:3]}

    def front_and_others(number: int) -> Image:
        for name in ("left", "right"):
            cameras[name].publish(numbered(number))
        return numbered(number)

    def all_alive() -> bool:
        return all(len(labels[name]) >= 4 for name in cameras)

    peer.feed(cameras["front"], front_and_others, all_alive)
    status = peer.wait_for_diagnostics(
        lambda s: (
            s["panoptic: model"]["batch of 3 p50 (ms)"]
            and all(int(s[f"panoptic: {name}"]["published"]) >= 4 for name in cameras)
        )
    )
    assert not any("batch of 4" in key for key in status["panoptic: model"])
    for name in names:
        assert status[f"panoptic: {name}"]["topic"] == f"/{name}/image"
    assert status["panoptic: rear"]["received"] == status["panoptic: rear"]["published"] == "0"
    assert status["panoptic: rear"]["publishers"] == "none" and not labels["rear"]
    for name in cameras:
        stamps = [stamp_of(message) for message in labels[name]]
        assert stamps == sorted(set(stamps))
    # One that nobody listens to any more holds nobody up, either.
    peer.leave("left/labels")
    peer.spin_until(lambda: not cameras["left"].get_subscription_count(), "the end of left")
    labels["front"].clear()
    peer.feed(cameras["front"], front_and_others, lambda: labels["front"])
    assert cameras["right"].get_subscription_count() == 1


@pytest.mark.parametrize("qos", [RELIABLE, BEST_EFFORT], ids=["reliable", "best_effort"])
def test_auto_reliability_follows_the_camera(start_node, peer, qos):
    node = start_node(parameters={"model": "blobs"})
    labels = peer.listen(Image, "labels")
    peer.feed(peer.camera(qos=qos), numbered, lambda: len(labels) >= 3)
    expected = qos.reliability.name.lower()
    peer.wait_for_diagnostics(lambda status: status["panoptic: camera"]["reliability"] == expected)
    assert f"subscribing to /image (Image, {expected}); publishers found: " in node.log()


def test_auto_reliability_is_decided_again_when_publishers_change(start_node, peer):
    start_node(parameters={"model": "blobs"})
    labels = peer.listen(Image, "labels")
    first = peer.camera(qos=RELIABLE)
    peer.feed(first, numbered, lambda: labels)
    peer.wait_for_diagnostics(lambda s: s["panoptic: camera"]["reliability"] == "reliable")
    peer.node.destroy_publisher(first)
    # A best-effort camera takes over: a reliable subscription would never hear it.
    second = peer.node.create_publisher(Image, "/image", BEST_EFFORT)
    labels.clear()
    peer.feed(second, numbered, lambda: labels)


def test_nothing_is_taken_for_nobody(start_node, peer):
    node = start_node(parameters={"model": "blobs"})
    camera = peer.node.create_publisher(Image, "/image", RELIABLE)

    def is_waiting(status):
        return "waiting for a subscriber" in status["panoptic: camera"]["message"]

    status = peer.wait_for_diagnostics(
        lambda status: (
            is_waiting(status) and "/peer (Image" in status["panoptic: camera"]["publishers"]
        )
    )
    assert status["panoptic: camera"]["level"] == DiagnosticStatus.OK
    assert camera.get_subscription_count() == 0
    semantic = peer.listen(Image, "semantic")
    peer.feed(camera, numbered, lambda: semantic)
    peer.leave("semantic")
    peer.spin_until(lambda: not camera.get_subscription_count(), "the end of the subscription")
    before = peer.wait_for_diagnostics(is_waiting)["panoptic: camera"]
    for number in range(5):
        camera.publish(numbered(number))
    after = peer.wait_for_diagnostics(is_waiting)["panoptic: camera"]
    counts = {name: int(before[name]) for name in CameraStatistics.COUNTERS}
    assert counts == {name: int(after[name]) for name in CameraStatistics.COUNTERS}
    assert counts.pop("received") == sum(counts.values())
    assert "nobody listens: unsubscribed from /image" in node.log()
    assert peer.set_parameters(lazy=False) == ""
    published = int(after["published"])
    peer.feed(camera, numbered, camera.get_subscription_count)
    camera.publish(numbered(0))
    peer.wait_for_diagnostics(lambda s: int(s["panoptic: camera"]["published"]) > published)


def test_every_frame_is_accounted_for(start_node, peer):
    start_node(parameters={"model": "blobs slow=0.15"})
    labels = peer.listen(Image, "labels")
    camera = peer.camera(qos=RELIABLE)
    peer.wait_for_diagnostics(lambda s: s["panoptic: camera"]["reliability"] == "reliable")
    for number in range(40):
        camera.publish(numbered(number))
        peer.spin_for(0.03)

    def is_settled(status):
        counts = {k: int(status["panoptic: camera"][k]) for k in CameraStatistics.COUNTERS}
        received = counts.pop("received")
        return received and received == sum(counts.values())

    status = peer.wait_for_diagnostics(is_settled)["panoptic: camera"]
    assert int(status["dropped"]) > int(status["published"]) > 0
    assert len(labels) == int(status["published"])
    stamps = [stamp_of(message) for message in labels]
    assert stamps == sorted(stamps)
    assert stamps[-1] == 139.25  # the newest one is never dropped
    assert float(status["age p50 (ms)"]) > 0


def test_max_rate_goes_by_the_stamps_and_survives_a_jump_back(start_node, peer):
    start_node(parameters={"model": "blobs", "max_rate": 2})
    labels = peer.listen(Image, "labels")
    camera = peer.camera()
    peer.feed(camera, lambda n: numbered(0), lambda: labels)
    peer.wait_for_diagnostics(lambda s: s["panoptic: camera"]["reliability"] == "reliable")
    for start in (1000.0, 500.0):  # the second is a bag that starts again
        labels.clear()
        for number in range(20):
            camera.publish(image_message(picture(), stamp=start + number / 10))
            peer.spin_for(0.08)
        peer.spin_for(0.5)
        assert [stamp_of(m) for m in labels] == [start, start + 0.5, start + 1, start + 1.5]
