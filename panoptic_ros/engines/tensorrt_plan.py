"""An ONNX graph as a TensorRT plan, which fits one kind of GPU and one version of TensorRT."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def to_tensorrt(graph: onnx.ModelProto) -> bytes:
    """Build a plan for the GPU in use; it computes in the types of the graph.

    Raises:
        ImportError: tensorrt is missing.
        RuntimeError: TensorRT cannot take the graph; the message has its reasons.
    """
    import tensorrt

    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    builder = tensorrt.Builder(logger)
    typed = 1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    definition = builder.create_network(typed)
    parser = tensorrt.OnnxParser(definition, logger)
    if not parser.parse(graph.SerializeToString()):
        reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise RuntimeError(f"TensorRT cannot read the ONNX graph: {reasons}")
    plan = builder.build_serialized_network(definition, builder.create_builder_config())
    if plan is None:
        raise RuntimeError("TensorRT built no plan; its own log above has the reason")
    return bytes(plan)
