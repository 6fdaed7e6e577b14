"""Depth beside the images: clouds and boxes in space, over DDS."""

from __future__ import annotations

import array
import math

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField

from panoptic_ros.msg import PanopticInstanceArray
from test.ros.blobs import BLOB, GROUND
from test.ros.peers import BEST_EFFORT, image_message, picture, stamp_message, stamp_of

FOCAL, CX, CY = 60.0, 31.5, 23.5
NEAR, FAR = 2.0, 5.0  # metres: the blob, and all else
AT = 10  # row and column where the blob of 8 x 12 pixels begins


def depth_image(stamp, encoding="32FC1", missing=False):
    """The depth of ``picture()``."""
    depth = np.full((48, 64), FAR, np.float32)
    depth[AT : AT + 8, AT : AT + 12] = np.nan if missing else NEAR
    if encoding == "16UC1":
        depth = np.nan_to_num(depth * 1000).astype(np.uint16)
    message = Image(height=48, width=64, encoding=encoding, step=64 * depth.itemsize)
    message.data = array.array("B", depth.tobytes())
    return stamp_message(message, stamp)


def camera_info(stamp, width=64):
    k = [FOCAL, 0.0, CX, 0.0, FOCAL, CY, 0.0, 0.0, 1.0]
    return stamp_message(CameraInfo(height=48, width=width, k=k), stamp)


class DepthCamera:
    """Three topics of a camera; each message is made by a function of its stamp."""

    def __init__(self, peer, prefix="", qos=BEST_EFFORT):
        self.peer = peer
        self.depth = peer.camera(Image, f"{prefix}/depth", qos)
        self.info = peer.camera(CameraInfo, f"{prefix}/camera_info", qos)
        self.color = peer.camera(Image, f"{prefix}/image", qos)

    def feed(self, until, depth=depth_image, info=camera_info, offset=0.0):
        def frame(number):
            stamp = 100.25 + number
            if depth:
                self.depth.publish(depth(stamp + offset))
            if info:
                self.info.publish(info(stamp))
            return image_message(picture(at=AT), stamp=stamp)

        self.peer.feed(self.color, frame, until)


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_instances_have_a_place_and_a_size(start_node, peer, encoding):
    start_node(parameters={"model": "blobs", "depth": True})
    instances = peer.listen(PanopticInstanceArray, "instances")

    def placed():
        return [m for m in instances if not math.isnan(m.instances[0].position.z)]

    DepthCamera(peer).feed(lambda: len(placed()) >= 3, lambda s: depth_image(s, encoding))
    for message in placed():
        assert message.header.frame_id == "camera"
        position, size = message.instances[0].position, message.instances[0].size
        # Columns 10..21 and rows 10..17, each pixel half a pixel wide on both sides.
        assert position.x == pytest.approx((15.5 - CX) / FOCAL * NEAR, abs=1e-3)
        assert position.y == pytest.approx((13.5 - CY) / FOCAL * NEAR, abs=1e-3)
        assert position.z == pytest.approx(NEAR, abs=1e-3)
        assert (size.x, size.y) == pytest.approx((12 * NEAR / FOCAL, 8 * NEAR / FOCAL), abs=2e-3)
        assert size.z == pytest.approx(0, abs=1e-3)


def points_of(message):
    """Read a cloud by the names of its fields."""
    kinds = {PointField.FLOAT32: "<f4", PointField.UINT16: "<u2"}
    dtype = np.dtype(
        {
            "names": [field.name for field in message.fields],
            "formats": [kinds[field.datatype] for field in message.fields],
            "offsets": [field.offset for field in message.fields],
            "itemsize": message.point_step,
        }
    )
    assert message.row_step == message.width * message.point_step
    return np.frombuffer(message.data, dtype).reshape(message.height, message.width)


