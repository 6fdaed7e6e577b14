"""What the node outlives, what it says about it, and how it ends."""

from __future__ import annotations

import array

import cv2
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CompressedImage, Image

from panoptic_ros.msg import PanopticInstanceArray
from test.ros.peers import (
    BEST_EFFORT,
    image_message,
    picture,
    pixels,
    stamp_message,
    stamp_of,
)

GOOD = image_message(picture(), stamp=9.0)


def good(_: int) -> Image:
    return GOOD


def broken_images() -> dict[str, Image]:
    """Images that cannot be used, by what the warning must say."""
    images = {}

    def add(reason: str, **fields) -> None:
        images[reason] = image_message(picture())
        for name, value in fields.items():
            setattr(images[reason], name, value)

    add("encoding '32FC1' is not one of", encoding="32FC1")
    add("its step is 7 bytes", step=7)
    add("its size is 64x0", height=0)
    add("its size is 0x48", width=0)
    add("it has 100 bytes of data", data=array.array("B", bytes(100)))
    add("it has 0 bytes of data", data=array.array("B"))
    return images


def test_outlives_images_that_cannot_be_used(start_node, peer):
    node = start_node(parameters={"model": "blobs"})
    labels = peer.listen(Image, "labels")
    camera = peer.camera()
    peer.wait_for_diagnostics(lambda s: s["panoptic: camera"]["reliability"] == "reliable")
    for count, (reason, message) in enumerate(broken_images().items()):
        labels.clear()
        camera.publish(message)
        status = peer.wait_for_diagnostics(
            lambda s, r=reason: r in s["panoptic: camera"]["last refusal"]
        )
        assert status["panoptic: camera"]["level"] == DiagnosticStatus.WARN
        assert int(status["panoptic: camera"]["refused"]) == count + 1
        assert not labels
    assert "refused an image of the camera: encoding '32FC1' is not one of rgb8" in node.log()
    peer.feed(camera, good, lambda: labels)
    assert stamp_of(labels[0]) == 9.0


def test_warnings_are_throttled_and_counted(start_node, peer):
    node = start_node(parameters={"model": "blobs"})
    peer.listen(Image, "labels")
    camera = peer.camera()
    bad = broken_images()["its step is 7 bytes"]
    peer.feed(camera, lambda _: bad, lambda: "refused" in node.log())
    for _ in range(30):
        camera.publish(bad)
        peer.spin_for(0.05)
    peer.wait_for_diagnostics(lambda s: int(s["panoptic: camera"]["refused"]) > 10)
    assert node.log().count("refused an image") == 1
    assert "(1 so far)" in node.log()


