"""PyTorch without Python in between: inductor on the CPU, CUDA graphs on the GPU."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import torch
from torch import Tensor

from panoptic_ros.engines.base import Engine, EngineError, EngineInput
from panoptic_ros.engines.cache import cache_directory

WARM_UP_RUNS = 3  # before a capture, as libraries choose their algorithms in the first runs

Forward = Callable[[Tensor], dict[str, Tensor]]


class CompiledEngine(Engine):
    """``torch.compile`` with frozen weights for CPUs, a captured graph for CUDA."""

    name = "compiled"

    @property
    def batches(self) -> bool:
        """Not on CPUs, where one image keeps all cores busy."""
        return self.source.device.type == "cuda"

    def has_static_outputs(self, batch: int) -> bool:
        """On CUDA, for batches that are captured as a whole."""
        return self.source.device.type == "cuda" and batch in self._compiled

    def _compile(self, batch: int) -> Forward:
        if self.source.device.type == "cuda":
            return Capture(self.source, batch)
        if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++")):
            raise EngineError("engine compiled needs a C++ compiler on CPUs: install g++")
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_directory() / "inductor"))
        compiled = torch.compile(self.source.network, dynamic=False, options={"freezing": True})
        with torch.inference_mode():
            compiled(self.source.zeros(batch, self.dtype))
        return compiled

    def _run(self, compiled: Forward, batch: Tensor) -> dict[str, Tensor]:
        return compiled(batch)


class Capture:
    """``forward`` captured as a CUDA graph, which one launch replays.

    Its input and outputs are static memory: the next call overwrites the outputs, in the order of
    the stream.
    """

    def __init__(self, source: EngineInput, batch: int) -> None:
        with torch.cuda.device(source.device), torch.inference_mode():
            self._images = source.zeros(batch, next(source.network.parameters()).dtype)
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP_RUNS):
                    source.network(self._images)
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            # Other threads may use the device meanwhile: the node serves while it loads.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._outputs = source.network(self._images)

    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        """Compute ``forward``; the result is valid until the next call."""
        self._images.copy_(batch)
        self._graph.replay()
        return self._outputs