def test_organised_points(start_node, peer):
    start_node(parameters={"model": "blobs", "depth": True})
    clouds = peer.listen(PointCloud2, "points")
    DepthCamera(peer).feed(lambda: len(clouds) >= 3, lambda s: depth_image(s, missing=True))
    for message in clouds:
        assert message.header.frame_id == "camera"
        assert (stamp_of(message) - 100.25) == int(stamp_of(message) - 100.25)
        assert not message.is_dense and not message.is_bigendian
        points = points_of(message)
        assert points.shape == (48, 64)
        blob = np.zeros((48, 64), bool)
        blob[AT : AT + 8, AT : AT + 12] = True
        assert (np.isnan(points["z"]) == blob).all()
        assert (points["class"] == np.where(blob, BLOB.id, GROUND.id)).all()
        assert (points["instance"] == blob).all()
        v, u = np.nonzero(~blob)
        np.testing.assert_allclose(points["x"][v, u], (u - CX) / FOCAL * FAR, rtol=1e-5)
        np.testing.assert_allclose(points["y"][v, u], (v - CY) / FOCAL * FAR, rtol=1e-5)
        colour = points["rgb"].copy().view(np.uint32)
        assert (colour == np.where(blob, 0xC8C8C8, 0x141414)).all()
        # The blob segmenter's confidence is the green of the image.
        np.testing.assert_allclose(points["confidence"], np.where(blob, 200, 20) / 255, rtol=1e-5)


def test_points_of_voxels(start_node, peer):
    start_node(parameters={"model": "blobs", "depth": True, "voxel_size": 1.0})
    clouds = peer.listen(PointCloud2, "points")
    camera = DepthCamera(peer)
    camera.feed(lambda: clouds)
    points = points_of(clouds[0])[0]
    assert clouds[0].height == 1 and clouds[0].is_dense
    cells = {tuple(np.floor(point[axis]) for axis in "xyz") for point in points}
    assert len(cells) == len(points) < 50
    assert set(points["class"]) == {BLOB.id, GROUND.id}
    assert peer.set_parameters(voxel_size=0.0) == ""
    clouds.clear()
    camera.feed(lambda: [m for m in clouds if m.height == 48])


def test_boxes_as_detections(start_node, peer):
    vision_msgs = pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed")
    start_node(parameters={"model": "blobs", "depth": True})
    found = peer.listen(vision_msgs.Detection3DArray, "instances_3d")
    DepthCamera(peer).feed(lambda: [m for m in found if m.detections])
    (detection,) = next(m for m in found if m.detections).detections
    assert detection.id == str(BLOB.id * 256 + 1) and detection.header.frame_id == "camera"
    assert detection.results[0].hypothesis.class_id == str(BLOB.id)
    assert detection.bbox.center.position.z == pytest.approx(NEAR)
    assert detection.bbox.center.orientation.w == 1.0
    assert detection.bbox.size.x == pytest.approx(12 * NEAR / FOCAL, abs=2e-3)
    assert detection.results[0].pose.pose.position == detection.bbox.center.position


def test_stamps_have_to_be_equal_unless_a_tolerance_is_given(start_node, peer):
    start_node(parameters={"model": "blobs", "depth": True})
    instances = peer.listen(PanopticInstanceArray, "instances")
    clouds = peer.listen(PointCloud2, "points")
    camera = DepthCamera(peer)
    camera.feed(lambda: len(instances) >= 4, offset=0.01)
    assert all(math.isnan(m.instances[0].position.z) for m in instances) and not clouds
    assert peer.set_parameters(depth_tolerance=0.02) == ""
    camera.feed(lambda: clouds, offset=0.01)
    # A cloud has the stamp of its colour image, whatever that of the depth.
    assert stamp_of(clouds[0]) % 1 == 0.25
    status = peer.wait_for_diagnostics(lambda s: int(s["panoptic: camera"]["depth used"]) > 0)
    assert int(status["panoptic: camera"]["depth missing"]) >= 4


