"""What is measured: a model in service, whose every call tells where its time went."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from panoptic_ros.benchmark.loading import load_description, load_network
from panoptic_ros.benchmark.memory import held_memory, peak_memory
from panoptic_ros.benchmark.message_edge import message_edge
from panoptic_ros.benchmark.planting import plant
from panoptic_ros.benchmark.results import (
    BARE,
    PANOPTIC_HEAD,
    PIPELINE,
    TOTAL,
    Measurement,
    Variant,
)
from panoptic_ros.benchmark.scenes import Layout, street_images
from panoptic_ros.devices import resolve_device
from panoptic_ros.engines.base import Engine
from panoptic_ros.networks.fpsnet.network import FPSNet
from panoptic_ros.segmenter import Segmenter
from panoptic_ros.truth import FrameSize


def warm_engine(variant: Variant) -> None:
    """Run a small network once the way of a variant, if it can run at all.

    What libraries allocate when they are first used is then not taken for the variant's memory.
    """
    config = load_description("fpsnet_small")
    with suppress(ValueError, RuntimeError):
        segmenter = Segmenter(
            config,
            config.build(),
            variant.device,
            variant.precision,
            (64, 64),
            variant.engine,
        )
        segmenter.warm_up()


class Subject:
    """A variant, loaded and warm.

    Args:
        variant: What to run.
        frame: (height, width) of the images; None for the resolution.

    Attributes:
        variant: With the resolution that the network sees.
        seconds: Of every ``run`` so far, by stage and span.

    Raises:
        ValueError, RuntimeError: The variant cannot run here; the message says why.
    """

    def __init__(self, variant: Variant, frame: tuple[int, int] | None = None) -> None:
        config = load_description(variant.model)
        resolution = variant.resolution or config.input.resolution
        self._frame = frame or resolution
        self._images = street_images(variant.batch, self._frame)
        self._edge = message_edge(self._images)
        before = held_memory(resolve_device(variant.device))
        config, network, self._random_weights = load_network(variant.model)
        self._segmenter = Segmenter(
            config, network, variant.device, variant.precision, resolution, variant.engine
        )
        del network
        self.variant = replace(variant, resolution=self._segmenter.resolution)
        self._segmenter.warm_up(self._frame, variant.batch)
        self._slots = -1
        if variant.instances is not None:
            self._plant(variant.instances)
        self._bare = {} if variant.instances is not None else self._bare_spans()
        after = held_memory(self._segmenter.device)
        self._held = None if after is None or before is None else after - before
        self._peak = peak_memory(self._segment, self._segmenter.device)
        self.seconds: dict[str, list[float]] = {}

    def __str__(self) -> str:
        """Return the variant in one line."""
        return str(self.variant)

    def run(self) -> None:
        """Measure one call, and the bare forward beside it."""
        start = time.perf_counter()
        images = self._edge.convert() if self._edge else self._images
        converted = time.perf_counter()
        predictions = self._segmenter(images)
        segmented = time.perf_counter()
        if self._edge:
            self._edge.publish(predictions, self._segmenter.name)
        end = time.perf_counter()
        spans = dict(predictions[0].timings)
        spans |= {PIPELINE: segmented - converted, TOTAL: end - start}
        if self._edge:
            spans |= {"convert": converted - start, "publish": end - segmented}
        for name, bare in self._bare.items():
            start = time.perf_counter()
            bare()
            self._synchronise()
            spans[name] = time.perf_counter() - start
        for name, seconds in spans.items():
            self.seconds.setdefault(name, []).append(seconds)

    def measurement(self) -> Measurement:
        """Return what was measured so far."""
        return Measurement(
            variant=self.variant,
            seconds=self.seconds,
            precision=self._segmenter.precision,
            engine=self._segmenter.engine,
            random_weights=self._random_weights,
            found=self._found,
            slots=self._slots,
            frame=self._frame,
            held_bytes=self._held,
            peak_bytes=self._peak,
        )

    def _segment(self) -> None:
        self._found = len(self._segmenter(self._images)[0].instances)

    def _synchronise(self) -> None:
        if self._segmenter.device.type == "cuda":
            torch.cuda.synchronize(self._segmenter.device)

    def _record(self) -> _Recorder:
        """Segment once and return what the engine got and gave."""
        engine = self._segmenter._engine
        self._segmenter._engine = recorder = _Recorder(engine)
        self._segmenter(self._images)
        self._segmenter._engine = engine
        return recorder

    def _bare_spans(self) -> dict[str, Callable[[], object]]:
        """Return what runs the convolutions alone, on a batch that is made once."""
        recorded = self._record()
        spans: dict[str, Callable[[], object]] = {
            BARE: lambda: recorded.engine(recorded.batch),
        }
        network = self._segmenter._network
        if isinstance(network, FPSNet):
            features = recorded.raw["features"]
            masks = (len(features), network.num_attention, *features.shape[2:])
            attention = features.new_zeros(masks)

            @torch.inference_mode()
            def head() -> Tensor:
                return network.panoptic_head(features, attention)

            spans[PANOPTIC_HEAD] = head
        return spans

    @torch.inference_mode()
    def _plant(self, instances: int) -> None:
        """Replace what the engine gives by a scene with so many instances."""
        segmenter, network = self._segmenter, self._segmenter._network
        recorded = self._record()
        size = FrameSize(segmenter.fit(self._frame), self._frame)
        layout = Layout.of(instances, len(network.thing_ids), size.valid)
        recorded.raw = plant(network, recorded.raw, layout)
        sizes = [size] * len(self._images)
        class_ids = network.predict(recorded.raw, sizes, segmenter.options)[0].class_ids
        things = len(class_ids) - len(network.stuff_ids)
        self._slots = int((class_ids[:things] > 0).sum())
        segmenter._engine = recorded


class _Recorder:
    """Stands in for an engine: asks it once, and then repeats its answer, or another one."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.batch: Tensor | None = None
        self.raw: dict[str, Tensor] = {}

    def __getattr__(self, name: str) -> Any:
        """Be the engine in everything else."""
        return getattr(self.engine, name)

    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        if self.batch is None:
            self.batch = batch.clone()
            self.raw = {name: value.clone() for name, value in self.engine(batch).items()}
        return self.raw
