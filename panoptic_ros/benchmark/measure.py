"""Measure variants in turns: every round runs each of them once.

A machine that is busy for a while then slows all of them down alike, and ratios hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from panoptic_ros.benchmark.machine import describe_machine
from panoptic_ros.benchmark.pictures import street_images
from panoptic_ros.benchmark.results import TOTAL, Measurement, Report, Variant
from panoptic_ros.model_zoo import (
    ModelConfig,
    ModelError,
    find_model,
    load_config,
    load_model,
)
from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.segmenter import Segmenter
from panoptic_ros.system import share_directory

WARM_UP_ROUNDS = 1  # not counted


def measure(
    variants: Sequence[Variant],
    repeat: int = 10,
    frame: tuple[int, int] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Load everything, measure it in ``repeat`` rounds, and report.

    What cannot be loaded or fails on the way is skipped, with its reason in the report.

    Args:
        variants: What to measure.
        repeat: Rounds.
        frame: (height, width) of the images; None for the resolution of each variant.
        say: Called with a line about what happens.

    Raises:
        ValueError: ``repeat`` is below 1.
    """
    if repeat < 1:
        raise ValueError(f"repeat is {repeat}; expected 1 or more")
    subjects, skipped = [], []
    for variant in variants:
        say(f"loading {variant}")
        try:
            subjects.append(Subject(variant, frame))
        except (ValueError, RuntimeError, ImportError, MemoryError) as error:
            skipped.append((str(variant), str(error)))
            say(f"skipped {variant}: {error}")
    for number in range(-WARM_UP_ROUNDS, repeat):
        if subjects:
            say("warming up" if number < 0 else f"round {number + 1} of {repeat}")
        for subject in list(subjects):
            try:
                subject.run(is_counted=number >= 0)
            except (ValueError, RuntimeError, MemoryError) as error:
                subjects.remove(subject)
                skipped.append((str(subject.measurement.variant), str(error)))
    return Report(describe_machine(), [subject.measurement for subject in subjects], skipped)


class Subject:
    """A variant, loaded and warm.

    Args:
        variant: What to run.
        frame: (height, width) of the images; None for the resolution.

    Raises:
        ValueError, RuntimeError: The variant cannot run here; the message says why.
    """

    def __init__(self, variant: Variant, frame: tuple[int, int] | None = None) -> None:
        config, network, is_random = load_any(variant.model)
        self.segmenter = Segmenter(
            config, network, variant.device, variant.precision, variant.resolution, variant.engine
        )
        size = frame or self.segmenter.resolution
        self.segmenter.warm_up(size, variant.batch)
        self._images = street_images(variant.batch, size)
        resolved = replace(
            variant,
            resolution=self.segmenter.resolution,
            engine=self.segmenter.engine,
            precision=self.segmenter.precision,
            device=str(self.segmenter.device),
        )
        self.measurement = Measurement(resolved, is_random)

    def run(self, is_counted: bool = True) -> None:
        """Segment the images once."""
        start = time.perf_counter()
        predictions = self.segmenter(self._images)
        total = time.perf_counter() - start
        if is_counted:
            for stage, seconds in {**predictions[0].timings, TOTAL: total}.items():
                self.measurement.seconds.setdefault(stage, []).append(seconds)
        self.measurement.instances = sum(len(p.instances) for p in predictions)


def load_any(model: str) -> tuple[ModelConfig, PanopticNetwork, bool]:
    """Load a model, or build a configuration of config/networks with fresh weights.

    Returns:
        Description, network, and whether its weights are random.

    Raises:
        ModelError: There is neither such a model nor such a configuration.
    """
    try:
        folder = find_model(model)
    except ModelError as error:
        path = share_directory() / "config/networks" / f"{model}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
            raise ModelError(f"{error} Configurations, for random weights: {known}.") from error
        torch.manual_seed(0)
        config = load_config(path)
        return config, config.build().eval(), True
    return *load_model(folder), False
