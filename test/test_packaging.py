"""Builds the package as colcon and as pip do, and uses both halves of what they install."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

import pytest

import panoptic_ros
from test.building import (
    LIMIT,
    MESSAGES,
    ROOT,
    copy_sources,
    files,
    find_program,
    missing_tools,
    prepended,
    run,
    site_packages,
)

# Serialising needs the type support libraries, so it shows that they are found.
PROBE = """
import json, re
import panoptic_ros.msg, panoptic_ros.networks, panoptic_ros.segmenter
from panoptic_ros.system import share_directory
from rclpy.serialization import deserialize_message, serialize_message
message = panoptic_ros.msg.PanopticInstanceArray(
    model="tiny", instances=[panoptic_ros.msg.PanopticInstance(id=257)])
data = serialize_message(message)
assert deserialize_message(data, panoptic_ros.msg.PanopticInstanceArray) == message
libraries = re.findall(r"\\S*libpanoptic_ros__\\S*", open("/proc/self/maps").read())
print(json.dumps({
    "messages": [name for name in dir(panoptic_ros.msg) if name.startswith("Panoptic")],
    "files": [panoptic_ros.msg.__file__, panoptic_ros.segmenter.__file__, *set(libraries)],
    "share": str(share_directory()),
}))
"""

CONSUMER_CMAKE = """
cmake_minimum_required(VERSION 3.16)
project(consumer)
find_package(panoptic_ros REQUIRED)
add_executable(consumer main.cpp)
target_link_libraries(consumer ${panoptic_ros_TARGETS})
"""
CONSUMER_CPP = """
#include <iostream>
#include <panoptic_ros/msg/panoptic_category_array.hpp>
#include <panoptic_ros/msg/panoptic_instance_array.hpp>
#include <rosidl_typesupport_cpp/message_type_support.hpp>

