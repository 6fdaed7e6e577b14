"""The SROS 2 policy allows what the node does, and nothing else."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from test.ros.peers import REPOSITORY

POLICY = REPOSITORY / "config" / "sros2" / "panoptic.policy.xml"
OPTIONAL = {"/panoptic/detections", "/panoptic/label_info"}  # with vision_msgs only
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
        parameters={"model": "blobs", "lazy": False, "mask_classes": "[blob]"},
        arguments=("-r", "image:=/camera/image_raw"),
    )
    peer.wait_for_state("active")

    def names(find):
        return {name for name, _ in find("panoptic", "/")}

    node = peer.node
    peer.spin_until(
        lambda: "/camera/image_raw" in names(node.get_subscriber_names_and_types_by_node),
        "the subscription",
    )
    published = names(node.get_publisher_names_and_types_by_node)
    assert published | OPTIONAL == allowed("topic", "publish")
    heard = names(node.get_subscriber_names_and_types_by_node)
    assert heard | CLOCK | EVENTS == allowed("topic", "subscribe")
    assert names(node.get_service_names_and_types_by_node) == allowed("service", "reply")
    assert names(node.get_client_names_and_types_by_node) == set()
