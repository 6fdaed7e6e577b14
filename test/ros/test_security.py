"""The SROS 2 policy allows what the node does, and nothing else."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from rclpy.node import NodeNameNonExistentError
from sensor_msgs.msg import PointCloud2

from test.ros.peers import REPOSITORY

POLICY = REPOSITORY / "config" / "sros2" / "panoptic.policy.xml"
# With vision_msgs only:
OPTIONAL = {f"/panoptic/{name}" for name in ("detections", "instances_3d", "label_info")}
CLOCK = {"/clock"}  # with use_sim_time only
EVENTS = {"/parameter_events"}  # the time source of older distributions listens to them


def allowed(kind, way):
    names = [
        item.text
        for group in ElementTree.parse(POLICY).iter(f"{kind}s")
        if group.get(way) == "ALLOW"
        for item in group
    ]
    assert len(names) == len(set(names)) > 0
    return {name.replace("~", "/panoptic") if name[0] == "~" else f"/{name}" for name in names}


def test_the_policy_is_what_the_node_does(start_node, peer):
    start_node(
        parameters={"model": "blobs", "mask_classes": "[blob]", "depth": True},
        arguments=(
            *("-r", "image:=/camera/image_raw"),
            *("-r", "depth:=/camera/depth"),
            *("-r", "camera_info:=/camera/camera_info"),
        ),
    )
    peer.wait_for_state("active")
    peer.listen(PointCloud2, "points")  # depth is taken only for who wants it

    def names(find):
        try:
            return {name for name, _ in find("panoptic", "/")}
        except NodeNameNonExistentError:  # its services may be heard of before its name is
            return set()

    def found(find, expected, optional=frozenset()):
        """What is known when all that is expected is."""
        peer.spin_until(lambda: names(find) | optional >= expected, f"all of {sorted(expected)}")
        return names(find) | optional

    node = peer.node
    heard = node.get_subscriber_names_and_types_by_node
    published, answered = node.get_publisher_names_and_types_by_node, allowed("service", "reply")
    peer.spin_until(lambda: "/camera/image_raw" in names(heard), "the subscription")
    topics = allowed("topic", "publish")
    assert found(published, topics, OPTIONAL) == topics
    topics = allowed("topic", "subscribe")
    assert found(heard, topics, CLOCK | EVENTS) == topics
    assert found(node.get_service_names_and_types_by_node, answered) == answered
    assert names(node.get_client_names_and_types_by_node) == set()
