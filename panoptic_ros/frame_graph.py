"""A whole frame as one CUDA graph: from images in pinned memory to label images and tables.

Eagerly a frame is hundreds to thousands of small kernels that wait for Python one by one. All of
them have fixed shapes and never wait, so one launch replays them. The images of a batch go
through the network one after the other, so that one image's memory serves all of them; meanwhile
the next image comes in on a third stream, and the one before is turned into segments on a second.
The results go to pinned memory of their own behind the graph, so that nobody copies them there.
Thresholds are scalars on the device: they change without a new capture. All graphs of a segmenter
share their memory.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor

from panoptic_ros.devices import is_out_of_memory
from panoptic_ros.engines.base import Engine, root_of
from panoptic_ros.frame_steps import FrameSteps, ImageKind, Thresholds, Way
from panoptic_ros.ops.segments import EncodedSegments
from panoptic_ros.transfer import as_stored, download
from panoptic_ros.truth import PredictionOptions

WARM_UP_RUNS = 3  # before a capture: kernels are compiled, libraries choose their algorithms
MOST_GRAPHS = 8  # one for each combination of image sizes; the oldest goes
RETRY = 60.0  # seconds to the next try where memory was short
# Held by whoever runs a frame on CUDA or captures one: a capture forbids others to synchronise.
CUDA_LOCK = threading.Lock()

logger = logging.getLogger("panoptic_ros.engines")


Kinds = tuple[ImageKind, ...]
Results = list[tuple[np.ndarray, np.ndarray]]


class FrameGraphs:
    """The graphs of a segmenter: made in the background when they are first asked for.

    Args:
        engine: What it gives to be captured is tried one after the other.
        steps: Of a frame.
        device: Of CUDA.

    Attributes:
        ways: What is left to be captured; the first is in use.
        thresholds: On the device, those of the last frame.
        gave_up: Whether everything has failed.
    """

    def __init__(self, engine: Engine, steps: FrameSteps, device: torch.device) -> None:
        self._engine, self._device = engine, device
        self.ways = Way.all_of(engine, steps)
        self.thresholds = Thresholds.on(device)
        self._options: PredictionOptions | None = None  # those on the device
        self._pool = torch.cuda.graph_pool_handle()  # they never run at the same time
        # for the network, for segments, for images on their way in
        self._streams = [torch.cuda.Stream(device, priority=p) for p in (0, -1, -1)]
        self.gave_up = False
        self._graphs: dict[Kinds, _Graph] = {}
        self._not_before: dict[Kinds, float] = {}  # for want of memory
        self._maker: threading.Thread | None = None

    def __call__(
        self,
        images: Sequence[np.ndarray],
        outputs: Sequence[tuple[int, int]],
        options: PredictionOptions,
    ) -> tuple[Results, dict[str, float]] | None:
        """Replay the graph; None while there is none, which is then made in the background.

        Args:
            images: uint8, (H, W, 3), RGB.
            outputs: (height, width) of the label images.
            options: In force.

        Returns:
            The label image, uint16 (H, W), and the table of each image; seconds per stage, of
            which ``forward`` is all that the device does.
        """
        stored = [as_stored(image) for image in images]
        kinds = tuple(
            ImageKind(array.shape[:2], is_bgr, tuple(output))
            for (array, is_bgr), output in zip(stored, outputs, strict=True)
        )
        graph = self._graphs.get(kinds)
        if graph is None:
            self._make_in_background(kinds)
            return None
        if options != self._options:
            self.thresholds.set(options)
            self._options = options
        return graph.replay([array for array, _ in stored])

    def wait(self) -> bool:
        """Wait for the graph that is being made; returns whether there was one to wait for."""
        maker, self._maker = self._maker, None
        if maker:
            maker.join()
        return maker is not None

    def _make_in_background(self, kinds: Kinds) -> None:
        if time.monotonic() < self._not_before.get(kinds, 0.0):
            return
        if self.ways and not (self._maker and self._maker.is_alive()):
            self._maker = threading.Thread(target=self._make, args=(kinds,), daemon=True)
            self._maker.start()

    def _make(self, kinds: Kinds) -> None:
        what = f"{len(kinds)} x {kinds[0].size[0]}x{kinds[0].size[1]}"
        while self.ways:
            way = self.ways[0]
            logger.info("making the CUDA graph of %s with %s; frames run eagerly", what, way.name)
            start = time.monotonic()
            try:
                graph = self._capture(kinds, way)
            except Exception as error:  # compilers, CUDA and Triton raise what they like
                if is_out_of_memory(error):
                    self._wait_for_memory(kinds, what)
                    return
                logger.warning("no CUDA graph with %s: %s", way.name, root_of(error))
                logger.debug("no CUDA graph with %s", way.name, exc_info=True)
                self.ways = self.ways[1:]
                self._pool = torch.cuda.graph_pool_handle()
                continue
            with CUDA_LOCK:
                while len(self._graphs) >= MOST_GRAPHS:
                    del self._graphs[next(iter(self._graphs))]
                self._graphs[kinds] = graph
            seconds = time.monotonic() - start
            logger.info("the CUDA graph of %s is in service after %.1f s", what, seconds)
            return
        self.gave_up = True
        logger.warning("frames run without a CUDA graph, which is several times slower")

    def _wait_for_memory(self, kinds: Kinds, what: str) -> None:
        """Let frames of some sizes run eagerly for a while, which takes less memory."""
        torch.cuda.empty_cache()
        self._not_before[kinds] = time.monotonic() + RETRY
        logger.warning(
            "no memory for the CUDA graph of %s: its frames run eagerly, several times slower; "
            "next try in %g s. End other programs on the device, or use a smaller model",
            what,
            RETRY,
        )

    @torch.inference_mode()
    def compile(self, size: tuple[int, int]) -> None:
        """Compile what a frame of a size, (height, width), runs, which capturing it would do."""
        kinds = (ImageKind(size, False, size),)
        with torch.cuda.device(self._device), _fast_choices(self._engine.dtype):
            self._launch(_pinned(kinds), kinds, self.ways[0])
            torch.cuda.synchronize()

    @torch.inference_mode()
    def _capture(self, kinds: Kinds, way: Way) -> _Graph:
        stream, images = self._streams[0], _pinned(kinds)
        with torch.cuda.device(self._device), _fast_choices(self._engine.dtype):
            stream.wait_stream(torch.cuda.default_stream())
            # Frames go on meanwhile, where the engine lets them: compilers take minutes.
            with nullcontext() if self._engine.reentrant else CUDA_LOCK:
                with torch.cuda.stream(stream):
                    for _ in range(WARM_UP_RUNS):
                        self._launch(images, kinds, way)
                stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with CUDA_LOCK:
                captured = torch.cuda.graph(
                    graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"
                )
                with captured:
                    encoded = self._launch(images, kinds, way)
        return _Graph(graph, images, encoded, self._device)

    def _launch(self, images: Sequence[Tensor], kinds: Kinds, way: Way) -> list[EncodedSegments]:
        """Launch all that a frame does on the device."""
        first, (_, second, third) = torch.cuda.current_stream(), self._streams
        third.wait_stream(first)
        with torch.cuda.stream(third):
            arrived = [
                (image.to(self._device, non_blocking=True), third.record_event())
                for image in images
            ]
        read_by_second, encoded = [], []
        for (pixels, event), kind in zip(arrived, kinds, strict=True):
            first.wait_event(event)
            batch, sizes = way.prepared(pixels, kind)
            raw = way.forward(batch)
            read_by_second.append(raw)  # so that the first stream does not take its memory
            second.wait_stream(first)
            with torch.cuda.stream(second):
                encoded += way.encode(raw, sizes, self.thresholds)
        first.wait_stream(second)
        return encoded


def _pinned(kinds: Kinds) -> list[Tensor]:
    return [torch.full((*k.size, 3), 128, dtype=torch.uint8, pin_memory=True) for k in kinds]


class _Graph:
    """One capture, with the pinned memory that it reads and what it leaves on the device."""

    def __init__(
        self,
        graph: torch.cuda.CUDAGraph,
        images: Sequence[Tensor],
        encoded: list[EncodedSegments],
        device: torch.device,
    ) -> None:
        self._graph, self._images, self._encoded = graph, images, encoded
        self._device = device

    def replay(self, images: Sequence[np.ndarray]) -> tuple[Results, dict[str, float]]:
        """Launch once and wait once."""
        times = [time.perf_counter()]
        for pinned, image in zip(self._images, images, strict=True):
            np.copyto(pinned.numpy(), image)  # PyTorch's threads all wait for the last, if busy
        times.append(time.perf_counter())
        with torch.cuda.device(self._device):
            self._graph.replay()
            arrays = download(self._encoded)
        times.append(time.perf_counter())
        upload, device = np.diff(times).tolist()
        stages = ("upload", "preprocess", "forward", "predict", "download")
        return arrays, dict(zip(stages, (upload, 0.0, device, 0.0, 0.0), strict=True))


@contextmanager
def _fast_choices(dtype: torch.dtype) -> Iterator[None]:
    """Let cuDNN try its algorithms; in half precision, what stays in float32 runs in TF32."""
    benchmark, precision = torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()
    torch.backends.cudnn.benchmark = True
    if dtype != torch.float32:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = benchmark
        torch.set_float32_matmul_precision(precision)
