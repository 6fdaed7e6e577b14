"""Fixtures for tests that talk over DDS."""

from __future__ import annotations

import signal

import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed")


@pytest.fixture
def peer():
    """The other side of the node under test."""
    from test.ros.peers import Peer

    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture
def start_node(tmp_path):
    """Start nodes in processes of their own; all are ended after the test."""
    from test.ros.peers import NodeProcess

    # A shell ignores SIGINT for what it starts in the background, and so would the nodes from here
    # on until their main takes over: one that is told to end before would never hear of it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    started = []

    def start(**arguments):
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(NodeProcess(folder, **arguments))
        return started[-1]

    yield start
    for node in started:
        node.stop()
        print(node.log())  # shown if the test failed
