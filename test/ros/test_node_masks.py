"""~/confidence and ~/mask of the node in its own process, over DDS."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import Image

from test.ros.peers import image_message, picture, pixels, stamp_of


def numbered(number: int) -> Image:
    """An image whose blob stands at a place that depends on its stamp."""
    return image_message(picture(at=number % 30), stamp=100.25 + number, frame_id="front_optical")


def test_confidence_and_mask(start_node, peer):
    start_node(parameters={"model": "blobs", "mask_classes": "['26']"})
    mask = peer.listen(Image, "mask")
    camera = peer.camera()
    peer.feed(camera, numbered, lambda: len(mask) >= 2)
    confidence = peer.listen(Image, "confidence")
    peer.feed(camera, numbered, lambda: len(confidence) >= 2 and len(mask) >= 4)
    for message in (*mask, *confidence):
        assert message.header.frame_id == "front_optical" and message.encoding == "mono8"
        at = int(stamp_of(message) - 100.25) % 30
        expected = np.full((48, 64), 0 if message in mask else 20, np.uint8)
        expected[at : at + 8, at : at + 12] = 255 if message in mask else 200
        np.testing.assert_array_equal(pixels(message), expected)


def test_a_mask_of_classes_that_the_model_lacks(start_node, peer):
    node = start_node(parameters={"model": "blobs", "mask_classes": "[blob, cat]"})
    node.wait_for_log("mask_classes: no class 'cat'; there are: ground (7), blob (26)")
    assert peer.state() == "unconfigured"
    assert peer.set_parameters(mask_classes=["blob"]) == ""
    assert peer.change_state("configure") and peer.change_state("activate")
    assert peer.listen(Image, "mask") == []


def test_no_mask_without_classes(start_node, peer):
    start_node(parameters={"model": "blobs"})
    peer.wait_for_state("active")
    assert peer.node.count_publishers("/panoptic/semantic") == 1
    assert peer.node.count_publishers("/panoptic/mask") == 0
