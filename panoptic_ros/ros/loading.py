"""Makes segmenters from parameters. Only here does the node meet torch."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import rclpy.logging

from panoptic_ros.prediction import Category, PanopticPrediction
from panoptic_ros.ros.parameters import Parameters

if TYPE_CHECKING:
    from panoptic_ros.truth import PredictionOptions


class SegmenterLike(Protocol):
    """What the node needs of a ``panoptic_ros.segmenter.Segmenter``."""

    name: str
    categories: Sequence[Category]
    resolution: tuple[int, int]
    device: Any
    precision: str
    engine: str
    options: PredictionOptions

    def __call__(
        self,
        images: Sequence[np.ndarray],
        output_sizes: Sequence[tuple[int, int]],
        confidence: bool,
    ) -> Sequence[PanopticPrediction]:
        """Segment RGB images to labels of the given (height, width), perhaps with confidence."""

    def fit(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) to which the network's input shrinks an image."""


Load = Callable[[Parameters], SegmenterLike]
Check = Callable[[Parameters], None]


def load_segmenter(parameters: Parameters) -> SegmenterLike:
    """Load the model that the parameters name and run it once for every size of batch.

    Raises:
        ModelError, DeviceError, EngineError, ValueError: See ``Segmenter.load``.
    """
    from panoptic_ros.segmenter import Segmenter

    _show_log_of_engines()
    segmenter = Segmenter.load(
        parameters.model,
        device=parameters.device,
        precision=parameters.precision,
        resolution=parameters.resolution or None,
        engine=parameters.engine,
    )
    for batch in range(1, len(parameters.cameras) + 1):
        segmenter.warm_up(batch=batch, wait=False)
    return segmenter


def _show_log_of_engines() -> None:
    """Pass what the engines log on to the log of the node: compiling may take minutes."""
    logger = logging.getLogger("panoptic_ros.engines")
    if not any(isinstance(handler, _RosLog) for handler in logger.handlers):
        logger.addHandler(_RosLog())
        logger.setLevel(logging.INFO)


class _RosLog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        ros = rclpy.logging.get_logger("panoptic")
        if record.levelno >= logging.WARNING:  # rclpy wants a line of code for each severity
            ros.warning(record.getMessage())
        else:
            ros.info(record.getMessage())


def check_loadable(parameters: Parameters) -> None:
    """Make the checks of a model that take no time: it is there, described well, and fits here.

    Raises:
        ModelError, DeviceError, EngineError, ValueError: It is not.
    """
    from panoptic_ros import model_zoo
    from panoptic_ros.devices import resolve_device, resolve_precision
    from panoptic_ros.engines import resolve_engine
    from panoptic_ros.input_format import parse_resolution
    from panoptic_ros.quantized import read_quantized

    resolution = parse_resolution(parameters.resolution)
    device = resolve_device(parameters.device)
    precision = resolve_precision(parameters.precision, device, parameters.engine)
    resolve_engine(parameters.engine, device, precision)
    folder = model_zoo.find_model(parameters.model)
    config = model_zoo.load_config(folder / model_zoo.MODEL_FILE)
    model_zoo.find_weights(folder, config)
    if precision == "int8":
        read_quantized(config, resolution or config.input.resolution)


def with_thresholds(own: PredictionOptions, parameters: Parameters) -> PredictionOptions:
    """Return a model's own options with those replaced that the parameters set (not -1)."""
    names = ("score_threshold", "overlap_threshold", "stuff_area_limit")
    wanted = {name: getattr(parameters, name) for name in names if getattr(parameters, name) >= 0}
    return replace(own, **wanted)


def free_device_memory() -> None:
    """Give the memory of segmenters that are gone back to the device."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def memory_in_use(device: Any) -> str:
    """Return in words how much memory this process holds on its device."""
    if not str(device).startswith("cuda"):
        try:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
        except OSError:  # not Linux
            return "unknown"
        return f"{_mib(pages * os.sysconf('SC_PAGE_SIZE'))} resident"
    import torch

    try:
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError as error:  # a broken device must not end the node
        return f"unknown: {error}"
    reserved = torch.cuda.memory_reserved(device)
    return f"{_mib(reserved)} reserved, {_mib(free)} of {_mib(total)} free"


def _mib(number: int) -> str:
    return f"{number / 2**20:.0f} MiB"
