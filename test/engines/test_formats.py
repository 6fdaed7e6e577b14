"""Every network in every format computes what torch computes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from panoptic_ros.engines.onnx_graph import INPUT_NAME, to_onnx
from panoptic_ros.networks import NETWORKS
from panoptic_ros.networks.layers.folding import fold_batch_norm

from ..networks.small import build


def export_to_onnx(module, inputs, names=None):
    pytest.importorskip("onnxscript")
    model = to_onnx(module, inputs, names)
    for value in (*model.graph.input, *model.graph.output):
        assert all(d.HasField("dim_value") for d in value.type.tensor_type.shape.dim), value.name
    return model


def run_onnx_runtime(model, inputs) -> list[np.ndarray]:
    onnxruntime = pytest.importorskip("onnxruntime")
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented as error:
        pytest.skip(f"onnxruntime {onnxruntime.__version__}: {error}")  # 1.23 has no DeformConv
    names = [argument.name for argument in session.get_inputs()]
    return session.run(None, dict(zip(names, (x.numpy() for x in inputs), strict=True)))


def run_openvino(model, inputs) -> list[np.ndarray]:
    openvino = pytest.importorskip("openvino")
    from panoptic_ros.engines.openvino_model import to_openvino

    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(to_openvino(model), "CPU", exact)
    return list(compiled([x.numpy() for x in inputs]).values())


RUNTIMES = {"onnxruntime": run_onnx_runtime, "openvino": run_openvino}


def assert_same_maps(results: list[np.ndarray], expected: list[torch.Tensor]) -> None:
    """Compare outputs in their order, each relative to its largest value."""
    assert len(results) == len(expected)
    for ours, theirs in zip(results, expected, strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs.numpy()).max() <= 1e-3 * theirs.abs().max()


class Deployed:
    """A small network with batch norm folded, and what it computes without."""

    def __init__(self, name: str) -> None:
        small = build(name)
        self.images = small.images(1)
        with torch.inference_mode():
            self.expected = small.network(self.images)
        self.network = fold_batch_norm(copy.deepcopy(small.network))
        self.onnx = export_to_onnx(self.network, [self.images], list(self.expected))


@pytest.fixture(scope="module", params=NETWORKS)
def deployed(request):
    return Deployed(request.param)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_onnx_graph_computes_what_torch_does(deployed, runtime):
    assert [value.name for value in deployed.onnx.graph.input] == [INPUT_NAME]
    assert [value.name for value in deployed.onnx.graph.output] == list(deployed.expected)
    results = RUNTIMES[runtime](deployed.onnx, [deployed.images])
    assert_same_maps(results, list(deployed.expected.values()))


@pytest.fixture(scope="module")
def deformable():
    """What the small Panoptic FCN lacks of the paper's: its position head and encoder."""
    full = build("panoptic_fcn", deformable_position=True, deformable_encoder=True).network
    for module in full.modules():
        if hasattr(module, "offset_mask"):
            nn.init.normal_(module.offset_mask.weight, std=0.2)
    features = [torch.randn(1, 64, 12, 16, generator=torch.Generator().manual_seed(0))]
    with torch.inference_mode():
        expected = [*full.position_head(*features), full.feature_encoder(*features)]
    graphs = [export_to_onnx(m, features) for m in (full.position_head, full.feature_encoder)]
    return features, graphs, expected


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_deformable_convolutions(deformable, runtime):
    features, graphs, expected = deformable
    results = [value for graph in graphs for value in RUNTIMES[runtime](graph, features)]
    assert_same_maps(results, expected)


def test_panoptic_head_of_fpsnet_in_onnx_runtime():
    """FPSNet's second half: it needs boxes, and runs in ``predict``."""
    small = build("fpsnet")
    head, slots = small.network.panoptic_head, small.network.num_attention
    features = small.config.settings["feature_channels"]
    inputs = [torch.randn(1, features, 12, 20), 50 * torch.rand(1, slots, 12, 20)]
    with torch.inference_mode():
        expected = [head(*inputs)]
    assert_same_maps(run_onnx_runtime(export_to_onnx(head, inputs), inputs), expected)
