"""Lifecycle transitions and signals, amid the node's work."""

from __future__ import annotations

import signal

import pytest
from sensor_msgs.msg import Image

from test.ros.test_node_problems import GOOD, good


def test_lifecycle(start_node, peer):
    node = start_node(parameters={"model": "blobs", "autostart": False})
    assert peer.state() == "unconfigured"
    assert peer.node.count_subscribers("/image") == 0
    assert peer.set_parameters(image_transport="raw", cameras=["front"]) == ""
    assert peer.change_state("configure")
    assert peer.state() == "inactive"
    labels = peer.listen(Image, "front/labels")
    assert peer.change_state("activate")
    camera = peer.camera(topic="/front/image")
    peer.feed(camera, good, lambda: labels)
    assert peer.change_state("deactivate")
    peer.spin_until(lambda: not camera.get_subscription_count(), "the end of the subscription")
    labels.clear()
    for _ in range(5):
        camera.publish(GOOD)
        peer.spin_for(0.05)
    assert not labels
    assert peer.change_state("activate")
    peer.feed(camera, good, lambda: labels)
    assert peer.change_state("deactivate") and peer.change_state("cleanup")
    assert peer.state() == "unconfigured"
    topic = "/panoptic/front/labels"
    peer.spin_until(lambda: not peer.node.count_publishers(topic), "the end of the publisher")
    # Once more round, with other cameras, and out.
    assert peer.set_parameters(cameras=[""]) == ""
    assert peer.change_state("configure") and peer.change_state("activate")
    again = peer.listen(Image, "labels")
    peer.feed(peer.camera(), good, lambda: again)
    assert peer.change_state("shutdown")
    assert peer.state() == "finalized"
    assert node.stop() == 0


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_cleanly_amid_its_work(start_node, peer, ending):
    node = start_node(parameters={"model": "blobs slow=1"})
    peer.listen(Image, "labels")
    camera = peer.camera()
    for _ in range(5):
        camera.publish(GOOD)
        peer.spin_for(0.1)
    assert node.stop(ending) == 0
    assert "Traceback" not in node.log()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_signals_while_a_model_loads(start_node, ending):
    node = start_node(parameters={"model": "blobs load=100"})
    node.wait_for_log("loading model")
    assert node.stop(ending) == 0
    assert "Traceback" not in node.log()
