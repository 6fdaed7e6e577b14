"""The launch files: their arguments, what they start, and the environment that they set."""

from __future__ import annotations

import ast
import importlib.util
import os
import platform
import subprocess
import sys
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