def test_outlives_broken_jpeg(start_node, peer):
    node = start_node(parameters={"model": "blobs", "image_transport": "compressed"})
    labels = peer.listen(Image, "labels")
    _, data = cv2.imencode(".jpg", picture()[..., ::-1])
    whole = CompressedImage(format="jpeg", data=array.array("B", data.tobytes()))
    cut = CompressedImage(format="jpeg", data=whole.data[: len(data) // 2])
    camera = peer.camera(CompressedImage, "/image/compressed")
    peer.feed(camera, lambda _: cut, lambda: "is truncated" in node.log())
    peer.feed(camera, lambda _: stamp_message(whole, 4.0), lambda: labels)
    assert stamp_of(labels[0]) == 4.0


def test_camera_that_changes_resolution(start_node, peer):
    start_node(parameters={"model": "blobs"})
    labels = peer.listen(Image, "labels")
    camera = peer.camera()
    for size in ((48, 64), (31, 77), (480, 640), (48, 64)):
        labels.clear()
        message = image_message(picture(*size), stamp=float(size[1]))
        peer.feed(camera, lambda _, m=message: m, lambda s=size: labels and shape(labels[-1]) == s)
        assert stamp_of(labels[-1]) == size[1]


def shape(message: Image) -> tuple[int, int]:
    return pixels(message).shape


def test_segmenter_that_fails(start_node, peer):
    node = start_node(parameters={"model": "blobs fails"})
    labels = peer.listen(Image, "labels")
    camera = peer.camera()
    peer.feed(camera, good, lambda: "could not segment an image: out of memory" in node.log())
    status = peer.wait_for_diagnostics(lambda s: int(s["panoptic: camera"]["failed"]) > 0)
    assert status["panoptic: model"]["level"] == DiagnosticStatus.ERROR
    assert status["panoptic: model"]["message"] == "out of memory"
    assert peer.set_parameters(model="blobs") == ""
    peer.feed(camera, good, lambda: labels)
    peer.wait_for_diagnostics(lambda s: s["panoptic: model"]["level"] == DiagnosticStatus.OK)


def test_thresholds_change_at_once(start_node, peer):
    start_node(parameters={"model": "blobs"})
    instances = peer.listen(PanopticInstanceArray, "instances")
    camera = peer.camera()
    peer.feed(camera, good, lambda: instances and len(instances[-1].instances) == 1)
    assert peer.set_parameters(score_threshold=0.9) == ""  # the blob scores 200 / 255
    peer.feed(camera, good, lambda: len(instances[-1].instances) == 0)
    assert peer.set_parameters(score_threshold=-1.0) == ""
    peer.feed(camera, good, lambda: len(instances[-1].instances) == 1)


def test_bad_values_are_refused_with_the_reason(start_node, peer):
    start_node(parameters={"model": "blobs", "score_threshold": 0.5})
    peer.wait_for_state("active")
    assert "Max: 1.0" in peer.set_parameters(score_threshold=2.0)
    assert "expected a number in 0.0..1.0, or -1.0" in peer.set_parameters(score_threshold=-0.5)
    assert "expected HEIGHTxWIDTH" in peer.set_parameters(resolution="big")
    assert "no model 'nothing'" in peer.set_parameters(model="nothing")
    assert "while the node is unconfigured; it is active" in peer.set_parameters(cameras=["a"])
    assert "read-only" in peer.set_parameters(autostart=False)
    # Together with a value that does not fit, one that does is not taken either.
    assert peer.set_parameters(lazy=False, precision="fp8") != ""
    assert peer.get_parameter("lazy") is True
    assert peer.get_parameter("score_threshold") == 0.5
    assert peer.get_parameter("model") == "blobs"
    assert peer.set_parameters(max_rate=10) == ""  # a whole number where a float is expected


def test_model_changes_while_the_old_one_works(start_node, peer):
    start_node(parameters={"model": "blobs"})
    instances = peer.listen(PanopticInstanceArray, "instances")
    camera = peer.camera()
    peer.feed(camera, good, lambda: instances)
    assert peer.set_parameters(model="blobs load=2", resolution="32x64") == ""
    instances.clear()
    peer.feed(camera, good, lambda: instances and instances[-1].model == "blobs load=2")
    assert sum(message.model == "blobs" for message in instances) >= 5
    status = peer.wait_for_diagnostics(lambda s: s["panoptic: model"]["model"] == "blobs load=2")
    assert status["panoptic: model"]["resolution"] == "32x64"
    assert status["panoptic: model"]["loading"] == ""


def test_model_that_cannot_be_loaded_leaves_the_old_one(start_node, peer):
    node = start_node(parameters={"model": "blobs"})
    instances = peer.listen(PanopticInstanceArray, "instances")
    camera = peer.camera()
    assert peer.set_parameters(model="blobs broken", resolution="32x64") == ""
    status = peer.wait_for_diagnostics(lambda s: "damaged" in s["panoptic: model"]["last error"])
    assert status["panoptic: model"]["level"] == DiagnosticStatus.WARN
    assert "blobs broken is damaged; blobs stays in service" in node.log()
    assert peer.get_parameter("model") == "blobs"  # the parameters tell what is in service
    assert peer.get_parameter("resolution") == ""
    peer.feed(camera, good, lambda: instances)
    assert instances[-1].model == "blobs"


def test_missing_model_at_start(start_node, peer):
    node = start_node(parameters={"model": "blobs broken"})
    status = peer.wait_for_diagnostics(
        lambda s: "cannot configure" in s["panoptic: model"]["message"]
    )
    assert status["panoptic: model"]["level"] == DiagnosticStatus.ERROR
    assert "blobs broken is damaged" in status["panoptic: model"]["message"]
    assert peer.state() == "unconfigured"
    assert peer.set_parameters(model="blobs") == ""
    assert peer.change_state("configure") and peer.change_state("activate")
    labels = peer.listen(Image, "labels")
    peer.feed(peer.camera(), good, lambda: labels)
    peer.wait_for_diagnostics(lambda s: s["panoptic: model"]["level"] == DiagnosticStatus.OK)
    assert node.stop() == 0


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"precision": "fp8"}, "precision is 'fp8'; expected one of auto, fp32"),
        ({"max_rate": -3}, "max_rate is -3.0; expected a number in 0.0..1000.0"),
        ({"lazy": 3}, "lazy"),
    ],
)
def test_bad_value_at_start_ends_the_node_with_the_reason(start_node, parameters, reason):
    node = start_node(parameters={"model": "blobs", **parameters})
    assert node.process.wait(30) == 1
    assert "cannot start" in node.log() and reason in node.log()
    assert "Traceback" not in node.log()


