"""The processes of ``benchmarks/node.py``: camera, node with a stand-in model, receiver.

Each is ``python -m benchmarks.node_peers ROLE ...``. Events go to standard output, a line of JSON
each; standard input brings the commands ``go`` and ``report``. SIGINT ends a process.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from panoptic_ros.demo.processes import say
from panoptic_ros.prediction import LABEL_DIVISOR, Category, PanopticPrediction, Segment
from panoptic_ros.ros.loading import check_loadable, load_segmenter
from panoptic_ros.ros.parameters import Parameters

NANOSECONDS = 10**9
QOS = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.RELIABLE)
ROAD = Category(7, "road", False, (128, 64, 128))
CAR = Category(26, "car", True, (0, 0, 142))
CARS = 20
JPEG_QUALITY = 80


@dataclass(frozen=True)
class Thresholds:
    """As panoptic_ros.networks.base.PredictionOptions, without torch."""

    score_threshold: float = 0.6
    overlap_threshold: float = 0.5
    stuff_area_limit: int = 0


class StandIn:
    """A segmenter whose answer is always the same and takes a fixed time, which it sleeps.

    Sleeping stands for waiting for a GPU: the cores and the interpreter are free meanwhile.
    """

    categories = (ROAD, CAR)
    device = "cpu"
    precision = "fp32"
    engine = "eager"

    def __init__(self, name: str, resolution: tuple[int, int]) -> None:
        self.name = name
        self.resolution = resolution
        self.options = Thresholds()
        self._seconds = float(name.partition(" ")[2] or 0)
        self._answers: dict[tuple[int, int], PanopticPrediction] = {}

    def __call__(
        self,
        images: Sequence[np.ndarray],
        output_sizes: Sequence[tuple[int, int]],
        confidence: bool = False,
    ) -> list[PanopticPrediction]:
        """Return the answer for each image."""
        if self._seconds:
            time.sleep(self._seconds)
        return [self._answer(size) for size in output_sizes]

    def fit(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """As a network that takes images no larger than its resolution, in their proportions."""
        factor = min(r / side for r, side in zip(self.resolution, image_size, strict=True))
        return tuple(round(factor * side) for side in image_size)

    def _answer(self, size: tuple[int, int]) -> PanopticPrediction:
        if size not in self._answers:
            labels = np.full(size, ROAD.id * LABEL_DIVISOR, np.uint16)
            cars = []
            for number in range(CARS):
                label = CAR.id * LABEL_DIVISOR + number + 1
                labels[:20, 20 * number : 20 * number + 20] = label
                box, center = (20 * number, 0, 20, 20), (20 * number + 9.5, 9.5)
                cars.append(Segment(label, CAR.id, CAR.name, True, 0.9, 400, box, center))
            self._answers[size] = PanopticPrediction(labels, tuple(cars), self.categories)
        return self._answers[size]


def load(parameters: Parameters):
    """Load a model, or make the stand-in ``stand-in SECONDS``."""
    if not parameters.model.startswith("stand-in"):
        return load_segmenter(parameters)
    height, width = (parameters.resolution or "512x1024").split("x")
    return StandIn(parameters.model, (int(height), int(width)))


def check(parameters: Parameters) -> None:
    """Make the quick checks of a model; a stand-in needs none."""
    if not parameters.model.startswith("stand-in"):
        check_loadable(parameters)


def run_node() -> None:
    """Run the node with parameters from the command line."""
    from panoptic_ros.ros.node import PanopticNode, main

    say("process", pid=os.getpid())
    main(sys.argv[2:], make_node=lambda: PanopticNode(load=load, check=check))


class CameraNode(Node):
    """Publishes the same noisy picture on some topics at a rate, each with its own stamp."""

    def __init__(self, topics: Sequence[str], size: str, rate: float, jpeg: bool) -> None:
        super().__init__("camera")
        self._message = picture_message(*map(int, size.split("x")), jpeg)
        self._outputs = [
            self.create_publisher(type(self._message), t + "/compressed" * jpeg, QOS)
            for t in topics
        ]
        self._period = 1 / rate
        self.sent = 0

    def publish_for(self, seconds: float) -> None:
        """Publish on all topics, keeping the rate."""
        start = due = time.monotonic()
        while due < start + seconds:
            rclpy.spin_once(self, timeout_sec=0)
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due, time.monotonic() - self._period) + self._period  # never in a burst
            for output in self._outputs:
                stamp = self._message.header.stamp
                stamp.sec, stamp.nanosec = divmod(time.time_ns(), NANOSECONDS)
                output.publish(self._message)
            self.sent += 1


def picture_message(height: int, width: int, jpeg: bool) -> Image | CompressedImage:
    """Return coloured clouds with the noise of a sensor, as bgr8 or as JPEG."""
    import cv2

    rng = np.random.default_rng(0)
    clouds = cv2.resize(rng.uniform(0, 255, (30, 50, 3)), (width, height))
    data = np.clip(clouds + rng.normal(0, 3, clouds.shape), 0, 255).astype(np.uint8)
    message = Image(height=height, width=width, encoding="bgr8", step=width * 3)
    if jpeg:
        _, data = cv2.imencode(".jpg", data, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        message = CompressedImage(format="jpeg")
    message.data.frombytes(memoryview(data).cast("B"))
    return message


def run_camera(topics: list[str], size: str, rate: float, jpeg: bool, seconds: float) -> None:
    """Publish for some seconds at every ``go``."""
    camera = CameraNode(topics, size, rate, jpeg)
    say("ready")

    def go(_: str) -> None:
        before = camera.sent
        camera.publish_for(seconds)
        say("sent", number=camera.sent - before)

    obey(camera, go)


class Receiver(Node):
    """Notes the age of every image on some topics, and the node's newest diagnostics."""

    def __init__(self, topics: Sequence[str]) -> None:
        super().__init__("receiver")
        self.ages: defaultdict[str, list[float]] = defaultdict(list)
        self.diagnostics: dict[str, dict[str, str]] = {}
        for topic in topics:
            self.create_subscription(Image, topic, lambda m, t=topic: self._note(t, m), QOS)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, QOS)

    def _note(self, topic: str, message: Image) -> None:
        stamp = message.header.stamp
        self.ages[topic].append((time.time_ns() - stamp.nanosec) / NANOSECONDS - stamp.sec)

    def _on_diagnostics(self, report: DiagnosticArray) -> None:
        for status in report.status:
            values = {pair.key: pair.value for pair in status.values}
            self.diagnostics[status.name.partition(": ")[2]] = values
        say("diagnostics", **self.diagnostics)


def run_receiver(topics: list[str]) -> None:
    """Receive; tell the ages since the last report at every ``report``."""
    receiver = Receiver(topics)
    say("ready")

    def report(_: str) -> None:
        say("ages", ages=dict(receiver.ages))
        receiver.ages.clear()

    obey(receiver, report)


def obey(node: Node, act: Callable[[str], None]) -> None:
    """Spin, and act on each line of standard input until it ends."""
    while True:
        rclpy.spin_once(node, timeout_sec=0.1)
        if select.select([sys.stdin], [], [], 0)[0]:
            if not (line := sys.stdin.readline()):
                return
            act(line)


def main() -> None:
    """Run one of the processes."""
    if sys.argv[1] == "node":
        return run_node()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("role", choices=["camera", "receiver"])
    parser.add_argument("topics", nargs="*")
    parser.add_argument("--size", default="1080x1920")
    parser.add_argument("--rate", type=float, default=30.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--jpeg", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rclpy.init(args=[])
    try:
        if options.role == "camera":
            run_camera(options.topics, options.size, options.rate, options.jpeg, options.seconds)
        else:
            run_receiver(options.topics)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
