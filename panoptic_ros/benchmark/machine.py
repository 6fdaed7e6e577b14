"""What a benchmark ran on: without it, its milliseconds mean nothing."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib import metadata
from typing import Any

import torch

from panoptic_ros import __version__
from panoptic_ros.system import cpu_name, usable_cores

LIBRARIES = (
    "torch",
    "torchvision",
    "transformers",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "numpy",
)
VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")


def describe_machine() -> dict[str, Any]:
    """Return processor, GPU, threads, load, versions and date."""
    described = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": cpu_name(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name in VARIABLES or name.startswith(("MALLOC_", "GLIBC_", "LD_PRELOAD"))
        },
        "system": platform.platform(),
        "python": platform.python_version(),
        "panoptic_ros": __version__,
        "versions": _versions(),
    }
    if torch.cuda.is_available():
        described["gpus"] = [
            torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
        ]
        described["cuda"] = torch.version.cuda
        described["cudnn"] = torch.backends.cudnn.version()
    return described


def machine_line(machine: dict[str, Any]) -> str:
    """Return the description in two lines for people."""
    gpus = "".join(f", {name} (CUDA {machine['cuda']})" for name in machine.get("gpus", ()))
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    load = "unknown" if machine["load"] is None else f"{machine['load'][0]:.1f}"
    return (
        f"{machine['date']}: {machine['processor']}, {machine['cores']} cores, "
        f"{machine['threads']} threads, load {load}{gpus}\n"
        f"panoptic_ros {machine['panoptic_ros']}, Python {machine['python']}, {versions}"
    )


def _versions() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
