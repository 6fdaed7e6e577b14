"""The system around the program: files that are not code, environment variables, memory."""

from __future__ import annotations

import ctypes
import errno
import glob
import hashlib
import importlib.metadata
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

# Names in malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -2, -3, -4
_PR_SET_PDEATHSIG = 1  # in prctl.h
ABANDONED = 3600.0  # seconds after which nobody still writes to a temporary name
MAX_YAML_BYTES, MAX_YAML_VALUES = 1 << 20, 100_000
DISTRIBUTIONS = {"3": "humble", "7": "jazzy", "9": "kilted"}  # by major version of rclpy
FAST_DDS_2_DISTRIBUTIONS = ("humble", "jazzy")


def end_with_parent() -> None:
    """Let the kernel end this process when the thread that started it ends; on Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@cache
def share_directory() -> Path:
    """Return the folder that holds ``models``, ``config`` and ``launch``.

    That is the repository when the code runs from it (also through symbolic links), and
    ``PREFIX/share/panoptic_ros`` when it was installed by colcon or pip.

    Raises:
        FileNotFoundError: Neither is there; the installation is not whole.
    """
    package = Path(__file__).resolve().parent
    if (package.parent / "package.xml").is_file():
        return package.parent
    candidates = [p / "share" / "panoptic_ros" for p in Path(__file__).absolute().parents]
    for folder in candidates:
        if (folder / "config").is_dir():
            return folder
    raise FileNotFoundError(
        f"found no share/panoptic_ros with config/ above {package}; install the package again"
    )


@cache
def processor() -> dict[str, str]:
    """Return what Linux says of the first processor: ``model name``, ``flags`` and the like."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return {"model name": platform.processor() or platform.machine()}
    lines = text.split("\n\n")[0].splitlines()
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def cpu_name() -> str:
    """Return the processor's name, and what it knows that matters for the precision."""
    flags = processor().get("flags", "").split()
    known = [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in flags]
    return f"{processor().get('model name', platform.machine())} ({', '.join(known)})"


def usable_cores() -> int:
    """Return how many logical cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def package_version(name: str) -> str:
    """Return the version of an installed Python package, or ``unknown``."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def ros_distribution() -> str:
    """Return the name of the ROS 2 distribution, or ``unknown``.

    What is sourced sets ``ROS_DISTRO``; PyPI's wheels do not, but rclpy's version tells.
    """
    number = package_version("rclpy").partition(".")[0]
    return os.environ.get("ROS_DISTRO") or DISTRIBUTIONS.get(number, "unknown")


def profile_variable() -> str:
    """Return the variable from which the Fast DDS of this distribution takes its profile.

    Version 2 reads the one name, version 3 the other and warns of the first.
    """
    if ros_distribution() in FAST_DDS_2_DISTRIBUTIONS:
        return "FASTRTPS_DEFAULT_PROFILES_FILE"
    return "FASTDDS_DEFAULT_PROFILES_FILE"


def large_image_environment() -> dict[str, str]:
    """Return the variables with which a process sends and receives large images fast.

    Fast DDS gets a shared-memory segment that holds them. glibc keeps freed memory instead of
    returning it to the system after every image, and to that end serves all threads from one
    arena: those of other threads than the main one cannot hold blocks above 64 MB.

    The variables take effect when a process starts.
    """
    return {
        profile_variable(): str(share_directory() / "config" / "fastdds_large_images.xml"),
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1),
    }


def keep_freed_memory() -> bool:
    """Let malloc reuse freed memory instead of mapping and clearing new pages for each tensor.

    Training on a CPU spends a fifth to a quarter of its time there otherwise. The process keeps
    its largest size. The node gets the like from its launcher (``environment``): its worker
    thread needs what can only be set before a process starts.

    Returns:
        Whether it was done: it is for glibc only.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {
        _M_MMAP_THRESHOLD: 1 << 30,
        _M_MMAP_MAX: 0,
        _M_TRIM_THRESHOLD: (1 << 31) - 1,
        _M_TOP_PAD: 1 << 26,
    }
    return all([mallopt(option, value) == 1 for option, value in settings.items()])


@contextmanager
def whole_file(path: Path, outlives_power: bool = True) -> Iterator[Path]:
    """Give a temporary name to write to; at the end the file is renamed onto ``path``.

    So ``path`` holds a whole file or what it held before, whatever happens to the process. What
    one that was killed has left beside ``path`` is removed after ``ABANDONED`` seconds.

    Args:
        path: Its folder exists.
        outlives_power: Whether that is to hold for a power cut, too: the data is forced to the
            disk before the rename, and the rename before this returns.

    Raises:
        OSError: The file cannot be written.
    """
    prefix = f".{path.name}."
    _remove_abandoned(path.parent, prefix)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=prefix) as folder:
        temporary = Path(folder) / path.name
        yield temporary
        if outlives_power:
            _sync(temporary)
        os.replace(temporary, path)
    if outlives_power:
        _sync(path.parent)


def _remove_abandoned(folder: Path, prefix: str) -> None:
    for entry in folder.glob(f"{glob.escape(prefix)}*"):
        with suppress(OSError):  # another process may be first
            if time.time() - entry.stat().st_mtime > ABANDONED:
                shutil.rmtree(entry)


@contextmanager
def whole_folder(path: Path, workspace: Path) -> Iterator[Path]:
    """Give an empty folder to fill; at the end it is renamed to ``path``, with all that is in it.

    Of several processes that make the same folder, the first to end wins; what the others wrote
    is dropped. A process that dies leaves ``path`` alone and a hidden folder in ``workspace``.

    Args:
        path: The folder to make, on the file system of ``workspace``.
        workspace: An existing folder for what is not whole yet.

    Raises:
        OSError: It cannot be written.
    """
    with tempfile.TemporaryDirectory(dir=workspace, prefix=f".{path.name}.") as text:
        temporary = Path(text) / path.name
        temporary.mkdir()
        yield temporary
        for parent, _, files in os.walk(temporary, topdown=False):
            for name in files:
                _sync(Path(parent) / name)
            _sync(Path(parent))
        try:
            os.rename(temporary, path)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
    _sync(path.parent)


def write_file(path: Path, data: bytes | memoryview, outlives_power: bool = True) -> None:
    """Write a file whole or not at all; see ``whole_file``."""
    with whole_file(path, outlives_power) as temporary:
        temporary.write_bytes(data)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def read_yaml(path: Path) -> Any:
    """Read a YAML file of plain values, as large as a person or this package would write it.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not YAML, or its aliases stand for more than ``MAX_YAML_VALUES`` values.
    """
    import yaml

    with path.open("rb") as file:
        text = file.read(MAX_YAML_BYTES + 1)
    if len(text) > MAX_YAML_BYTES:
        raise ValueError(f"{path} is larger than {MAX_YAML_BYTES} bytes: no file of settings")
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # dates and numbers, too
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{path} is not valid YAML: it is nested too deeply") from error
    left, waiting = MAX_YAML_VALUES, [content]
    while waiting:
        value = waiting.pop()
        left -= 1
        if left < 0:
            raise ValueError(f"{path} stands for more than {MAX_YAML_VALUES} values")
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return content


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes`` laid over it; mappings within are merged, not replaced."""
    merged = dict(base)
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _sync(path: Path) -> None:
    """Force a file, or a folder's entries, to the disk; without it a rename may be lost."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
