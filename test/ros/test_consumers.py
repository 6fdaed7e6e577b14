"""What others read of the node: subscribers with their topics, types, QoS and synchronisation.

The topics are read from config/consumers; everything else is as in the sources of each program
(docs/consumers.md says which).
"""

from __future__ import annotations

import array
import json
import math

import numpy as np
import pytest
import yaml
from rclpy.qos import (
    QoSDurabilityPolicy,
    QoSPresetProfiles,
    QoSProfile,
    QoSReliabilityPolicy,
)
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from panoptic_ros.msg import PanopticInstanceArray
from test.ros.blobs import BLOB, GROUND
from test.ros.peers import REPOSITORY, image_message, picture, pixels

CONFIG = REPOSITORY / "config"
SENSOR_DATA = QoSProfile(depth=50, reliability=QoSReliabilityPolicy.BEST_EFFORT)
SYSTEM_DEFAULT = QoSPresetProfiles.SYSTEM_DEFAULT.value
IMAGE_TRANSPORT = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.RELIABLE)
TOPICS = {
    "image": "/camera/color/image_raw",
    "depth": "/camera/aligned_depth_to_color/image_raw",
    "camera_info": "/camera/color/camera_info",
}


def parameters_of(consumer: str) -> dict:
    """Return the parameters in a file of config/consumers."""
    found = yaml.safe_load((CONFIG / "consumers" / f"{consumer}.yaml").read_text())
    while "ros__parameters" not in found:
        (found,) = found.values()
    return found["ros__parameters"]


def stamp_of(message) -> int:
    """Return the stamp in nanoseconds: whole, unlike that of peers."""
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def exactly_synchronised(*received: list) -> list[tuple]:
    """Do what message_filters' ExactTime does: sets of messages of equal stamps."""
    by_stamp = [{stamp_of(message): message for message in messages} for messages in received]
    common = sorted(set.intersection(*map(set, by_stamp)))
    return [tuple(messages[stamp] for messages in by_stamp) for stamp in common]


@pytest.fixture
def robot(start_node, peer):
    return Robot(start_node, peer)


class Robot:
    """The node, and a depth camera whose stamps use every digit of a nanosecond."""

    def __init__(self, start_node, peer):
        self.peer = peer
        names = [word for name, topic in TOPICS.items() for word in ("-r", f"{name}:={topic}")]
        start_node(
            parameters={"model": "blobs", "depth": True, "mask_classes": "[blob]"},
            arguments=names,
        )
        self.sent: list[int] = []

    def run(self, until, qos=SENSOR_DATA):
        """Publish images with depth and camera_info until a condition holds."""
        node = self.peer.node
        info = node.create_publisher(CameraInfo, TOPICS["camera_info"], qos)
        depth = node.create_publisher(Image, TOPICS["depth"], qos)
        color = self.peer.camera(Image, TOPICS["image"], qos)

        def frame(number):
            far = np.full((48, 64), 2.0, np.float32)
            far[:, 40:] = np.nan
            measured = Image(height=48, width=64, encoding="32FC1", step=256)
            measured.data = array.array("B", far.tobytes())
            k = [60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0]
            messages = measured, CameraInfo(height=48, width=64, k=k), image_message(picture())
            for message in messages:
                message.header.frame_id = "camera_color_optical_frame"
                message.header.stamp.sec = 1_700_000_000 + number
                message.header.stamp.nanosec = 123_456_789 + number
            self.sent.append(stamp_of(messages[0]))
            depth.publish(messages[0])
            info.publish(messages[1])
            return messages[2]

        self.peer.feed(color, frame, until)


def test_nav2_gets_mask_confidence_and_cloud_of_one_stamp(robot):
    source = parameters_of("nav2")["semantic_segmentation_layer"]["camera"]
    assert source["use_approximate_time_sync"] is False
    mask = robot.peer.listen(Image, source["segmentation_topic"], SENSOR_DATA)
    confidence = robot.peer.listen(Image, source["confidence_topic"], SENSOR_DATA)
    cloud = robot.peer.listen(PointCloud2, source["pointcloud_topic"], SENSOR_DATA)
    robot.run(lambda: len(exactly_synchronised(mask, confidence, cloud)) >= 3)
    for classes, sure, points in exactly_synchronised(mask, confidence, cloud):
        assert stamp_of(classes) in robot.sent
        assert points.header.frame_id == "camera_color_optical_frame"
        # The layer takes data[v * width + u] and walks the cloud alongside.
        assert len(classes.data) == len(sure.data) == classes.width * classes.height
        assert (points.width, points.height) == (classes.width, classes.height)
        offsets = {f.name: (f.offset, f.datatype) for f in points.fields}
        assert [offsets[axis][1] for axis in "xyz"] == [7, 7, 7]  # float32
        raw = np.frombuffer(points.data, np.uint8).reshape(-1, points.point_step)
        start = offsets["z"][0]
        z = np.ascontiguousarray(raw[:, start : start + 4]).view("<f4").ravel()
        inside = np.arange(48 * 64) % 64 < 40
        assert (np.isfinite(z) == inside).all()
        assert set(np.frombuffer(classes.data, np.uint8)) == {GROUND.id, BLOB.id}


