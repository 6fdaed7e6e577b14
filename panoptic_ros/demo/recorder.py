"""Record what a panoptic node publishes and tell how the node is doing; part of the demo.

Messages are written as they came, with the moment they were received as their time. Events go to
standard output, a line of JSON each: ``ready`` (the node is active and its outputs are
connected), ``result`` and ``diagnostics``. SIGINT, SIGTERM or the end of standard input end it,
with the bag closed.
"""

from __future__ import annotations

import argparse
import select
import shutil
import signal
import struct
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from sensor_msgs.msg import Image

from panoptic_ros.demo.processes import say
from panoptic_ros.files.bag import NANOSECONDS, message_types
from panoptic_ros.msg import PanopticCategoryArray, PanopticInstanceArray

POLL_SECONDS = 0.1
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
RELIABLE = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)


def stamp_of_serialized(data: bytes) -> int:
    """Return the stamp in nanoseconds of a serialized message that begins with a Header.

    CDR: four bytes of encapsulation (the second is 1 for little-endian), then sec and nanosec.
    """
    sec, nanosec = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return sec * NANOSECONDS + nanosec


class OutputRecorder(Node):
    """Writes the outputs of a panoptic node to a bag and follows its state and diagnostics."""

    def __init__(self, node_name: str, writer: Writer) -> None:
        super().__init__("output_recorder")
        self._writer = writer
        self._types = message_types()
        self._get_state = self.create_client(GetState, f"{node_name}/get_state")
        self._active = False
        self._ready = False
        self._outputs = [f"{node_name}/labels", f"{node_name}/instances"]
        for topic, kind in zip(self._outputs, (Image, PanopticInstanceArray), strict=True):
            self._record(topic, kind, RELIABLE)
        self._record(f"{node_name}/categories", PanopticCategoryArray, LATCHED)
        self._record("/diagnostics", DiagnosticArray, RELIABLE)
        self.create_timer(POLL_SECONDS, self._poll)

    def _record(self, topic: str, kind: type, qos: QoSProfile) -> None:
        name = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
        connection = self._writer.add_connection(topic, name, typestore=self._types)
        receive = partial(self._receive, connection, kind)
        self.create_subscription(kind, topic, receive, qos, raw=True)

    def _receive(self, connection: Any, kind: type, data: bytes) -> None:
        received = time.time_ns()
        self._writer.write(connection, received, data)
        if kind is Image:
            say("result", stamp=stamp_of_serialized(data), received=received)
        elif kind is DiagnosticArray:
            for status in deserialize_message(data, DiagnosticArray).status:
                say(
                    "diagnostics",
                    time=received,
                    name=status.name,
                    level=status.level[0],
                    message=status.message,
                    values={pair.key: pair.value for pair in status.values},
                )

    def _poll(self) -> None:
        """Say ``ready`` once the node is active and both its outputs are connected."""
        if self._ready:
            return
        if not self._active:
            if self._get_state.service_is_ready():
                self._get_state.call_async(GetState.Request()).add_done_callback(self._on_state)
            return
        if all(map(self.count_publishers, self._outputs)):
            self._ready = True
            say("ready")

    def _on_state(self, future: Any) -> None:
        self._active = future.result().current_state.id == State.PRIMARY_STATE_ACTIVE


def main(arguments: list[str] | None = None) -> int:
    """Record until told to stop; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bag", type=Path, help="folder of the bag to write; replaced")
    parser.add_argument("--node", default="/panoptic", help="full name of the node")
    options = parser.parse_args(arguments)
    if options.bag.exists():
        shutil.rmtree(options.bag)
    options.bag.parent.mkdir(parents=True, exist_ok=True)
    # Told by a flag, not interrupted: no message is written by halves.
    stopping = threading.Event()
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    writer = Writer(options.bag, version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        executor = SingleThreadedExecutor()
        executor.add_node(OutputRecorder(options.node, writer))
        while not (stopping.is_set() or select.select([sys.stdin], [], [], 0)[0]):
            executor.spin_once(timeout_sec=POLL_SECONDS)
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