int main() {
  using panoptic_ros::msg::PanopticInstanceArray;
  PanopticInstanceArray array;
  array.instances.emplace_back().id = 257;
  panoptic_ros::msg::PanopticCategoryArray categories;
  const auto * type =
    rosidl_typesupport_cpp::get_message_type_support_handle<PanopticInstanceArray>();
  std::cout << array.instances.at(0).id << " " << (type != nullptr) << std::endl;
}
"""


class Installation(NamedTuple):
    """Where a build was installed from and to, and the environment in which it is used."""

    sources: Path
    prefix: Path
    environment: dict[str, str]


pytestmark = pytest.mark.timeout(900)  # compilers on a busy machine
needs_tools = pytest.mark.skipif(bool(missing_tools()), reason=f"without {missing_tools()}")


def build_environment() -> dict[str, str]:
    """Return an environment in which the build tools find ROS, sourced or in this prefix."""
    beside = str(Path(sys.executable).parent)
    return prepended(
        os.environ, PATH=beside, AMENT_PREFIX_PATH=sys.prefix, CMAKE_PREFIX_PATH=sys.prefix
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """What the builds of this file read."""
    return copy_sources(tmp_path_factory.mktemp("panoptic_ros"))


@pytest.fixture(scope="module")
def colcon_build(sources, tmp_path_factory) -> Installation:
    """Build and install with colcon, as in a workspace on a robot."""
    workspace = tmp_path_factory.mktemp("workspace")
    prefix = workspace / "install"
    environment = build_environment()
    run(
        *(find_program("colcon"), "--log-base", workspace / "log", "build", "--merge-install"),
        *("--base-paths", sources, "--install-base", prefix),
        *("--build-base", workspace / "build", "--event-handlers", "console_direct+"),
        *("--cmake-args", "-DBUILD_TESTING=OFF", f"-DPython3_EXECUTABLE={sys.executable}"),
        f"-DCMAKE_PROJECT_INCLUDE={sources}/cmake/ros_wheels.cmake",
        cwd=workspace,
        env=environment,
    )
    return installation(sources, prefix, environment)


@pytest.fixture(scope="module")
def pip_build(sources, tmp_path_factory) -> Installation:
    """Build a wheel and install it into a prefix of its own."""
    folder = tmp_path_factory.mktemp("pip")
    prefix = folder / "prefix"
    environment = build_environment()
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(
        *(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, sources),
        env=environment,
    )
    (wheel,) = folder.glob("*.whl")
    run(*pip, "install", "--no-deps", "--ignore-installed", "--prefix", prefix, wheel)
    return installation(sources, prefix, environment)


def installation(sources: Path, prefix: Path, environment: dict[str, str]) -> Installation:
    """Return an installation with the environment that its setup files would make."""
    used = prepended(
        environment,
        AMENT_PREFIX_PATH=str(prefix),
        CMAKE_PREFIX_PATH=str(prefix),
        PATH=str(prefix / "bin"),
        PYTHONPATH=str(site_packages(prefix)),
        LD_LIBRARY_PATH=str(prefix / "lib"),
    )
    return Installation(sources, prefix, used)


def check_installation(build: Installation) -> None:
    """Check that both halves come from the installation, and what lies in its share folder."""
    output = run(sys.executable, "-c", PROBE, env=build.environment, cwd=build.prefix)
    found = json.loads(output.splitlines()[-1])
    assert sorted(found["messages"]) == MESSAGES
    assert len(found["files"]) > 2
    for file in found["files"]:
        assert Path(file).is_relative_to(build.prefix), file
    share = build.prefix / "share" / "panoptic_ros"
    assert found["share"] == str(share)
    for folder in ("config", "launch", "models"):
        assert files(share / folder) == files(build.sources / folder)
    index = build.prefix / "share" / "ament_index" / "resource_index"
    assert (index / "packages" / "panoptic_ros").is_file()
    listed = (index / "rosidl_interfaces" / "panoptic_ros").read_text().split()
    assert {f"msg/{name}.msg" for name in MESSAGES} <= set(listed)
    check_node(build)


def check_node(build: Installation) -> None:
    """Check that the installed node starts: it refuses a parameter and says so."""
    node = build.prefix / "lib" / "panoptic_ros" / "panoptic_node"
    result = subprocess.run(
        [node, "--ros-args", "-p", "precision:=seven"],
        env=build.environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert result.returncode == 1, result.stderr
    assert "cannot start" in result.stderr
    assert "seven" in result.stderr


@needs_tools
def test_colcon(colcon_build):
    check_installation(colcon_build)
    version = run(
        colcon_build.prefix / "bin" / "panoptic", "--version", env=colcon_build.environment
    )
    assert version.split()[-1] == panoptic_ros.__version__


@needs_tools
def test_pip(pip_build):
    check_installation(pip_build)
    for name in ("panoptic", "panoptic_node"):
        assert os.access(pip_build.prefix / "bin" / name, os.X_OK)


@needs_tools
def test_messages_are_found_from_cpp(colcon_build, tmp_path):
    (tmp_path / "CMakeLists.txt").write_text(CONSUMER_CMAKE)
    (tmp_path / "main.cpp").write_text(CONSUMER_CPP)
    wheels = f"-DCMAKE_PROJECT_INCLUDE={ROOT}/cmake/ros_wheels.cmake"
    cmake, environment = find_program("cmake"), colcon_build.environment
    run(cmake, "-S", tmp_path, "-B", tmp_path / "build", wheels, env=environment)
    run(cmake, "--build", tmp_path / "build", env=environment)
    assert run(tmp_path / "build" / "consumer", env=environment).split() == ["257", "1"]


def test_versions_agree():
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    assert manifest.findtext("version") == panoptic_ros.__version__
    assert manifest.findtext("export/build_type") == "ament_cmake"


def test_all_messages_are_built():
    listed = (ROOT / "CMakeLists.txt").read_text()
    assert [name for name in MESSAGES if f"msg/{name}.msg" not in listed] == []


def pinned(file):
    """Return name==version of the lines of a list or a lock, without extras and conditions."""
    lines = [
        line.split("#")[0].split(";")[0].strip(" \\") for line in file.read_text().splitlines()
    ]
    return {re.sub(r"\[.*\]", "", line) for line in lines if "==" in line}


@pytest.mark.parametrize(
    ("lock", "lists"),
    [
        ("kilted", ("run", "ros-kilted", "test")),
        ("jazzy", ("run", "ros-jazzy", "test")),
        ("docs", ("docs",)),
        ("audit", ("audit",)),
        ("uv", ("uv",)),
    ],
)
def test_the_locks_hold_what_the_lists_pin(lock, lists):
    wanted = set().union(*(pinned(ROOT / f"requirements/{name}.txt") for name in lists))
    assert wanted
    missing = wanted - pinned(ROOT / f"requirements/{lock}.lock")
    assert not missing, f"{sorted(missing)} not in {lock}.lock: make lock"