def test_nav2_gets_the_names_of_the_classes(robot):
    vision_msgs = pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed")
    source = parameters_of("nav2")["semantic_segmentation_layer"]["camera"]
    latched = QoSProfile(
        depth=5,
        reliability=QoSReliabilityPolicy.RELIABLE,
        durability=QoSDurabilityPolicy.TRANSIENT_LOCAL,
    )
    labels = robot.peer.listen(vision_msgs.LabelInfo, source["labels_topic"], latched)
    robot.peer.spin_until(lambda: labels, "the class names")
    assert {c.class_id: c.class_name for c in labels[0].class_map} == {7: "ground", 26: "blob"}


def test_nav2s_classes_are_those_of_the_model():
    from panoptic_ros.model_zoo import MODEL_FILE, find_model, load_config

    source = parameters_of("nav2")["semantic_segmentation_layer"]["camera"]
    known = {c.name for c in load_config(find_model("fpsnet_small") / MODEL_FILE).categories}
    for kind in source["class_types"]:
        assert set(source[kind]["classes"]) <= known


@pytest.mark.parametrize("qos", [SYSTEM_DEFAULT, SENSOR_DATA], ids=["default", "sensor_data"])
def test_nvblox_gets_image_and_mask_of_one_stamp(robot, qos):
    """Four messages are synchronised exactly; the mask's camera_info is that of the image."""
    assert parameters_of("nvblox")["use_segmentation"] is True
    peer = robot.peer
    mask = peer.listen(Image, "/panoptic/mask", qos)
    color, info = [], []
    peer.node.create_subscription(Image, TOPICS["image"], color.append, qos)
    peer.node.create_subscription(CameraInfo, TOPICS["camera_info"], info.append, qos)
    robot.run(lambda: len(exactly_synchronised(color, info, mask, info)) >= 3, qos)
    for image, camera, seen, _ in exactly_synchronised(color, info, mask, info):
        assert seen.encoding == "mono8" and seen.header == image.header
        assert (seen.height, seen.width) == (camera.height, camera.width)
        assert (pixels(seen) > 0).sum() == 8 * 12


def test_hydra_gets_labels_of_a_whole_number_type(robot):
    """Its three images are synchronised approximately; the labels' stamp is the image's."""
    peer = robot.peer
    labels = peer.listen(Image, "/panoptic/semantic", IMAGE_TRANSPORT)
    color, depth = [], []
    peer.node.create_subscription(Image, TOPICS["image"], color.append, IMAGE_TRANSPORT)
    peer.node.create_subscription(Image, TOPICS["depth"], depth.append, IMAGE_TRANSPORT)
    robot.run(lambda: len(exactly_synchronised(color, depth, labels)) >= 3, IMAGE_TRANSPORT)
    image, measured, seen = exactly_synchronised(color, depth, labels)[0]
    assert seen.encoding == "mono8"  # cv_bridge's CV_8UC1, which Hydra converts
    assert (seen.height, seen.width) == (image.height, image.width)
    assert (seen.height, seen.width) == (measured.height, measured.width)


def test_elevation_mapping_gets_a_mask_with_camera_info_and_points(robot):
    subscribers = parameters_of("elevation_mapping")["subscribers"]
    image, cloud = subscribers["panoptic_mask"], subscribers["panoptic_points"]
    assert (image["data_type"], cloud["data_type"]) == ("image", "pointcloud")
    assert image["topic_name"] == image["topic_name_camera"]
    assert image["camera_info_topic_name"] == image["topic_name_camera_info"]
    reliable = QoSProfile(depth=10)  # rclpy's and message_filters' default
    best_effort = QoSProfile(depth=10, reliability=QoSReliabilityPolicy.BEST_EFFORT)
    mask = robot.peer.listen(Image, image["topic_name"], reliable)
    points = robot.peer.listen(PointCloud2, cloud["topic_name"], best_effort)
    info = []
    robot.peer.node.create_subscription(
        CameraInfo, image["camera_info_topic_name"], info.append, reliable
    )
    robot.run(lambda: len(exactly_synchronised(mask, info)) >= 3 and points, reliable)
    seen, camera = exactly_synchronised(mask, info)[0]
    assert pixels(seen).ndim == 2 and len(image["channels"]) == 1  # a channel for each plane
    assert (seen.height, seen.width) == (camera.height, camera.width)
    assert [field.name for field in points[0].fields][:3] == ["x", "y", "z"]


def test_foxglove_and_rviz_show_topics_that_there_are(robot):
    layout = json.loads((CONFIG / "foxglove.json").read_text())
    panels = layout["configById"]
    shown = {p["imageMode"]["imageTopic"] for p in panels.values() if "imageMode" in p}
    shown |= {t for p in panels.values() for t in p.get("topics", {})}
    shown |= {p["topicPath"] for p in panels.values() if "topicPath" in p}

    def leaves(place):
        if isinstance(place, str):
            return {place}
        return leaves(place["first"]) | leaves(place["second"])

    assert leaves(layout["layout"]) == set(panels)
    displays = yaml.safe_load((CONFIG / "panoptic_3d.rviz").read_text())
    shown |= {d["Topic"]["Value"] for d in displays["Visualization Manager"]["Displays"]}
    types = {"points": PointCloud2, "instances": PanopticInstanceArray}
    received = {
        topic: robot.peer.listen(types.get(topic.rpartition("/")[2], Image), topic, SENSOR_DATA)
        for topic in shown
    }
    assert len(shown) == 4
    robot.run(lambda: all(received.values()))
    instance = received["/panoptic/instances"][-1].instances[0]
    assert not math.isnan(instance.position.z)
