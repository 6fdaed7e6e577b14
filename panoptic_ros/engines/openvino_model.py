"""An ONNX graph as an OpenVINO model, deformable convolutions included."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx
    import openvino


def import_openvino() -> ModuleType:
    """Import OpenVINO without its telemetry, which tells its makers of every import.

    Raises:
        ImportError: openvino is missing.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # as if it were not installed
    import openvino

    return openvino


def to_openvino(graph: onnx.ModelProto) -> openvino.Model:
    """Convert an ONNX graph.

    Raises:
        ImportError: openvino is missing.
        RuntimeError: OpenVINO cannot convert an operation.
    """
    core = import_openvino().Core()
    from openvino.frontend.onnx import ConversionExtension

    core.add_extension(ConversionExtension("DeformConv", _convert_deformable_convolution))
    return core.read_model(graph.SerializeToString(), b"")


def _convert_deformable_convolution(node: Any) -> list[openvino.Output]:
    """Build ONNX DeformConv: OpenVINO has the operation, but does not read it from ONNX itself."""
    from openvino import opset8

    data, weight, offset, *optional = [node.get_input(i) for i in range(node.get_input_size())]
    pads = node.get_attribute("pads", [0, 0, 0, 0])
    result = opset8.deformable_convolution(
        data,
        offset,
        weight,
        node.get_attribute("strides", [1, 1]),
        pads[:2],
        pads[2:],
        node.get_attribute("dilations", [1, 1]),
        mask=optional[1] if len(optional) > 1 else None,
        auto_pad="EXPLICIT",
        group=node.get_attribute("group", 1),
        deformable_group=node.get_attribute("offset_group", 1),
        bilinear_interpolation_pad=True,
    )
    if optional:
        per_channel = opset8.constant(np.array([1, -1, 1, 1]))
        result = opset8.add(result, opset8.reshape(optional[0], per_channel, special_zero=False))
    return result.outputs()
