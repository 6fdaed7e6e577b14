"""A network's ``forward`` as an ONNX graph."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    import onnx

INPUT_NAME = "images"


def to_onnx(
    network: nn.Module, inputs: Sequence[torch.Tensor], output_names: Sequence[str] | None = None
) -> onnx.ModelProto:
    """Trace a module into an ONNX graph with static shapes.

    Args:
        network: In eval mode, on the CPU; the graph computes in its precision.
        inputs: Tensors of the shapes and types of its inputs; the first is called ``images``.
        output_names: Names of its outputs in their order, if they are to have any.

    Raises:
        ImportError: onnx or onnxscript is missing.
    """
    names = [INPUT_NAME, *(f"{INPUT_NAME}_{i}" for i in range(1, len(inputs)))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        program = torch.onnx.export(
            network,
            tuple(inputs),
            input_names=names,
            output_names=list(output_names) if output_names else None,
            dynamo=True,
            verbose=False,
        )
    return program.model_proto
