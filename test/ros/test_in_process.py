"""The node in somebody's process: images and results without DDS."""

from __future__ import annotations

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from test.ros.blobs import BLOB, make_node
from test.ros.peers import image_message, picture, wait_until


@pytest.fixture
def node():
    context = rclpy.Context()
    rclpy.init(context=context)
    executor = SingleThreadedExecutor(context=context)
    parameters = [Parameter("model", value="blobs"), Parameter("cameras", value=["left", "right"])]
    node = make_node(context=context, namespace="/in_process", parameter_overrides=parameters)
    executor.add_node(node)
    yield node
    node.close()
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def test_images_and_results_pass_without_topics(node):
    results = []
    node.add_listener(lambda *result: results.append(result))
    with pytest.raises(RuntimeError, match="unconfigured"):
        node.receive(image_message(picture()), "left")
    node.start()
    for number, camera in enumerate(("left", "right", "left")):
        message = image_message(picture(at=number), stamp=5.0 + number)
        node.receive(message, camera)
        wait_until(lambda n=number: len(results) == n + 1, lambda: "the result")
        found_camera, header, prediction = results[-1]
        assert found_camera == camera and header == message.header
        (blob,) = prediction.instances
        assert blob.class_id == BLOB.id and blob.bbox[:2] == (number, number)
        assert prediction.labels.dtype == np.uint16
    with pytest.raises(ValueError, match=r"no camera 'rear'; there are 'left', 'right'"):
        node.receive(image_message(picture()), "rear")


def test_a_listener_that_raises_costs_no_other_result(node):
    results = []

    def listen(camera, header, prediction):
        results.append(header.stamp.sec)
        if header.stamp.sec == 1:
            raise ValueError("no good")

    node.add_listener(listen)
    node.start()
    for stamp in (1, 2):
        node.receive(image_message(picture(), stamp=float(stamp)), "left")
        wait_until(lambda n=stamp: len(results) == n, lambda: "the result")
    assert results == [1, 2]
