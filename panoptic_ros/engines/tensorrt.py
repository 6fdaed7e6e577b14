"""TensorRT, through ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from panoptic_ros.devices import PRECISIONS
from panoptic_ros.engines.base import Engine
from panoptic_ros.engines.cache import cached, engine_key
from panoptic_ros.export.onnx_graph import INPUT_NAME, to_onnx
from panoptic_ros.export.tensorrt_plan import to_tensorrt

if TYPE_CHECKING:
    import tensorrt


class TensorRtEngine(Engine):
    """The network's ONNX graph as a TensorRT plan, one for each batch size; plans are cached."""

    name = "tensorrt"
    needs = ("tensorrt", "onnx", "onnxscript")
    devices = ("cuda",)

    @property
    def memory_format(self) -> torch.memory_format:
        """ONNX graphs take (B, 3, H, W) with the rows of one channel after the other."""
        return torch.contiguous_format

    def _compile(self, batch: int) -> _Context:
        source = self.source
        outputs = source.outputs(batch)

        def build() -> tuple[bytes, _Context]:
            dtype = PRECISIONS[source.precision]
            images = torch.zeros((batch, 3, *source.size), dtype=dtype)
            plan = to_tensorrt(to_onnx(source.portable(dtype), [images], list(outputs)))
            return plan, _Context(plan, outputs)

        with torch.cuda.device(source.device):
            key = engine_key(self.name, source, batch, self.needs)
            return cached(key, build, lambda plan: _Context(plan, outputs))

    def _run(self, compiled: _Context, batch: Tensor) -> dict[str, Tensor]:
        with torch.cuda.device(self.source.device):
            return compiled(batch)


class _Context:
    """Runs a plan on the memory of torch tensors, in torch's current stream."""

    def __init__(self, plan: bytes, outputs: dict[str, Tensor]) -> None:
        import tensorrt

        self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.WARNING))
        engine: tensorrt.ICudaEngine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise RuntimeError("TensorRT does not accept the plan")
        self._context = engine.create_execution_context()
        self._outputs = outputs

    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        raw = {k: torch.empty_like(v, device=batch.device) for k, v in self._outputs.items()}
        for name, tensor in {INPUT_NAME: batch, **raw}.items():
            self._context.set_tensor_address(name, tensor.data_ptr())
        if not self._context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise RuntimeError("TensorRT failed to run; its own log above has the reason")
        return raw
