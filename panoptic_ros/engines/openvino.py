"""OpenVINO on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from panoptic_ros.engines.onnx_engine import OnnxEngine
from panoptic_ros.export.openvino_model import to_openvino

if TYPE_CHECKING:
    import onnx
    import openvino

PRECISION_HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}


class OpenVinoEngine(OnnxEngine):
    """The network's ONNX graph, compiled by OpenVINO; the compiled model is cached."""

    name = "openvino"
    needs = ("openvino", "onnx", "onnxscript")
    devices = ("cpu",)
    batches = False

    def _build(self, graph: onnx.ModelProto, outputs: dict[str, Tensor]) -> tuple[bytes, _Request]:
        import openvino

        compiled = openvino.Core().compile_model(to_openvino(graph), "CPU", self._config())
        return compiled.export_model().getvalue(), _Request(compiled, outputs)

    def _load(self, data: bytes, outputs: dict[str, Tensor]) -> _Request:
        import openvino

        return _Request(openvino.Core().import_model(data, "CPU", self._config()), outputs)

    def _config(self) -> dict[str, str | int]:
        return {
            "INFERENCE_PRECISION_HINT": PRECISION_HINTS[self.source.precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }


class _Request:
    """Runs a compiled model on the memory of torch tensors, without copies.

    Args:
        compiled: The model, with inputs and outputs in single precision.
        outputs: Names and shapes of its outputs, in their order.
    """

    def __init__(self, compiled: openvino.CompiledModel, outputs: dict[str, Tensor]) -> None:
        self._request = compiled.create_infer_request()
        self._outputs = outputs

    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        import openvino

        raw = {name: torch.empty(like.shape) for name, like in self._outputs.items()}
        self._request.set_input_tensor(openvino.Tensor(batch.numpy(), shared_memory=True))
        for index, value in enumerate(raw.values()):
            shared = openvino.Tensor(value.numpy(), shared_memory=True)
            self._request.set_output_tensor(index, shared)
        self._request.infer()
        return raw
