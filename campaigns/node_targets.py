"""The node as a fuzz target: its parameters, its launch arguments, and its topics over DDS."""

from __future__ import annotations

import array
import json
import random
import runpy
import time
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image

from campaigns.image_targets import message_examples, random_message, unpack
from campaigns.mutation import VALUES, mutate_bytes
from campaigns.targets import Target
from panoptic_ros.ros.parameters import Parameters
from panoptic_ros.system import share_directory
from test.ros.blobs import make_node
from test.ros.peers import NodeProcess, Peer, image_message, picture, stamp_message


class RefusedError(ValueError):
    """The node says no, with a reason."""


def parameters() -> Target:
    """Values of parameters, set on a node in this process that is active."""
    rclpy.init()
    node = make_node(parameter_overrides=[Parameter("model", value="blobs")])
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    node.start()
    names = [*Parameters.__dataclass_fields__, "use_sim_time", "no_such_parameter"]

    def use(data: bytes) -> None:
        try:
            values = json.loads(data)
            wanted = [Parameter(str(name), value=value) for name, value in values.items()]
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise RefusedError("no values that a parameter can have") from None
        results = node.set_parameters_atomically(wanted) if wanted else None
        executor.spin_once(0)
        if results and not results.successful:
            raise RefusedError(results.reason)
        node.get_parameters(names[:5])

    def generate(rng: random.Random) -> bytes:
        words = ("blobs", "auto", "cpu", "fp32", "512x1024", "100000x100000", "0x0", "64x64")
        return json.dumps(
            {rng.choice(names): rng.choice((*VALUES, *words)) for _ in range(rng.choice((1, 3)))}
        ).encode()

    good = [json.dumps(values).encode() for values in ({"max_rate": 5.0}, {"model": "blobs"})]
    undeclared = rclpy.exceptions.ParameterNotDeclaredException
    return Target("parameters", good, use, (RefusedError, undeclared), (), generate)


def launch_arguments() -> Target:
    """Arguments of the launch file: each is taken or refused before anything starts."""
    from launch import LaunchContext
    from launch.actions import DeclareLaunchArgument

    launch_file = runpy.run_path(str(share_directory() / "launch" / "panoptic.launch.py"))
    declared: list[DeclareLaunchArgument] = launch_file["ARGUMENTS"]

    def use(data: bytes) -> None:
        try:
            given = {str(k): str(v) for k, v in json.loads(data).items()}
        except (ValueError, AttributeError, RecursionError):
            raise RefusedError("no arguments") from None
        context = LaunchContext()
        context.launch_configurations.update(given)
        for argument in declared:
            argument.visit(context)
        launch_file["start_node"](context)

    def generate(rng: random.Random) -> bytes:
        names = [argument.name for argument in declared]
        values = [*map(str, VALUES), "true", "left,right", "/a/image,/b/image", "cpu"]
        count = rng.choice((1, 2, 3))
        return json.dumps({rng.choice(names): rng.choice(values) for _ in range(count)}).encode()

    refusals = (RefusedError, RuntimeError, ValueError)
    return Target("launch", [b"{}", b'{"model": "fpsnet_small"}'], use, refusals, (), generate)


def node_over_dds(folder: Path) -> Target:
    """Messages, and bytes that are none, to a node in a process of its own."""
    session = _Session(folder)
    examples = message_examples()

    def generate(rng: random.Random) -> bytes:
        message = random_message(rng, examples)
        if rng.random() < 0.3:
            return b"cdr" + mutate_bytes(rng, session.serialised())
        return message

    return Target("node", examples, session.send, (), [b"cdr" + session.serialised()], generate)


class _Session:
    """A raw and a compressed node beside each other, and what they say."""

    def __init__(self, folder: Path) -> None:
        self.nodes = []
        for transport in ("raw", "compressed"):
            (folder / transport).mkdir(exist_ok=True)
            self.nodes.append(
                NodeProcess(
                    folder / transport,
                    parameters={"model": "blobs", "image_transport": transport},
                    arguments=("-r", f"__node:={transport}", "-r", f"image:=/{transport}/image"),
                )
            )
        self.peer = Peer("/raw")
        self.results = self.peer.listen(Image, "/raw/labels")
        self.others = self.peer.listen(Image, "/compressed/labels")
        self.raw = self.peer.camera(Image, "/raw/image")
        self.compressed = self.peer.camera(CompressedImage, "/compressed/image/compressed")
        self.count = 0

    def serialised(self) -> bytes:
        """Return a good message as it travels."""
        return serialize_message(image_message(picture()))

    def send(self, data: bytes) -> None:
        """Publish an input, and every tenth time a good image, whose labels must come."""
        if data.startswith(b"cdr"):
            self.raw.publish(data[3:])
        elif (message := unpack(data)) is not None:
            publisher, sent = self._as_message(message)
            publisher.publish(stamp_message(sent, 1.0))
        self.peer.spin_for(0.005)
        self.count += 1
        if self.count % 10 == 0:
            self.check_served()

    def check_served(self) -> None:
        """Publish good images until the labels of one come; both nodes must be alive."""
        stamp = 1_000.0 + self.count
        end = time.monotonic() + 8
        while not any(m.header.stamp.sec == int(stamp) for m in self.results):
            assert all(node.process.poll() is None for node in self.nodes), "a node has died"
            assert time.monotonic() < end, "a good image is not served any more"
            self.raw.publish(image_message(picture(), stamp=stamp))
            self.peer.spin_for(0.02)
        self.results.clear()
        self.others.clear()

    def _as_message(self, fields: Any) -> tuple[Any, Any]:
        data = array.array("B", fields.data)
        if hasattr(fields, "format"):
            text = fields.format.encode("utf-8", "replace").decode()
            return self.compressed, CompressedImage(format=text, data=data)
        message = Image(
            height=fields.height,
            width=fields.width,
            step=fields.step,
            is_bigendian=min(fields.is_bigendian, 255),
            encoding=fields.encoding,
        )
        message.data = data
        return self.raw, message
