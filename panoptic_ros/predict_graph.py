"""``predict`` and the label image as one CUDA graph, whose results land in pinned memory.

Eagerly they are hundreds to thousands of small kernels that wait for Python one by one. All of
them have fixed shapes and never wait, so one launch replays them. The thresholds are scalars on
the device: they change without a new capture.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from panoptic_ros.ops.segments import EncodedSegments
from panoptic_ros.truth import FrameSize, PredictionOptions

WARM_UP_RUNS = 3  # before a capture: kernels are compiled, libraries choose their algorithms
MOST_GRAPHS = 8  # one for each combination of image sizes; the oldest goes

logger = logging.getLogger("panoptic_ros.engines")


@dataclass(frozen=True)
class Thresholds:
    """PredictionOptions as scalars on the device: 0-dimensional tensors."""

    score_threshold: Tensor
    overlap_threshold: Tensor
    stuff_area_limit: Tensor

    @classmethod
    def on(cls, device: torch.device) -> Thresholds:
        """Make them, of no value yet."""
        score, overlap = torch.zeros(2, device=device).unbind()
        return cls(score, overlap, torch.zeros((), dtype=torch.int64, device=device))

    def set(self, options: PredictionOptions) -> None:
        """Take the values of options over, in the order of the stream."""
        for field in fields(self):
            getattr(self, field.name).fill_(getattr(options, field.name))


Predict = Callable[[Mapping[str, Tensor], Sequence[FrameSize], Thresholds], list[EncodedSegments]]
Results = list[tuple[np.ndarray, np.ndarray]]


class PredictGraphs:
    """The graphs of a network, captured when they are first asked for.

    Args:
        predict: From raw maps, the sizes of the images and thresholds to label images and tables.
        device: Of CUDA.
    """

    def __init__(self, predict: Predict, device: torch.device) -> None:
        self._predict, self._device = predict, device
        self._thresholds = Thresholds.on(device)
        self._pool = torch.cuda.graph_pool_handle()  # they never run at the same time
        self._graphs: dict[tuple[FrameSize, ...], _Graph] = {}
        self._works = True

    def __call__(
        self, raw: Mapping[str, Tensor], sizes: Sequence[FrameSize], options: PredictionOptions
    ) -> Results | None:
        """Replay the graph; None where there is none, which was said in the log.

        Args:
            raw: What the engine returned: the same memory for every batch of a size.
            sizes: Of the images of the batch.
            options: In force.

        Returns:
            The label image, uint16 (H, W), and the table of each image.
        """
        if not self._works:
            return None
        self._thresholds.set(options)
        key = tuple(sizes)
        if key not in self._graphs:
            try:
                self._capture(key, raw)
            except (RuntimeError, ValueError) as error:  # CUDA and Triton raise these
                self._works = False
                logger.warning("predict runs without a CUDA graph: %s", error)
                return None
        return self._graphs[key].replay()

    def _capture(self, key: tuple[FrameSize, ...], raw: Mapping[str, Tensor]) -> None:
        while len(self._graphs) >= MOST_GRAPHS:
            del self._graphs[next(iter(self._graphs))]
        with torch.cuda.device(self._device):
            self._graphs[key] = _Graph(
                lambda: self._predict(raw, key, self._thresholds), self._device, self._pool
            )


class _Graph:
    """One capture."""

    def __init__(
        self, predict: Callable[[], list[EncodedSegments]], device: torch.device, pool: object
    ) -> None:
        self._stream = torch.cuda.current_stream(device)
        side = torch.cuda.Stream(device)
        side.wait_stream(self._stream)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_RUNS):
                encoded = predict()
        self._stream.wait_stream(side)
        self._pinned = [
            [torch.empty_like(tensor, device="cpu", pin_memory=True) for tensor in item]
            for item in encoded
        ]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            for item, copies in zip(predict(), self._pinned, strict=True):
                for tensor, copy in zip(item, copies, strict=True):
                    copy.copy_(tensor, non_blocking=True)

    def replay(self) -> Results:
        """Launch once and wait once."""
        with torch.cuda.device(self._stream.device):
            self._graph.replay()
            torch.cuda.current_stream().synchronize()
        return [
            (labels.numpy().view(np.uint16).copy(), table.numpy().copy())
            for labels, table in self._pinned
        ]
