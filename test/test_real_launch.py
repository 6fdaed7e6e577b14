"""The launch files with the real launch, which a pip installation of ROS 2 lacks."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from panoptic_ros.system import large_image_environment
from test.test_launch import LAUNCH, LIMIT, PLAIN_ENVIRONMENT

LAUNCH_CODE = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

file, *words = sys.argv[1:]
service = LaunchService()
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
    PythonLaunchDescriptionSource(file),
    launch_arguments=[tuple(word.split(":=", 1)) for word in words])]))
sys.exit(service.run())
"""


class Launch:
    """A launch file that runs, and a node that looks at what it started."""

    def __init__(self, file: str, *words: str, path: str = "", namespace: str = "") -> None:
        import rclpy

        prefixes = os.pathsep.join([sys.prefix, os.environ.get("AMENT_PREFIX_PATH", "")])
        programs = os.pathsep.join([path, str(Path(sys.executable).parent), os.environ["PATH"]])
        domain = str(os.getpid() % 100 + 1)
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH_CODE, str(LAUNCH / file), *words],
            env={
                **PLAIN_ENVIRONMENT,
                "AMENT_PREFIX_PATH": prefixes,
                "PATH": programs,
                "ROS_DOMAIN_ID": domain,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.context = rclpy.Context()
        self.context.init(domain_id=int(domain))
        self.node = rclpy.create_node("observer", context=self.context)
        self.executor = rclpy.executors.SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.name = f"{namespace}/panoptic"

    def call(self, service_type, service: str, request):
        """Call a service of the node once it is there."""
        client = self.node.create_client(service_type, f"{self.name}/{service}")
        assert client.wait_for_service(LIMIT), f"no {service} of {self.name}"
        future = client.call_async(request)
        self.executor.spin_until_future_complete(future, LIMIT)
        return future.result()

    def wait_until_active(self) -> None:
        """Wait until the node has loaded its model and works."""
        from lifecycle_msgs.srv import GetState

        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            if (
                self.call(GetState, "get_state", GetState.Request()).current_state.label
                == "active"
            ):
                return
            time.sleep(0.2)
        raise TimeoutError(f"{self.name} did not become active")

    def images_listened_to(self) -> dict[str, list[str]]:
        """Listen to the labels, so that the node subscribes; return its image topics by name."""
        from rclpy.node import NodeNameNonExistentError
        from sensor_msgs.msg import Image

        self.node.create_subscription(Image, f"{self.name}/labels", lambda _: None, 1)
        namespace, name = self.name.rsplit("/", 1)
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            with contextlib.suppress(NodeNameNonExistentError):  # its name is not known yet
                topics = self.node.get_subscriber_names_and_types_by_node(name, namespace or "/")
                if images := {topic: types for topic, types in topics if "image" in topic}:
                    return images
            time.sleep(0.2)
        raise TimeoutError(f"{self.name} did not subscribe to any image")

    def parameter(self, name: str):
        """Return the value of a parameter of the node."""
        from rcl_interfaces.srv import GetParameters
        from rclpy.parameter import parameter_value_to_python

        response = self.call(GetParameters, "get_parameters", GetParameters.Request(names=[name]))
        return parameter_value_to_python(response.values[0])

    def environment_of_node(self) -> dict[str, str]:
        """Read the environment of the process that the launch file started."""
        launch = self.process.pid
        child = Path(f"/proc/{launch}/task/{launch}/children").read_text().split()[0]
        entries = Path(f"/proc/{child}/environ").read_text().split("\0")
        return dict(entry.split("=", 1) for entry in entries if entry)

    def stop(self) -> str:
        """End it and the node as Ctrl-C in a terminal does; return what they printed."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.communicate(timeout=LIMIT)[0]


@pytest.fixture
def launch():
    """Return a function that runs a launch file; the test's end ends it."""
    pytest.importorskip("launch_ros", reason="without launch_ros")
    running = []

    def start(*words: str, **options) -> Launch:
        running.append(Launch(*words, **options))
        return running[-1]

    yield start
    for one in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(one.process.pid, signal.SIGKILL)
        one.process.communicate()
        one.node.destroy_node()
        one.context.try_shutdown()


def test_launch_starts_the_node(launch, tiny_model):
    running = launch(
        "panoptic.launch.py",
        f"model:={tiny_model}",
        "resolution:=64x96",
        "device:=cpu",
        "precision:=fp32",
        "engine:=eager",
        "image:=/camera/image_raw",
        "image_transport:=compressed",
        "depth:=/camera/depth",
        "camera_info:=/camera/info",
        "mask_classes:=car, 1",
        "namespace:=front",
        namespace="/front",
    )
    running.wait_until_active()
    assert running.parameter("resolution") == "64x96"
    assert running.parameter("engine") == "eager"
    assert running.parameter("overlay_opacity") == 0.6  # from params_file
    assert running.parameter("use_sim_time") is False
    assert running.parameter("depth") is True
    assert list(running.parameter("mask_classes")) == ["car", "1"]
    assert running.images_listened_to() == {
        "/camera/image_raw/compressed": ["sensor_msgs/msg/CompressedImage"]
    }
    assert large_image_environment().items() <= running.environment_of_node().items()
    output = running.stop()
    assert "start the camera driver with the same" in output
    assert "process has finished cleanly" in output, output


@pytest.mark.parametrize(
    ("name", "depth", "mask"),
    [
        ("nav2", True, [""]),
        ("nvblox", False, ["person"]),
        ("hydra", False, [""]),
        ("elevation_mapping", True, ["road", "sidewalk"]),
    ],
)
def test_launch_for_consumers(launch, tiny_model, name, depth, mask):
    words = ["start:=false"] if name != "nav2" else []
    running = launch(
        f"{name}.launch.py", f"model:={tiny_model}", "resolution:=64x96", "device:=cpu", *words
    )
    running.wait_until_active()
    assert running.parameter("depth") is depth
    assert list(running.parameter("mask_classes")) == mask
    assert running.images_listened_to() == {
        "/camera/color/image_raw": ["sensor_msgs/msg/Image"],
    }
    output = running.stop()
    assert "process has finished cleanly" in output, output


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Return a function that installs a program, which notes arguments and parameter files."""

    def install(package: str, program: str) -> Path:
        index = tmp_path / "share" / "ament_index" / "resource_index" / "packages"
        file, notes = tmp_path / "lib" / package / program, tmp_path / program
        for folder in (index, file.parent, tmp_path / "share" / package / "config" / "core"):
            folder.mkdir(parents=True, exist_ok=True)
        (index / package).touch()
        (tmp_path / "share" / package / "config" / "core" / "core_param.yaml").touch()
        file.write_text(
            "#!/bin/sh\n"
            'for word in "$@"; do echo "$word"; [ -f "$word" ] && cat "$word"; done'
            f" > {notes}.new\n"
            f"mv {notes}.new {notes}\n"
        )
        file.chmod(0o755)
        monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
        return notes

    return install


def lines_of(notes: Path) -> list[str]:
    deadline = time.monotonic() + LIMIT
    while not notes.exists():
        assert time.monotonic() < deadline, f"{notes.name} was not started"
        time.sleep(0.1)
    return [line.strip() for line in notes.read_text().splitlines()]


@pytest.mark.parametrize(
    ("words", "topic", "info", "clock"),
    [
        ([], "/panoptic/mask", "/camera/color/camera_info", False),
        (
            ["namespace:=/robot", "use_sim_time:=true", "camera_info:=/zed/info"],
            "/robot/panoptic/mask",
            "/zed/info",
            True,
        ),
    ],
)
def test_consumers_follow_the_node(launch, stand_in, tiny_model, words, topic, info, clock):
    words = [f"model:={tiny_model}", "autostart:=false", *words]
    mask = "subscribers.panoptic_mask"
    for name, package, program, passed in (
        (
            "nvblox",
            "nvblox_ros",
            "nvblox_node",
            {f"camera_0/mask/image:={topic}", f"camera_0/mask/camera_info:={info}"},
        ),
        (
            "elevation_mapping",
            "elevation_mapping_cupy",
            "elevation_mapping_node",
            {f"{mask}.topic_name: {topic}", f"{mask}.camera_info_topic_name: {info}"},
        ),
    ):
        notes = stand_in(package, program)
        launch(f"{name}.launch.py", *words)
        lines = lines_of(notes)
        assert passed <= set(lines)
        assert ("use_sim_time: true" in lines) is clock


@pytest.mark.parametrize(
    ("words", "remapped"),
    [
        (["image:=/image_raw"], ["/image:=/image_raw", "/panoptic/overlay:=panoptic/overlay"]),
        (
            ["cameras:=front,left", "image:=/f, /l"],
            ["/image:=/f", "/panoptic/overlay:=panoptic/front/overlay"],
        ),
        (["cameras:=front,left"], ["/image:=front/image"]),
    ],
)
def test_rviz_shows_the_first_camera(launch, stand_in, tiny_model, words, remapped):
    rviz = stand_in("rviz2", "rviz2")
    launch("panoptic.launch.py", f"model:={tiny_model}", "autostart:=false", "rviz:=true", *words)
    assert set(remapped) <= set(lines_of(rviz))


def test_an_argument_that_is_not_given_leaves_simulated_time_to_the_file(
    launch, tiny_model, tmp_path
):
    file = tmp_path / "params.yaml"
    file.write_text(f"/**:\n  ros__parameters: {{use_sim_time: true, model: {tiny_model}}}\n")
    running = launch("panoptic.launch.py", f"params_file:={file}", "autostart:=false")
    assert running.parameter("use_sim_time") is True


def test_launch_leaves_the_environment_alone(launch, tiny_model):
    running = launch(
        "panoptic.launch.py", f"model:={tiny_model}", "large_images:=false", "autostart:=false"
    )
    assert running.parameter("autostart") is False
    assert not large_image_environment().keys() & running.environment_of_node().keys()
    assert "camera driver" not in running.stop()


def test_replay_plays_the_bag_when_the_node_is_active(launch, tiny_model, tmp_path):
    """A stand-in for ros2 notes the state of the node and what it was asked to play."""
    notes = tmp_path / "notes"
    ros2 = tmp_path / "ros2"
    ros2.write_text(f'#!/bin/sh\nenv > {tmp_path}/environment\necho "$@" >> {notes}\n')
    ros2.chmod(0o755)
    running = launch(
        "replay.launch.py",
        "bag:=drive",
        "rate:=2.0",
        "loop:=true",
        "rviz:=false",
        "image:=/camera/image_raw",
        f"model:={tiny_model}",
        "engine:=eager",
        "autostart:=false",
        path=str(tmp_path),
    )
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        assert not notes.exists()
        request = ChangeState.Request(transition=Transition(id=transition))
        assert running.call(ChangeState, "change_state", request).success
    deadline = time.monotonic() + LIMIT
    while not (notes.exists() and notes.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert notes.read_text() == "bag play drive --clock --rate 2.0 --loop\n"
    lines = (tmp_path / "environment").read_text().splitlines()
    assert {f"{name}={value}" for name, value in large_image_environment().items()} <= set(lines)
    assert running.parameter("use_sim_time") is True
