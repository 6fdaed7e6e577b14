"""Replay one image topic of a bag over DDS at the rate it was recorded; part of the demo.

Unlike ``ros2 bag play`` it reads ROS 1 bags too, starts when it is told to, keeps stamps unique
and says when it published which. A line on standard input starts the replay, the end of standard
input ends the process (so that the last frames can still be resent). Events go to standard
output, a line of JSON each: ``matched`` (somebody has subscribed), ``frame`` and ``end``.
"""

from __future__ import annotations

import argparse
import select
import signal
import sys
import time

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image

from panoptic_ros.demo.processes import say
from panoptic_ros.files.bag import COMPRESSED_IMAGE, NANOSECONDS, BagError, BagFrame, ImageBag

POLL_SECONDS = 0.05


def to_message(frame: BagFrame, compressed: bool) -> Image | CompressedImage:
    """Turn a message read by rosbags into one that rclpy publishes."""
    source = frame.message
    message = CompressedImage() if compressed else Image()
    message.header.frame_id = source.header.frame_id
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(frame.stamp, NANOSECONDS)
    names = ("format",) if compressed else ("height", "width", "encoding", "is_bigendian", "step")
    for name in names:
        setattr(message, name, getattr(source, name))
    message.data.frombytes(memoryview(np.ascontiguousarray(source.data)))
    return message


def wait_for_line(node: Node) -> bool:
    """Wait for a line on standard input; False at its end."""
    while not select.select([sys.stdin], [], [], 0)[0]:
        rclpy.spin_once(node, timeout_sec=POLL_SECONDS)
    return bool(sys.stdin.readline())


def play(node: Node, bag: ImageBag, publisher: Publisher, rate: float) -> None:
    """Publish all frames of a bag, ``rate`` times as fast as they were recorded."""
    compressed = bag.topic.type == COMPRESSED_IMAGE
    start = time.monotonic()
    first: int | None = None
    for frame in bag.frames():
        first = frame.time if first is None else first
        message = to_message(frame, compressed)
        due = start + (frame.time - first) / NANOSECONDS / rate
        while (left := due - time.monotonic()) > 0:
            rclpy.spin_once(node, timeout_sec=left)
        published = time.time_ns()
        publisher.publish(message)
        say("frame", stamp=frame.stamp, published=published)


def run(bag: ImageBag, topic: str, rate: float) -> None:
    """Publish a bag on ``topic``; returns when all is sent and standard input has ended."""
    node = Node("bag_player")
    kind = CompressedImage if bag.topic.type == COMPRESSED_IMAGE else Image
    qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
    publisher = node.create_publisher(kind, topic, qos)
    while publisher.get_subscription_count() == 0:
        rclpy.spin_once(node, timeout_sec=POLL_SECONDS)
    say("matched")
    if wait_for_line(node):
        play(node, bag, publisher, rate)
        say("end")
        wait_for_line(node)


def main(arguments: list[str] | None = None) -> int:
    """Replay a bag; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bag")
    parser.add_argument("bag_topic", help="to read")
    parser.add_argument("topic", help="to publish")
    parser.add_argument("--rate", type=float, default=1.0, help="times the recorded speed")
    options = parser.parse_args(arguments)
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM):  # also where the parent ignores SIGINT
        signal.signal(number, signal.default_int_handler)
    try:
        with ImageBag(options.bag, options.bag_topic) as bag:
            run(bag, options.topic, options.rate)
    except BagError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
