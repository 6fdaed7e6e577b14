"""What all five networks promise alike, in their small configurations and at tiny sizes."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from panoptic_ros.model_zoo import ModelConfig, load_config
from panoptic_ros.networks import NETWORKS
from panoptic_ros.networks.base import FrameSize, PanopticNetwork, PredictionOptions, SegmentMap
from panoptic_ros.networks.folding import fold_batch_norm
from panoptic_ros.networks.segments import encode_segments
from panoptic_ros.segmenter import Segmenter

from ..shared_data import REPOSITORY

SIZES = dict.fromkeys(NETWORKS, (96, 160)) | {"epsnet": (264, 288)}
OPTIONS = PredictionOptions(score_threshold=0.1)

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch's own

# Layers that say what is there and where, with a scale and a bias: fresh ones find nothing.
HEADS = {
    "fpsnet": {"detector.classification.4": (2.0, -2.0)},
    "dense_detection": {
        "box_class": (2.0, 0.0),
        "semantic": (4.0, 0.0),
        "offsets": (0.1, 3.5),  # boxes of one size: what agrees with its neighbours makes a mask
    },
    "panonet": {"semantic.classifier": (2.0, 0.0), "instance.classifier": (0.2, 0.0)},
    "epsnet": {"instance_head.classes": (2.0, 0.0)},
    "panoptic_fcn": {
        "position_head.centers": (2.0, 0.0),
        "position_head.regions": (2.0, 0.0),
        "kernel_head.kernels": (2.0, 0.0),
        "thing_embedding": (2.0, 0.0),
    },
}


class Small(NamedTuple):
    name: str
    config: ModelConfig
    network: PanopticNetwork
    size: tuple[int, int]

    def images(self, number: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(3)
        blobs = torch.randn(number, 3, 6, 9, generator=generator)
        return nn.functional.interpolate(blobs, self.size, mode="bicubic")

    def raw(self, number: int) -> dict[str, torch.Tensor]:
        with torch.inference_mode():
            return self.network(self.images(number))


def build(name: str, **settings) -> Small:
    config = load_config(REPOSITORY / f"config/networks/{name}_small.yaml")
    config = replace(config, settings={**config.settings, **settings}, options=OPTIONS)
    torch.manual_seed(0)
    network = config.build().eval()
    for path, (scale, bias) in HEADS[name].items():
        head = network.get_submodule(path)
        nn.init.normal_(head.weight, std=scale / head.weight[0].numel() ** 0.5)
        nn.init.constant_(head.bias, bias)
    return Small(name, config, network, SIZES[name])


@pytest.fixture(scope="module", params=NETWORKS)
def small(request):
    return build(request.param)


def check_contract(network: PanopticNetwork, segments: SegmentMap, size: tuple[int, int]) -> None:
    slots, class_ids, scores = segments
    assert slots.shape == size and slots.dtype == class_ids.dtype == torch.int64
    assert class_ids.ndim == 1 and class_ids.shape == scores.shape
    assert slots.min() >= 0 and slots.max() <= len(class_ids)
    stuff = class_ids[torch.isin(class_ids, network.stuff_ids)]
    assert len(stuff.unique()) == len(stuff)
    known = torch.cat((network.thing_ids, network.stuff_ids))
    assert torch.isin(class_ids[class_ids > 0], known).all()
    assert scores.dtype == torch.float32
    assert scores.min() >= 0 and scores.max() <= 1  # fails for NaN, too
    painted = slots.unique()
    assert (class_ids[painted[painted > 0] - 1] > 0).all()


def things_in(network: PanopticNetwork, segments: SegmentMap) -> int:
    painted = segments.slots.unique()
    classes = segments.class_ids[painted[painted > 0] - 1]
    return int(torch.isin(classes, network.thing_ids).sum())


# Export


def run_onnx(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[np.ndarray]:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    program = torch.onnx.export(module, inputs, dynamo=True, verbose=False)
    model = program.model_proto
    for value in (*model.graph.input, *model.graph.output):
        assert all(d.HasField("dim_value") for d in value.type.tensor_type.shape.dim), value.name
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented as error:
        pytest.skip(f"onnxruntime {onnxruntime.__version__}: {error}")  # 1.23 has no DeformConv
    names = [argument.name for argument in session.get_inputs()]
    return session.run(None, dict(zip(names, (x.numpy() for x in inputs), strict=True)))


def assert_same_maps(exported: list[np.ndarray], expected: list[torch.Tensor]) -> None:
    """Compare outputs in their order, each relative to its largest value."""
    assert len(exported) == len(expected)
    for ours, theirs in zip(exported, expected, strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs.numpy()).max() <= 1e-3 * theirs.abs().max()


def test_forward_runs_in_onnx_runtime(small):
    """With batch norm folded, as it is deployed."""
    images = small.images(1)
    with torch.inference_mode():
        expected = list(small.network(images).values())
    folded = fold_batch_norm(copy.deepcopy(small.network))
    assert_same_maps(run_onnx(folded, (images,)), expected)


def test_deformable_convolutions_run_in_onnx_runtime():
    """What the small Panoptic FCN lacks of the paper's: its position head and encoder."""
    full = build("panoptic_fcn", deformable_position=True, deformable_encoder=True).network
    for module in full.modules():
        if hasattr(module, "offset_mask"):
            nn.init.normal_(module.offset_mask.weight, std=0.2)
    features = torch.randn(1, 64, 12, 16)
    with torch.inference_mode():
        expected = [*full.position_head(features), full.feature_encoder(features)]
    results = run_onnx(full.position_head, (features,))
    results += run_onnx(full.feature_encoder, (features,))
    assert_same_maps(results, expected)


