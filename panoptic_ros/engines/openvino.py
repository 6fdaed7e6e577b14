"""OpenVINO on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from panoptic_ros.engines.base import EngineError
from panoptic_ros.engines.onnx_engine import OnnxEngine, Runner
from panoptic_ros.engines.openvino_model import import_openvino, to_openvino

if TYPE_CHECKING:
    import onnx
    import openvino

PRECISION_HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}


class OpenVinoEngine(OnnxEngine):
    """The network's ONNX graph, compiled by OpenVINO; the compiled model is cached.

    A quantised network comes as an OpenVINO model: no export, and nothing that needs a cache.
    """

    name = "openvino"
    needs = ("openvino", "onnx", "onnxscript")
    devices = ("cpu",)
    batches = False

    def _compile(self, batch: int) -> tuple[Runner, dict[str, Tensor]]:
        quantized = self.source.quantized
        if quantized is None:
            return super()._compile(batch)
        core = import_openvino().Core()
        model = core.read_model(quantized.graph, quantized.weights)
        outputs = self.source.outputs(batch)
        expected = {name: list(value.shape) for name, value in outputs.items()}
        given = {output.any_name: list(output.shape) for output in model.outputs}
        if list(given.items()) != list(expected.items()):
            raise EngineError(
                f"the int8 network has the outputs {given}; forward has {expected}; make it again "
                "with panoptic quantize"
            )
        return _Request(core.compile_model(model, "CPU", self._config()), outputs), outputs

    def _build(self, graph: onnx.ModelProto, outputs: dict[str, Tensor]) -> tuple[bytes, _Request]:
        core = import_openvino().Core()
        compiled = core.compile_model(to_openvino(graph), "CPU", self._config())
        return compiled.export_model().getvalue(), _Request(compiled, outputs)

    def _load(self, data: bytes, outputs: dict[str, Tensor]) -> _Request:
        core = import_openvino().Core()
        return _Request(core.import_model(data, "CPU", self._config()), outputs)

    def _config(self) -> dict[str, str | int]:
        return {
            "INFERENCE_PRECISION_HINT": PRECISION_HINTS[self.source.precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            # Pinned, processes beside each other would all compute on the first core.
            "ENABLE_CPU_PINNING": False,
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
        self._tensor = import_openvino().Tensor
        self._outputs = outputs

    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        raw = {name: torch.empty(like.shape) for name, like in self._outputs.items()}
        self._request.set_input_tensor(self._tensor(batch.numpy(), shared_memory=True))
        for index, value in enumerate(raw.values()):
            self._request.set_output_tensor(index, self._tensor(value.numpy(), shared_memory=True))
        self._request.infer()
        return raw
