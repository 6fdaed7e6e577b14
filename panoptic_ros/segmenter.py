"""The one door between images and the networks: ``Segmenter.load(model)``, then call it.

Nothing here knows ROS. The node, the evaluator and the benchmarks all come through here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from panoptic_ros.devices import (
    PRECISIONS,
    StageClock,
    on_its_device,
    out_of_memory,
    resolve_device,
    resolve_precision,
)
from panoptic_ros.engines import make_engine
from panoptic_ros.engines.base import EngineInput
from panoptic_ros.frame_graph import CUDA_LOCK, FrameGraphs
from panoptic_ros.frame_steps import FrameSteps, Thresholds
from panoptic_ros.input_format import check_resolution, parse_resolution
from panoptic_ros.model_zoo import ModelConfig, load_model
from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.networks.layers.folding import fold_batch_norm
from panoptic_ros.ops.segments import EncodedSegments, encode_segments
from panoptic_ros.ops.tables import describe_segments
from panoptic_ros.prediction import Category, PanopticPrediction
from panoptic_ros.quantized import read_quantized
from panoptic_ros.transfer import download, upload
from panoptic_ros.truth import FrameSize, PredictionOptions


class Segmenter:
    """A model on a device, ready to segment images.

    Args:
        config: Description of the model.
        network: Its network with trained weights; taken over (cast, folded, moved).
        device: ``auto`` (CUDA where there is one), ``cuda``, ``cuda:N`` or ``cpu``.
        precision: ``auto``, ``fp32``, ``fp16``, ``bf16`` or ``int8``. ``auto`` is bf16 on devices
            that compute in it, else fp16 on CUDA and fp32 on CPUs. ``int8`` is for OpenVINO and
            for models with a network that ``panoptic quantize`` made for the resolution; what
            stays in floating point is as with ``auto``.
        resolution: (height, width) that the network sees; None for the model's own.
        engine: What computes the network: ``auto`` for the fastest that is installed, or a key
            of ``engines.ENGINES``. It is compiled here, which takes up to minutes the first time.

    Attributes:
        engine: Name of the engine in use.
        options: Thresholds; may be replaced at any time, from any thread.
        graphs: Frames as CUDA graphs; None on CPUs.

    Raises:
        DeviceError: The device is not there or is out of memory.
        EngineError: The engine is not installed, not for the device, or cannot take the network.
        ModelError: ``precision`` is int8 and the model has no such network, or a damaged one.
        ValueError: ``device``, ``precision``, ``resolution`` or ``engine`` is none of the above.
    """

    def __init__(
        self,
        config: ModelConfig,
        network: PanopticNetwork,
        device: str = "auto",
        precision: str = "auto",
        resolution: tuple[int, int] | None = None,
        engine: str = "auto",
    ) -> None:
        self.config = config
        self.options: PredictionOptions = config.options
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device, engine)
        self.resolution = check_resolution(resolution or config.input.resolution)
        self._padded = network.padded_size(self.resolution)
        computed_in, quantized = self.precision, None
        if self.precision == "int8":
            computed_in, engine = resolve_precision("auto", self.device), "openvino"
            quantized = read_quantized(config, self.resolution)
        try:
            self._network = fold_batch_norm(network.eval().requires_grad_(False)).to(
                device=self.device,
                dtype=PRECISIONS[computed_in],
                memory_format=torch.channels_last,
            )
            source = EngineInput(
                self._network, self.device, computed_in, self._padded, config.settings, quantized
            )
            self._engine = make_engine(engine, source)
            self.graphs = self._confident_graphs = None
            if self.device.type == "cuda":
                steps = FrameSteps(self.prepare, self._encode)
                self.graphs = FrameGraphs(self._engine, steps, self.device)
        except torch.OutOfMemoryError as error:
            raise out_of_memory(self.device) from error

    @classmethod
    def load(
        cls,
        model: str | Path,
        device: str = "auto",
        precision: str = "auto",
        resolution: tuple[int, int] | str | None = None,
        engine: str = "auto",
    ) -> Segmenter:
        """Load a model by name or folder; ``resolution`` may also be written ``512x1024``.

        Raises:
            ModelError: The model is missing, damaged or does not fit its network.
            DeviceError: The device is not there or is out of memory.
            EngineError: The engine is not installed, or fails.
            ValueError: Another argument cannot be understood.
        """
        if isinstance(resolution, str):
            resolution = parse_resolution(resolution)
        config, network = load_model(model)
        return cls(config, network, device, precision, resolution, engine)

    @property
    def network(self) -> PanopticNetwork:
        """The network, in the precision in use; its ``forward`` may be computed by an engine."""
        return self._network

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.config.name

    @property
    def categories(self) -> tuple[Category, ...]:
        """The model's class table."""
        return self.config.categories

    def fit(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) to which the network's input shrinks an image."""
        return self.config.input.fit(image_size, self.resolution)

    @property
    def engine(self) -> str:
        """Name of the engine in use; eager where it gave up on its CUDA graph."""
        if self.graphs and self.graphs.gave_up:
            return "eager"
        return self._engine.name

    def warm_up(
        self,
        image_size: tuple[int, int] | None = None,
        batch: int = 1,
        wait: bool = True,
        confidence: bool = False,
    ) -> None:
        """Compile for a size of batch and run once, so that the first real one is not slow.

        Args:
            image_size: (height, width) of the camera images to expect.
            batch: Number of images per call to expect.
            wait: For the CUDA graph, too; without it, frames run eagerly until it is there.
            confidence: Whether the calls to expect ask for confidence.
        """
        size = image_size or self.resolution
        self._engine.compile(batch)
        images = [np.full((*size, 3), 128, np.uint8)] * batch
        self(images, None, confidence)
        graphs = self._confident_graphs if confidence else self.graphs
        while graphs and wait and graphs.wait():
            self(images, None, confidence)

    def __call__(
        self,
        images: np.ndarray | Sequence[np.ndarray],
        output_sizes: Sequence[tuple[int, int]] | None = None,
        confidence: bool = False,
    ) -> PanopticPrediction | list[PanopticPrediction]:
        """Segment one image or a list of them, which go through the network as one batch.

        Args:
            images: uint8, (H, W, 3), RGB; sizes in a list may differ. Views are fine: an RGB
                view of a BGR image costs no copy.
            output_sizes: (height, width) of each prediction, for images that come smaller than
                their camera took them; by default the size of each image.
            confidence: Whether the predictions tell how sure the network is of every pixel.

        Returns:
            One prediction per image, at its output size; a list for a list.

        Raises:
            ValueError: An image has another type or shape, or there is not one size for each.
            DeviceError: The device is out of memory.
        """
        if isinstance(images, np.ndarray):
            return self([images], output_sizes, confidence)[0]
        if output_sizes is None:
            output_sizes = [image.shape[:2] for image in images]
        if len(output_sizes) != len(images):
            raise ValueError(
                f"{len(output_sizes)} output sizes for {len(images)} images; expected one each"
            )
        if not images:
            return []
        try:
            return self._segment(images, output_sizes, confidence)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise out_of_memory(self.device) from error

    @on_its_device
    def _segment(
        self,
        images: Sequence[np.ndarray],
        output_sizes: Sequence[tuple[int, int]],
        confidence: bool,
    ) -> list[PanopticPrediction]:
        if self.graphs is None:
            return self.segment_eagerly(images, output_sizes, confidence)
        graphs = self._graphs_with_confidence() if confidence else self.graphs
        with CUDA_LOCK:
            replayed = graphs(images, output_sizes, self.options)
            if replayed is None:
                return self.segment_eagerly(images, output_sizes, confidence)
        results, timings = replayed
        return [describe_segments(*arrays, self.categories, timings) for arrays in results]

    def _graphs_with_confidence(self) -> FrameGraphs:
        """Return graphs of their own, made when the first one asks: others pay nothing."""
        if self._confident_graphs is None:
            steps = FrameSteps(self.prepare, self._encode_with_confidence)
            self._confident_graphs = FrameGraphs(self._engine, steps, self.device)
        return self._confident_graphs

    @on_its_device
    def segment_eagerly(
        self,
        images: Sequence[np.ndarray],
        output_sizes: Sequence[tuple[int, int]],
        confidence: bool = False,
    ) -> list[PanopticPrediction]:
        """Do what a call does, without a CUDA graph; see there."""
        clock = StageClock(self.device)
        uploaded = [upload(image, self.device) for image in images]
        clock.stop("upload")
        batch, sizes = self.prepare(uploaded)
        sizes = [
            FrameSize(size.valid, output) for size, output in zip(sizes, output_sizes, strict=True)
        ]
        clock.stop("preprocess")
        raw = self.forward(batch)
        clock.stop("forward")
        encoded = self.predict(raw, sizes, confidence)
        clock.stop("predict")
        downloaded = download(encoded)
        clock.stop("download")
        timings = clock.seconds()
        return [describe_segments(*arrays, self.categories, timings) for arrays in downloaded]

    def prepare(self, images: Sequence[Tensor]) -> tuple[Tensor, list[FrameSize]]:
        """Make the network's input of images, uint8 (H, W, 3), RGB, on the device.

        This, ``forward`` and ``predict`` are the steps of a call, for those who time them.
        """
        engine = self._engine
        return self.config.input.prepare(
            images, self.resolution, self._padded, engine.dtype, engine.memory_format
        )

    @on_its_device
    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """Run the engine; returns what the network's ``forward`` does, until the next call."""
        return self._engine(batch)

    @on_its_device
    def predict(
        self, raw: dict[str, Tensor], sizes: list[FrameSize], confidence: bool = False
    ) -> list[EncodedSegments]:
        """Turn raw maps into label images and tables, on the device."""
        return self._encode(raw, sizes, self.options, confidence)

    def _encode(
        self,
        raw: dict[str, Tensor],
        sizes: Sequence[FrameSize],
        options: PredictionOptions | Thresholds,
        confidence: bool = False,
    ) -> list[EncodedSegments]:
        things, limit = self._network.thing_ids, options.stuff_area_limit
        return [
            encode_segments(segments, things, limit, confidence)
            for segments in self._network.predict(raw, sizes, options)
        ]

    def _encode_with_confidence(
        self, raw: dict[str, Tensor], sizes: Sequence[FrameSize], options: Thresholds
    ) -> list[EncodedSegments]:
        return self._encode(raw, sizes, options, confidence=True)