def test_silence_is_explained(start_node, peer):
    other = peer.node.create_publisher(Image, "/rig/image_raw", 1)
    node = start_node(parameters={"model": "blobs"}, arguments=("-r", "image:=/camera/image_raw"))
    labels = peer.listen(Image, "labels")
    status = peer.wait_for_diagnostics(lambda s: "no image on" in s["panoptic: camera"]["message"])
    assert status["panoptic: camera"]["level"] == DiagnosticStatus.WARN
    node.wait_for_log("no image on /camera/image_raw for")
    assert "it has no publisher" in node.log() and other.topic_name in node.log()
    silent = peer.node.create_publisher(Image, "/camera/image_raw", 1)
    peer.wait_for_diagnostics(
        lambda s: "fastdds_large_images.xml" in s["panoptic: camera"]["message"]
    )
    node.wait_for_log("publishers found: /peer (Image, reliable)")
    peer.feed(silent, good, lambda: labels)
    peer.wait_for_diagnostics(lambda s: s["panoptic: camera"]["level"] == DiagnosticStatus.OK)


def test_works_while_simulated_time_stands_still(start_node, peer):
    start_node(parameters={"model": "blobs", "use_sim_time": True})
    labels = peer.listen(Image, "labels")
    peer.feed(peer.camera(), good, lambda: labels)
    peer.wait_for_diagnostics(lambda s: int(s["panoptic: camera"]["published"]) > 0)


def test_wrong_transport_is_named(start_node, peer):
    peer.node.create_publisher(CompressedImage, "/image", 1)
    start_node(parameters={"model": "blobs"})
    peer.listen(Image, "labels")
    peer.wait_for_diagnostics(
        lambda s: (
            "sensor_msgs/msg/Image is expected; check image_transport"
            in s["panoptic: camera"]["message"]
        )
    )


def test_incompatible_qos_is_named(start_node, peer):
    node = start_node(parameters={"model": "blobs", "reliability": "reliable"})
    peer.node.create_publisher(Image, "/image", BEST_EFFORT)
    labels = peer.listen(Image, "labels")
    status = peer.wait_for_diagnostics(
        lambda s: all(
            part in s["panoptic: camera"]["message"]
            for part in ("incompatible QoS", "/peer (Image, best_effort)")
        )
    )
    assert status["panoptic: camera"]["level"] == DiagnosticStatus.WARN
    assert "offers incompatible QoS" in node.log()
    assert peer.set_parameters(reliability="auto") == ""
    peer.feed(peer.camera(qos=BEST_EFFORT), good, lambda: labels)
