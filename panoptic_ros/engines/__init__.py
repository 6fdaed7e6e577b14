"""Ways to compute a network's ``forward``: one module each, chosen by name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from panoptic_ros.engines.base import Engine, EngineInput

ENGINES = {
    "eager": "EagerEngine",
    "compiled": "CompiledEngine",
    "onnxruntime": "OnnxRuntimeEngine",
    "openvino": "OpenVinoEngine",
    "tensorrt": "TensorRtEngine",
}


def resolve_engine(engine: str, device: torch.device, precision: str) -> list[str]:
    """Turn ``auto`` into the engines to try, the fastest first; another name into itself.

    Args:
        engine: ``auto`` or a key of ``ENGINES``.
        device: Where the network runs.
        precision: Key of ``devices.PRECISIONS``, or ``int8``, which ``resolve_precision`` allows
            for OpenVINO alone.

    Raises:
        ValueError: Another word.
        EngineError: The engine asked for is not installed or not for the device.
    """
    from panoptic_ros.engines.base import EngineError

    if (engine, precision) == ("auto", "int8"):
        engine = "openvino"
    if engine in ENGINES:
        _engine_class(engine).check(device)
        return [engine]
    if engine != "auto":
        raise ValueError(f"engine is {engine!r}; expected auto, {', '.join(ENGINES)}")
    preferred = ["compiled"]
    if device.type == "cpu":
        preferred = ["openvino", *(["onnxruntime"] if precision == "fp32" else [])]
    usable = []
    for name in preferred:
        try:
            _engine_class(name).check(device)
            usable.append(name)
        except EngineError:  # not installed: nobody asked for it
            pass
    return [*usable, "eager"]


def make_engine(engine: str, source: EngineInput) -> Engine:
    """Make an engine and compile it for single images.

    With ``auto``, one that fails is logged as a warning and the next is tried.

    Raises:
        ValueError: ``engine`` is neither ``auto`` nor a key of ``ENGINES``.
        EngineError: The engine asked for is not installed, not for the device, or fails.
        torch.OutOfMemoryError: The device has too little memory.
    """
    from panoptic_ros.engines.base import EngineError, logger

    names = resolve_engine(engine, source.device, source.precision)
    for name in names:
        made = _engine_class(name)(source)
        try:
            made.compile()
        except EngineError as error:
            if name == names[-1]:
                raise
            logger.warning("%s; trying the next engine", error)
        else:
            return made
    raise AssertionError("names is never empty")


def _engine_class(name: str) -> type[Engine]:
    return getattr(import_module(f"panoptic_ros.engines.{name}"), ENGINES[name])
