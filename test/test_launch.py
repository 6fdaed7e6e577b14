"""The launch files: their arguments, what they start, and the environment that they set."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from panoptic_ros import system
from panoptic_ros.system import large_image_environment

ROOT = Path(__file__).resolve().parent.parent
LAUNCH = ROOT / "launch"
LIMIT = 120  # seconds for one process on a busy machine
PLAIN_ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("MALLOC_", "FASTDDS_", "FASTRTPS_"))
}
needs_ros = pytest.mark.skipif(not importlib.util.find_spec("rclpy"), reason="without rclpy")


def arguments(name: str) -> dict[str, ast.Call]:
    """Read the declared arguments of a launch file without running it."""
    calls = [node for node in ast.walk(parse(name)) if isinstance(node, ast.Call)]
    return {
        call.args[0].value: call
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "DeclareLaunchArgument"
    }


def parse(name: str) -> ast.Module:
    """Parse a launch file."""
    source = (LAUNCH / name).read_text()
    compile(source, name, "exec")
    return ast.parse(source)


def parameters_of_launch() -> dict[str, str]:
    """Return the parameters that panoptic.launch.py passes on, with their types."""
    (table,) = (
        node.value
        for node in parse("panoptic.launch.py").body
        if isinstance(node, ast.Assign) and node.targets[0].id == "PARAMETERS"
    )
    return {k.value: v.id for k, v in zip(table.keys, table.values, strict=True)}


@pytest.mark.parametrize("name", sorted(path.name for path in LAUNCH.glob("*.launch.py")))
def test_every_argument_is_described(name):
    declared = arguments(name)
    assert declared
    for argument, call in declared.items():
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        assert given["description"].value.endswith("."), argument


@needs_ros
def test_arguments_are_parameters_of_the_node():
    from dataclasses import fields

    from panoptic_ros.ros.parameters import Parameters

    types = {field.name: type(field.default).__name__ for field in fields(Parameters)}
    types["use_sim_time"] = "bool"  # every node has it
    passed = parameters_of_launch()
    assert passed == {name: types.get(name) for name in passed}
    others = {"params_file", "namespace", "large_images", "rviz"}
    inputs = {"image", "depth", "camera_info", "cameras", "mask_classes"}
    assert set(arguments("panoptic.launch.py")) == set(passed) | others | inputs


def functions_of_launch(*names: str) -> dict:
    """Run some functions of panoptic.launch.py, which need nothing of launch."""
    wanted = [n for n in parse("panoptic.launch.py").body if getattr(n, "name", "") in names]
    space: dict = {}
    exec(compile(ast.Module(wanted, []), "panoptic.launch.py", "exec"), space)
    return space


def test_topics_of_several_cameras():
    remappings = functions_of_launch("split", "remappings")["remappings"]
    assert remappings([], "image", "/camera/image_raw") == [("image", "/camera/image_raw")]
    assert remappings(["front", "left"], "image", "image") == []
    assert remappings(["front", "left"], "depth", "/f, /l") == [
        ("front/depth", "/f"),
        ("left/depth", "/l"),
    ]
    with pytest.raises(ValueError, match="image names 1 topics for 2 cameras"):
        remappings(["front", "left"], "image", "/f")


def test_params_file_is_for_a_node_of_any_name():
    text = (ROOT / "config" / "panoptic.yaml").read_text()
    assert list(yaml.safe_load(text)) == ["/**"]


def test_rviz_layout_shows_topics_that_the_launch_file_remaps():
    layout = yaml.safe_load((ROOT / "config" / "panoptic.rviz").read_text())
    topics = {d["Topic"]["Value"] for d in layout["Visualization Manager"]["Displays"]}
    source = (LAUNCH / "panoptic.launch.py").read_text()
    assert topics == {"/image", "/panoptic/overlay", "/panoptic/labels"}
    assert all(f'("{topic}", ' in source for topic in topics)


@pytest.mark.parametrize(
    ("sourced", "rclpy", "distribution", "variable"),
    [
        ("humble", "9.1.2", "humble", "FASTRTPS_DEFAULT_PROFILES_FILE"),  # sourced comes first
        ("jazzy", "unknown", "jazzy", "FASTRTPS_DEFAULT_PROFILES_FILE"),
        ("kilted", "7.1.6", "kilted", "FASTDDS_DEFAULT_PROFILES_FILE"),
        ("", "3.3.16", "humble", "FASTRTPS_DEFAULT_PROFILES_FILE"),
        (None, "7.1.6", "jazzy", "FASTRTPS_DEFAULT_PROFILES_FILE"),
        (None, "9.1.2", "kilted", "FASTDDS_DEFAULT_PROFILES_FILE"),
        (None, "unknown", "unknown", "FASTDDS_DEFAULT_PROFILES_FILE"),
    ],
)
def test_profile_variable_fits_the_distribution(
    monkeypatch, sourced, rclpy, distribution, variable
):
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    if sourced is not None:
        monkeypatch.setenv("ROS_DISTRO", sourced)
    monkeypatch.setattr(system, "package_version", lambda name: rclpy)
    assert system.ros_distribution() == distribution
    assert system.profile_variable() == variable
    assert Path(large_image_environment()[variable]).is_file()


def run_python(code: str, **variables: str) -> str:
    """Run code in a fresh interpreter and return its last line."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**PLAIN_ENVIRONMENT, **variables},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-1]


SEGMENT_SIZE = """
import os, rclpy
rclpy.init()
node = rclpy.create_node("segment")
maps = {line.split()[-1] for line in open("/proc/self/maps") if "/dev/shm/fast" in line}
print(max(map(os.path.getsize, maps)))
rclpy.shutdown()
"""


@needs_ros
@pytest.mark.skipif(
    os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp") != "rmw_fastrtps_cpp",
    reason="without Fast DDS",
)
def test_profile_makes_a_large_shared_memory_segment():
    assert int(run_python(SEGMENT_SIZE)) < 1 << 20
    assert int(run_python(SEGMENT_SIZE, **large_image_environment())) >= 64 << 20


# As the worker of the node does: large blocks come and go in a thread. Each new page is a fault.
PAGE_FAULTS = """
import resource, threading
import numpy as np

def use_large_blocks(rounds):
    for _ in range(rounds):
        blocks = [np.ones(size << 20, np.uint8) for size in (6, 40, 100)]

def count():
    global faults
    use_large_blocks(2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    use_large_blocks(5)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

thread = threading.Thread(target=count)
thread.start()
thread.join()
print(faults)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for glibc only")
def test_malloc_keeps_the_memory_of_large_images():
    plain = int(run_python(PAGE_FAULTS))
    tuned = int(run_python(PAGE_FAULTS, **large_image_environment()))
    assert tuned < plain / 10


# From here on with the real launch, which a pip installation of ROS 2 lacks.

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
    ros2.write_text(f'#!/bin/sh\necho "$@" >> {notes}\n')
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
    assert running.parameter("use_sim_time") is True
