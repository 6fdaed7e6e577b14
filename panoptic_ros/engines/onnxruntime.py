"""ONNX Runtime on the CPU, in single precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from panoptic_ros.engines.base import Engine
from panoptic_ros.engines.cache import cached, engine_key
from panoptic_ros.export.onnx_graph import to_onnx

if TYPE_CHECKING:
    import onnxruntime


class OnnxRuntimeEngine(Engine):
    """The network's ONNX graph, run by ONNX Runtime; the graph is cached."""

    name = "onnxruntime"
    needs = ("onnxruntime", "onnx", "onnxscript")
    devices = ("cpu",)
    batches = False

    @property
    def memory_format(self) -> torch.memory_format:
        """ONNX graphs take (B, 3, H, W) with the rows of one channel after the other."""
        return torch.contiguous_format

    def _compile(self, batch: int) -> tuple[onnxruntime.InferenceSession, dict[str, Tensor]]:
        outputs = self.source.outputs(batch)

        def build() -> tuple[bytes, onnxruntime.InferenceSession]:
            images = torch.zeros((batch, 3, *self.source.size))
            graph = to_onnx(self.source.portable(), [images], list(outputs)).SerializeToString()
            return graph, _open(graph)

        key = engine_key(self.name, self.source, batch, self.needs)
        return cached(key, build, _open), outputs

    def _run(
        self, compiled: tuple[onnxruntime.InferenceSession, dict[str, Tensor]], batch: Tensor
    ) -> dict[str, Tensor]:
        session, outputs = compiled
        binding = session.io_binding()
        name = session.get_inputs()[0].name
        binding.bind_input(name, "cpu", 0, np.float32, batch.shape, batch.data_ptr())
        raw = {name: torch.empty(like.shape) for name, like in outputs.items()}
        for output, value in zip(session.get_outputs(), raw.values(), strict=True):
            binding.bind_output(output.name, "cpu", 0, np.float32, value.shape, value.data_ptr())
        session.run_with_iobinding(binding)
        return raw


def _open(graph: bytes) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