def test_panoptic_head_of_fpsnet_runs_in_onnx_runtime():
    """FPSNet's second half: it needs boxes, and runs in ``predict``."""
    small = build("fpsnet")
    features, attention = torch.randn(1, 64, 12, 20), 50 * torch.rand(1, 32, 12, 20)
    with torch.inference_mode():
        expected = [small.network.panoptic_head(features, attention)]
    assert_same_maps(run_onnx(small.network.panoptic_head, (features, attention)), expected)


# Predict


def sizes_of(size: tuple[int, int]) -> list[FrameSize]:
    """A whole input, and two that are padded and have other outputs."""
    height, width = size
    return [
        FrameSize(size, size),
        FrameSize((height - 31, width), (height + 17, 2 * width + 1)),
        FrameSize((height, width - 42), (61, 47)),
    ]


def test_each_image_of_a_batch_is_predicted_as_if_alone(small):
    sizes, network = sizes_of(small.size), small.network
    raw = small.raw(len(sizes))
    found = network.predict(raw, sizes, OPTIONS)
    assert len(found) == len(sizes)
    for i, (segments, size) in enumerate(zip(found, sizes, strict=True)):
        check_contract(network, segments, size.output)
        assert things_in(network, segments) > 0
        alone = network.predict({k: v[i : i + 1] for k, v in raw.items()}, [size], OPTIONS)[0]
        labels, single = (
            encode_segments(s, network.thing_ids).labels.long() for s in (segments, alone)
        )
        assert (labels == single).float().mean() > 0.999


def test_forward_of_a_batch_is_that_of_its_images(small):
    images = small.images(2)
    with torch.inference_mode():
        both, second = small.network(images), small.network(images[1:])
    for name, maps in both.items():
        assert len(maps) == 2
        torch.testing.assert_close(maps[1:], second[name], rtol=1e-3, atol=1e-4)


def empty(name: str, raw: dict[str, torch.Tensor], things: int) -> dict[str, torch.Tensor]:
    """Raw outputs that say there is no thing anywhere, and in Panoptic FCN no stuff either."""
    raw = {key: value.clone() for key, value in raw.items()}
    if name == "fpsnet":
        raw["class_logits"][:] = -20
    elif name == "panonet":
        raw["semantic"][:, :things] -= 1000
    elif name == "epsnet":
        raw["class_logits"][..., 0] = 20
    else:
        for key in raw:
            if key.startswith(("box_class", "centers", "regions")):
                raw[key][:] = -20
    return raw


def test_nothing_found_is_no_error(small):
    network = small.network
    raw = empty(small.name, small.raw(2), len(network.thing_ids))
    sizes = sizes_of(small.size)[:2]
    for segments, size in zip(network.predict(raw, sizes, OPTIONS), sizes, strict=True):
        check_contract(network, segments, size.output)
        assert things_in(network, segments) == 0
        encode_segments(segments, network.thing_ids)


# Through the Segmenter


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_images_of_odd_sizes_come_back_at_their_size(name, precision, monkeypatch):
    small = build(name)
    seen = []
    predict = small.network.predict
    monkeypatch.setattr(small.network, "predict", lambda *a: seen.append(predict(*a)) or seen[-1])
    segmenter = Segmenter(small.config, small.network, "cpu", precision, small.size)
    generator = np.random.default_rng(0)
    shapes = [(101, 211), (333, 77), (1, 1)]
    images = [generator.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    predictions = segmenter(images)
    for shape, prediction, segments in zip(shapes, predictions, *seen, strict=True):
        check_contract(small.network, segments, shape)
        assert prediction.labels.shape == shape and prediction.labels.dtype == np.uint16
        ids, areas = np.unique(prediction.labels[prediction.labels > 0], return_counts=True)
        found = dict(zip(ids.tolist(), areas.tolist(), strict=True))
        assert {segment.id: segment.area for segment in prediction.segments} == found
