"""OpenVINO on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from panoptic_ros.engines.base import Engine
from panoptic_ros.engines.cache import cached, engine_key
from panoptic_ros.export.onnx_graph import to_onnx
from panoptic_ros.export.openvino_model import to_openvino

if TYPE_CHECKING:
    import openvino

PRECISION_HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}


class OpenVinoEngine(Engine):
    """The network's ONNX graph, compiled by OpenVINO; the compiled model is cached."""

    name = "openvino"
    needs = ("openvino", "onnx", "onnxscript")
    devices = ("cpu",)
    batches = False

    @property
    def dtype(self) -> torch.dtype:
        """Its inputs are single precision, whatever it computes in."""
        return torch.float32

    @property
    def memory_format(self) -> torch.memory_format:
        """ONNX graphs take (B, 3, H, W) with the rows of one channel after the other."""
        return torch.contiguous_format

    def _compile(self, batch: int) -> _Request:
        import openvino

        outputs = self.source.outputs(batch)
        core = openvino.Core()
        config = {
            "INFERENCE_PRECISION_HINT": PRECISION_HINTS[self.source.precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }

        def build() -> tuple[bytes, openvino.CompiledModel]:
            images = torch.zeros((batch, 3, *self.source.size))
            model = to_openvino(to_onnx(self.source.portable(), [images], list(outputs)))
            compiled = core.compile_model(model, "CPU", config)
            return compiled.export_model().getvalue(), compiled

        key = engine_key(self.name, self.source, batch, self.needs)
        compiled = cached(key, build, lambda data: core.import_model(data, "CPU", config))
        return _Request(compiled, outputs)

    def _run(self, compiled: _Request, batch: Tensor) -> dict[str, Tensor]:
        return compiled(batch)


class _Request:
    """Runs a compiled model on the memory of torch tensors, without copies.

    Args:
        compiled: The model.
        outputs: Names, shapes and types that ``forward`` has, in the order of the model's.
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
        return {name: value.to(self._outputs[name].dtype) for name, value in raw.items()}