@pytest.mark.parametrize(
    ("depth", "info", "reason"),
    [
        (lambda s: depth_image(s, "16SC1"), camera_info, "expected 16UC1 in millimetres"),
        (depth_image, lambda s: camera_info(s, 640), "camera_info is for images of 640x48"),
    ],
)
def test_depth_that_cannot_be_used_is_refused(start_node, peer, depth, info, reason):
    node = start_node(parameters={"model": "blobs", "depth": True})
    instances = peer.listen(PanopticInstanceArray, "instances")
    camera = DepthCamera(peer)
    camera.feed(lambda: len(instances) >= 3, depth, info)
    status = peer.wait_for_diagnostics(lambda s: int(s["panoptic: camera"]["depth refused"]) > 0)
    assert reason in status["panoptic: camera"]["last depth refusal"]
    assert status["panoptic: camera"]["depth used"] == "0"
    assert "refused a depth image: " in node.log()
    instances.clear()
    camera.feed(lambda: [m for m in instances if m.instances[0].position.z > 0])


def complaints_to(peer):
    """Listen to diagnostics; the function returned finds those that begin so."""
    reports = peer.listen(DiagnosticArray, "/diagnostics")

    def find(start):
        statuses = [status for report in reports for status in report.status]
        return [s for s in statuses if s.message.startswith(start)]

    return find


def test_depth_without_camera_info_is_told(start_node, peer):
    start_node(parameters={"model": "blobs", "depth": True})
    peer.listen(PanopticInstanceArray, "instances")
    complaints = complaints_to(peer)
    DepthCamera(peer).feed(lambda: complaints("no camera_info on /camera_info"), info=None)


def test_stamps_that_never_fit_are_told(start_node, peer):
    start_node(parameters={"model": "blobs", "depth": True})
    peer.listen(PanopticInstanceArray, "instances")
    complaints = complaints_to(peer)
    nearest = "the depth nearest to the last image is 0.050 s from it"
    DepthCamera(peer).feed(lambda: complaints(nearest), offset=0.05)


def test_labels_and_instances_come_without_depth(start_node, peer):
    start_node(parameters={"model": "blobs", "depth": True})
    labels = peer.listen(Image, "labels")
    instances = peer.listen(PanopticInstanceArray, "instances")
    camera, complaints = DepthCamera(peer), complaints_to(peer)
    silence = "no depth image on /depth for "

    camera.feed(lambda: complaints(silence), None, None)
    assert len(labels) >= 3 and len(instances) >= 3
    assert all(math.isnan(m.instances[0].position.x) for m in instances)
    assert complaints(silence)[0].level == DiagnosticStatus.WARN
    assert "publishers found: /peer (Image, best_effort)" in complaints(silence)[0].message


def test_depth_is_taken_only_for_who_needs_it(start_node, peer):
    start_node(parameters={"model": "blobs", "depth": True})
    peer.wait_for_state("active")
    depth = peer.node.create_publisher(Image, "/depth", BEST_EFFORT)
    labels = peer.listen(Image, "labels")
    peer.feed(peer.camera(), lambda n: image_message(picture(), stamp=1.0 + n), lambda: labels)
    assert depth.get_subscription_count() == 0
    peer.listen(PointCloud2, "points")
    peer.spin_until(depth.get_subscription_count, "a subscription to /depth")
    peer.leave("points")
    peer.spin_until(lambda: not depth.get_subscription_count(), "the end of it")


def test_nothing_of_it_is_there_by_default(start_node, peer):
    start_node(parameters={"model": "blobs", "lazy": False})
    instances = peer.listen(PanopticInstanceArray, "instances")
    peer.feed(peer.camera(), lambda n: image_message(picture(), stamp=1.0 + n), lambda: instances)
    assert peer.node.count_publishers("/panoptic/points") == 0
    assert peer.node.count_subscribers("/depth") == 0
    assert peer.node.count_subscribers("/camera_info") == 0


def test_each_camera_has_its_own(start_node, peer):
    start_node(parameters={"model": "blobs", "depth": True, "cameras": "[left, right]"})
    clouds = {name: peer.listen(PointCloud2, f"{name}/points") for name in ("left", "right")}
    DepthCamera(peer, "/left").feed(lambda: clouds["left"])
    assert not clouds["right"]
    DepthCamera(peer, "/right").feed(lambda: clouds["right"])
