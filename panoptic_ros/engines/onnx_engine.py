"""What the engines share that take a network as an ONNX graph."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from panoptic_ros.engines.base import Engine
from panoptic_ros.engines.cache import cached, engine_key
from panoptic_ros.engines.onnx_graph import to_onnx

if TYPE_CHECKING:
    import onnx

Runner = Callable[[Tensor], dict[str, Tensor]]  # computes ``forward`` for batches of one size


class OnnxEngine(Engine):
    """Exports the network once for each batch size; what is made of the graph is cached.

    The graph has the inputs, the parameters and the outputs in ``dtype``, whatever the engine
    computes in.
    """

    @property
    def dtype(self) -> torch.dtype:
        """Type of the batches that it takes, and of the graph."""
        return torch.float32

    @property
    def memory_format(self) -> torch.memory_format:
        """ONNX graphs take (B, 3, H, W) with the rows of one channel after the other."""
        return torch.contiguous_format

    @abstractmethod
    def _build(self, graph: onnx.ModelProto, outputs: dict[str, Tensor]) -> tuple[bytes, Runner]:
        """Make the data to cache of a graph, and what ``_load`` would make of the data.

        Args:
            graph: With the outputs in the order of ``outputs``.
            outputs: Names, shapes and types that ``forward`` has, as meta tensors.
        """

    @abstractmethod
    def _load(self, data: bytes, outputs: dict[str, Tensor]) -> Runner:
        """Make the runner of cached data; may raise anything for data that it cannot use."""

    def _compile(self, batch: int) -> tuple[Runner, dict[str, Tensor]]:
        source = self.source
        outputs = source.outputs(batch)

        def build() -> tuple[bytes, Runner]:
            images = torch.zeros((batch, 3, *source.size), dtype=self.dtype)
            graph = to_onnx(source.portable(self.dtype), [images], list(outputs))
            return self._build(graph, outputs)

        key = engine_key(self.name, source, batch, self.needs)
        return cached(key, build, lambda data: self._load(data, outputs)), outputs

    def _run(self, compiled: tuple[Runner, dict[str, Tensor]], batch: Tensor) -> dict[str, Tensor]:
        runner, outputs = compiled
        return {name: value.to(outputs[name].dtype) for name, value in runner(batch).items()}
