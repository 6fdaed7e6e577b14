"""Where a model runs, in which precision, and how long its stages take."""

from __future__ import annotations

import functools
import platform
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import ParamSpec, TypeVar

import torch

from panoptic_ros.system import processor

P, R = ParamSpec("P"), TypeVar("R")

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class DeviceError(RuntimeError):
    """The device asked for is missing, cannot do what is asked, or is out of memory."""


def resolve_device(device: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` into a device that is there.

    Raises:
        ValueError: Another word.
        DeviceError: CUDA is asked for and missing, or has no device N.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError:
        resolved = None
    if resolved is None or resolved.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {device!r}; expected auto, cpu, cuda or cuda:N")
    if resolved.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (resolved.index or 0) >= count:
            raise DeviceError(
                f"device {device} asked for, but {count} CUDA devices are usable here; check "
                "nvidia-smi and that torch was built for CUDA, or use device:=cpu or auto"
            )
    return resolved


def resolve_precision(precision: str, device: torch.device, engine: str = "auto") -> str:
    """Turn ``auto`` into the fastest safe precision of the device with the engine.

    Raises:
        ValueError: Not auto, fp32, fp16, bf16 or int8; or the engine does not compute in it.
    """
    expected = ("auto", *PRECISIONS, "int8")
    if precision not in expected:
        raise ValueError(f"precision is {precision!r}; expected {', '.join(expected)}")
    if precision == "int8":
        if device.type != "cpu" or engine not in ("auto", "openvino"):
            raise ValueError(
                f"precision int8 is for engine openvino on CPUs, not for engine {engine} on "
                f"{device}; use engine openvino and device cpu, or another precision"
            )
        return precision
    if engine == "onnxruntime" and device.type == "cpu":
        if precision not in ("auto", "fp32"):
            raise ValueError(
                f"engine onnxruntime computes in fp32 on CPUs, not in {precision}; use precision "
                "auto or fp32, or another engine"
            )
        return "fp32"
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bf16" if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") else "fp32"


def device_name(device: torch.device) -> str:
    """Return the model of a device, and of a CPU the instructions that it knows."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} {torch.cuda.get_device_capability(device)}"
    facts = [processor().get(name, "") for name in ("model name", "CPU part", "flags", "Features")]
    return f"{platform.machine()} {' '.join(facts)}"


def is_out_of_memory(error: BaseException | None) -> bool:
    """Tell whether an error, or one that it wraps, is that a device has no memory left."""
    while error and not isinstance(error, torch.OutOfMemoryError):
        error = error.__cause__ or error.__context__
    return error is not None


def out_of_memory(device: torch.device) -> DeviceError:
    """Return the error to raise when ``device`` has no memory left, with the way out."""
    return DeviceError(
        f"{device} is out of memory; use a smaller resolution or model, precision fp16 or bf16, "
        "or end other programs on the device"
    )


def on_its_device(method: Callable[P, R]) -> Callable[P, R]:
    """Have a method run without gradients, with its object's ``device`` as CUDA's current one.

    Triton launches its kernels and PyTorch records its events on the current device, whatever
    device the tensors are on.
    """

    @functools.wraps(method)
    def run(*arguments: P.args, **named: P.kwargs) -> R:
        device = arguments[0].device
        current = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
        with torch.inference_mode(), current:
            return method(*arguments, **named)

    return run


class StageClock:
    """Times the stages of a call; on CUDA by events, read after the last synchronisation."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._marks = [("", self._now())]

    def _now(self) -> float | torch.cuda.Event:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def stop(self, stage: str) -> None:
        """Mark the end of a stage, which is the start of the next."""
        self._marks.append((stage, self._now()))

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each stage; on CUDA all work must be synchronised before."""
        if self._cuda:
            self._marks[-1][1].synchronize()
        return {
            stage: start.elapsed_time(end) / 1e3 if self._cuda else end - start
            for (_, start), (stage, end) in zip(self._marks, self._marks[1:], strict=False)
        }


def use_one_core() -> None:
    """Keep a process that works beside others to one core."""
    import cv2

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
