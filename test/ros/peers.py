"""A node in its own process, and a DDS peer in this one to talk to it. Every wait is bounded."""

from __future__ import annotations

import array
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import Image

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = 30.0  # seconds, for anything that should take well below one
DOMAIN = str(1 + os.getpid() % 100)  # so that test runs on one machine do not meet

RELIABLE = QoSProfile(depth=10, reliability=QoSReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=10, reliability=QoSReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(
    depth=1,
    reliability=QoSReliabilityPolicy.RELIABLE,
    durability=QoSDurabilityPolicy.TRANSIENT_LOCAL,
)


def environment() -> dict[str, str]:
    """Return the environment of node processes: loopback only, their own domain."""
    return {
        **os.environ,
        "ROS_DOMAIN_ID": DOMAIN,
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }


class NodeProcess:
    """A node in a process of its own.

    Args:
        folder: Where its log goes.
        module: What ``python -m`` runs; by default the node with the blob segmenter.
        parameters: Given on the command line.
        arguments: More ROS arguments.
    """

    def __init__(
        self,
        folder: Path,
        module: str = "test.ros.blobs",
        parameters: Mapping[str, Any] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self._log = folder / "node.log"
        words = [w for k, v in (parameters or {}).items() for w in ("-p", f"{k}:={v}")]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, "--ros-args", *words, *arguments],
                cwd=REPOSITORY,
                env=environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def log(self) -> str:
        """Return what it has written so far."""
        return self._log.read_text()

    def wait_for_log(self, text: str) -> None:
        """Wait until the log holds a text."""
        wait_until(lambda: text in self.log(), lambda: f"{text!r} in the log:\n{self.log()}")

    def stop(self, with_signal: int = signal.SIGINT) -> int:
        """Signal it to end; returns its exit code, negative if a signal killed it."""
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the node did not end:\n{self.log()}") from None

    def resident_kib(self) -> int:
        """Return its resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])


class Peer:
    """The other side: a camera, a listener and an operator in one ROS node of this process."""

    def __init__(self, node_name: str = "/panoptic") -> None:
        os.environ["ROS_DOMAIN_ID"] = DOMAIN
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self.node = rclpy.create_node("peer", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._node_name = node_name
        self._clients: dict[str, Any] = {}

    def close(self) -> None:
        """Leave."""
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def spin_until(self, condition: Callable[[], Any], what: str = "") -> None:
        """Spin until a condition holds; fails when it never does."""
        wait_until(condition, lambda: what, lambda: self._executor.spin_once(0.05))

    def spin_for(self, seconds: float) -> None:
        """Spin for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(0.02)

    def listen(self, message_type: type, topic: str, qos: QoSProfile = RELIABLE) -> list:
        """Subscribe; returns the list that the messages are put into."""
        messages: list = []
        name = topic if topic.startswith("/") else f"{self._node_name}/{topic}"
        subscription = self.node.create_subscription(message_type, name, messages.append, qos)
        self.spin_until(
            lambda: self.node.count_publishers(subscription.topic_name), f"a publisher of {name}"
        )
        return messages

    def leave(self, topic: str) -> None:
        """Unsubscribe from an output of the node under test."""
        for subscription in list(self.node.subscriptions):
            if subscription.topic_name == f"{self._node_name}/{topic}":
                self.node.destroy_subscription(subscription)

    def camera(self, message_type: type = Image, topic: str = "/image", qos=RELIABLE):
        """Return a publisher that the node under test has subscribed to."""
        publisher = self.node.create_publisher(message_type, topic, qos)
        self.spin_until(publisher.get_subscription_count, f"a subscription to {topic}")
        return publisher

    def feed(
        self, publisher, make_message: Callable[[int], Any], until: Callable[[], Any]
    ) -> None:
        """Publish message after message until a condition holds; fails when it never does."""
        number = 0

        def turn() -> None:
            nonlocal number
            publisher.publish(make_message(number))
            number += 1
            self.spin_for(0.1)

        wait_until(until, lambda: f"an effect of {number} messages", turn)

    def call(self, service_type: type, name: str, request: Any, repeat: bool = True) -> Any:
        """Call a service of the node under test.

        A node drops the answer to a client whose reader it has not discovered within 100 ms
        (rmw_fastrtps issue 842), which happens on a machine under load: what may be asked twice
        is asked again.
        """
        full = f"{self._node_name}/{name}"
        if full not in self._clients:
            self._clients[full] = self.node.create_client(service_type, full)
        client = self._clients[full]
        self.spin_until(client.service_is_ready, f"service {full}")
        futures = [client.call_async(request)]
        asked = time.monotonic()

        def answered() -> bool:
            nonlocal asked
            if repeat and time.monotonic() > asked + PATIENCE / 6:
                futures.append(client.call_async(request))
                asked = time.monotonic()
            return any(future.done() for future in futures)

        self.spin_until(answered, f"an answer of {full}")
        return next(future.result() for future in futures if future.done())

    def state(self) -> str:
        """Return the lifecycle state of the node under test."""
        return self.call(GetState, "get_state", GetState.Request()).current_state.label

    def change_state(self, transition: str) -> bool:
        """Ask for a transition by name; returns whether it succeeded."""
        request = ChangeState.Request()
        request.transition.label = transition
        return self.call(ChangeState, "change_state", request, repeat=False).success

    def wait_for_state(self, label: str) -> None:
        """Wait until the node under test is in a lifecycle state."""
        wait_until(lambda: self.state() == label, lambda: f"state {label}", lambda: None)

    def set_parameters(self, **values: Any) -> str:
        """Set parameters of the node under test; returns the reason if they are refused."""
        messages = [
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
        ]
        request = SetParametersAtomically.Request(parameters=messages)
        answer = self.call(SetParametersAtomically, "set_parameters_atomically", request)
        return "" if answer.result.successful else answer.result.reason

    def get_parameter(self, name: str) -> Any:
        """Return the value of a parameter of the node under test."""
        request = GetParameters.Request(names=[name])
        value = self.call(GetParameters, "get_parameters", request).values[0]
        return Parameter.from_parameter_msg(ParameterMessage(name=name, value=value)).value

    def wait_for_diagnostics(self, condition: Callable[[dict[str, dict[str, str]]], Any]) -> dict:
        """Return the first diagnostics for which a condition holds.

        They are a dictionary by status name (``panoptic: model``) of dictionaries by key, with
        ``level`` and ``message`` among the keys. A condition that asks for what is not there yet
        does not hold.
        """
        reports = self.listen(DiagnosticArray, "/diagnostics")
        latest: dict = {}

        def holds() -> bool:
            for report in reports:
                latest.clear()
                latest.update({status.name: _as_dictionary(status) for status in report.status})
                with contextlib.suppress(KeyError):
                    if condition(latest):
                        return True
            reports.clear()
            return False

        wait_until(
            holds, lambda: f"diagnostics, last: {latest}", lambda: self._executor.spin_once(0.05)
        )
        return latest


def wait_until(
    condition: Callable[[], Any],
    what: Callable[[], str],
    turn: Callable[[], None] = lambda: time.sleep(0.05),
) -> None:
    """Take turns until a condition holds; fails when it never does."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE:.0f} s in vain for {what()}"
        turn()


def picture(height: int = 48, width: int = 64, blob: int = 200, at: int = 10) -> np.ndarray:
    """Return a dark RGB image with one bright blob of 8x12 pixels."""
    image = np.full((height, width, 3), 20, np.uint8)
    image[at : at + 8, at : at + 12] = blob
    return image


def image_message(
    image: np.ndarray, encoding: str = "rgb8", stamp: float = 1.0, frame_id: str = "camera"
) -> Image:
    """Return an image message."""
    message = Image(
        height=image.shape[0], width=image.shape[1], encoding=encoding, step=image.strides[0]
    )
    message.data = array.array("B", image.tobytes())
    stamp_message(message, stamp, frame_id)
    return message


def stamp_message(message: Any, stamp: float, frame_id: str = "camera") -> Any:
    """Set the header of a message."""
    message.header.frame_id = frame_id
    message.header.stamp.sec, fraction = divmod(round(stamp * 1e6), 10**6)
    message.header.stamp.nanosec = fraction * 1000
    return message


def stamp_of(message: Any) -> float:
    """Return the stamp of a message in seconds."""
    return round(message.header.stamp.sec + message.header.stamp.nanosec * 1e-9, 6)


def pixels(message: Image) -> np.ndarray:
    """Return the pixels of an output image."""
    kind = {"16UC1": np.uint16, "mono8": np.uint8, "rgb8": np.uint8}[message.encoding]
    flat = np.frombuffer(message.data, kind)
    shape = (message.height, message.width, 3)[: 3 if message.encoding == "rgb8" else 2]
    assert message.step * message.height == len(message.data)
    return flat.reshape(shape)


def _as_dictionary(status) -> dict[str, str]:
    return {
        "level": status.level,
        "message": status.message,
        **{pair.key: pair.value for pair in status.values},
    }
