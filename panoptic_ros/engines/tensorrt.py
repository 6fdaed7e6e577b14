"""TensorRT, through ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from panoptic_ros.devices import PRECISIONS
from panoptic_ros.engines.base import Forward
from panoptic_ros.engines.onnx_engine import OnnxEngine, Runner
from panoptic_ros.engines.onnx_graph import INPUT_NAME
from panoptic_ros.engines.tensorrt_plan import to_tensorrt

if TYPE_CHECKING:
    import onnx
    import tensorrt


class TensorRtEngine(OnnxEngine):
    """The network's ONNX graph as a TensorRT plan, one for each batch size; plans are cached."""

    name = "tensorrt"
    needs = ("tensorrt", "onnx", "onnxscript")
    devices = ("cuda",)
    reentrant = False  # a context has one set of addresses and one scratch memory

    @property
    def dtype(self) -> torch.dtype:
        """Plans take batches in the type that they compute in."""
        return PRECISIONS[self.source.precision]

    def capturable(self) -> list[tuple[str, Forward]]:
        """Return the plan for single images."""
        return [("TensorRT", self)]

    def _build(self, graph: onnx.ModelProto, outputs: dict[str, Tensor]) -> tuple[bytes, _Context]:
        plan = to_tensorrt(graph)
        return plan, _Context(plan, outputs)

    def _load(self, data: bytes, outputs: dict[str, Tensor]) -> _Context:
        return _Context(data, outputs)

    def _compile(self, batch: int) -> tuple[Runner, dict[str, Tensor]]:
        with torch.cuda.device(self.source.device):
            return super()._compile(batch)

    def _run(self, compiled: tuple[Runner, dict[str, Tensor]], batch: Tensor) -> dict[str, Tensor]:
        with torch.cuda.device(self.source.device):
            return super()._run(compiled, batch)


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
