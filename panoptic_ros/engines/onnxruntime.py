"""ONNX Runtime on the CPU, in single precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from panoptic_ros.engines.onnx_engine import OnnxEngine

if TYPE_CHECKING:
    import onnx


class OnnxRuntimeEngine(OnnxEngine):
    """The network's ONNX graph, run by ONNX Runtime; the graph is cached."""

    name = "onnxruntime"
    needs = ("onnxruntime", "onnx", "onnxscript")
    devices = ("cpu",)
    batches = False

    def _build(self, graph: onnx.ModelProto, outputs: dict[str, Tensor]) -> tuple[bytes, _Session]:
        data = graph.SerializeToString()
        return data, _Session(data, outputs)

    def _load(self, data: bytes, outputs: dict[str, Tensor]) -> _Session:
        return _Session(data, outputs)


class _Session:
    """Runs a graph on the memory of torch tensors, without copies.

    Args:
        graph: Serialised, in single precision.
        outputs: Names and shapes of its outputs, in their order.
    """

    def __init__(self, graph: bytes, outputs: dict[str, Tensor]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )
        self._outputs = outputs

    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        raw = {name: torch.empty(like.shape) for name, like in self._outputs.items()}
        binding = self._session.io_binding()
        name = self._session.get_inputs()[0].name
        binding.bind_input(name, "cpu", 0, np.float32, batch.shape, batch.data_ptr())
        for output, value in zip(self._session.get_outputs(), raw.values(), strict=True):
            binding.bind_output(output.name, "cpu", 0, np.float32, value.shape, value.data_ptr())
        self._session.run_with_iobinding(binding)
        return raw
